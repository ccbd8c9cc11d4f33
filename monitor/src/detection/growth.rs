//! How fast a count grows.

/// Most points that are compared: the cost is quadratic.
const MAX_POINTS: usize = 64;

/// The Theil-Sen slope of `(x, y)`: the median of the slopes of all pairs, which
/// a burst or two cannot move. `None` with fewer than three points.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    if points.len() < 3 {
        return None;
    }
    let points = &points[points.len().saturating_sub(MAX_POINTS)..];
    let mut slopes: Vec<f64> = Vec::with_capacity(points.len() * points.len() / 2);
    for (i, (x0, y0)) in points.iter().enumerate() {
        slopes.extend(
            points[i + 1..].iter().filter(|(x, _)| x > x0).map(|(x, y)| (y - y0) / (x - x0)),
        );
    }
    if slopes.is_empty() {
        return None;
    }
    slopes.sort_by(f64::total_cmp);
    let middle = slopes.len() / 2;
    Some(if slopes.len() % 2 == 1 {
        slopes[middle]
    } else {
        (slopes[middle - 1] + slopes[middle]) / 2.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_does_not_move_the_slope() {
        let line: Vec<_> = (0..9).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        assert_eq!(slope(&line), Some(2.0));
        let mut burst = line.clone();
        burst[4].1 = 500.0;
        assert!((slope(&burst).unwrap() - 2.0).abs() < 0.5);
        assert_eq!(slope(&line[..2]), None);
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
