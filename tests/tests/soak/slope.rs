//! The slope of a figure over time that single looks cannot bend.

/// Points that are compared with one another at most.
const MOST: usize = 400;

/// The median of the slopes between all pairs (Theil and Sen): up to 29 % of the
/// looks may show anything. Per second; `None` of fewer than two.
pub fn robust(seen: &[(f64, f64)]) -> Option<f64> {
    let points: Vec<_> = seen.iter().step_by(seen.len().div_ceil(MOST).max(1)).collect();
    let mut slopes = Vec::new();
    for (i, (t, v)) in points.iter().enumerate() {
        slopes.extend(points[..i].iter().filter(|p| p.0 < *t).map(|p| (v - p.1) / (t - p.0)));
    }
    let middle = slopes.len() / 2;
    (!slopes.is_empty()).then(|| *slopes.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[test]
fn outliers_do_not_bend_it() {
    let line = |n: u32, rise: f64| (0..n).map(move |t| (f64::from(t), 100.0 + rise * f64::from(t)));
    let mut flat: Vec<_> = line(60, 0.0).collect();
    for at in (0..60).step_by(4) {
        flat[at].1 += 5000.0;
    }
    assert_eq!(robust(&flat), Some(0.0));
    let rising: Vec<_> = line(2000, 0.5).collect();
    assert!((robust(&rising).unwrap() - 0.5).abs() < 1e-9);
    assert_eq!((robust(&[]), robust(&[(1.0, 1.0)])), (None, None));
}
