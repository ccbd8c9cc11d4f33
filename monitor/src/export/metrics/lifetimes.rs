//! Folds the kernel's log2 histograms to the few bounds that are exported.

use crate::source::model::Lifetimes;

/// Exponents of the exported bounds: bucket `i` of the kernel ends at `2^i`
/// microseconds, so these bounds are exact, not interpolated. Three octaves
/// apart, which tells a request from a session from a leak; every bound costs a
/// line per series.
const EXPONENTS: [u32; 10] = [7, 10, 14, 17, 20, 23, 26, 29, 32, 34];

/// A histogram as Prometheus wants it.
#[derive(Debug, PartialEq)]
pub(super) struct Folded {
    /// (upper bound in seconds, count up to it); `+Inf` is `count`.
    pub(super) cumulative: Vec<(f64, u64)>,
    /// All observations.
    pub(super) count: u64,
    /// Their sum.
    pub(super) sum_seconds: f64,
}

/// Folds; `None` where nothing was ever observed.
pub(super) fn fold(lifetimes: &Lifetimes) -> Option<Folded> {
    let count: u64 = lifetimes.buckets.iter().sum();
    if count == 0 {
        return None;
    }
    let cumulative = EXPONENTS
        .iter()
        .map(|&exponent| {
            let below: u64 = lifetimes.buckets.iter().take(exponent as usize + 1).sum();
            ((1_u64 << exponent) as f64 / 1e6, below)
        })
        .collect();
    Some(Folded { cumulative, count, sum_seconds: lifetimes.sum_ns as f64 / 1e9 })
}

#[cfg(test)]
mod tests {
    use leakwatch_common::LIFETIME_BUCKETS;

    use super::*;

    #[test]
    fn bounds_are_exact_and_counts_cumulative() {
        let mut lifetimes = Lifetimes { sum_ns: 1_500_000_000, ..Default::default() };
        lifetimes.buckets[7] = 3; // 64 to 128 microseconds
        lifetimes.buckets[8] = 2; // 128 to 256
        lifetimes.buckets[20] = 1;
        lifetimes.buckets[LIFETIME_BUCKETS - 1] = 4; // the rest
        let folded = fold(&lifetimes).unwrap();
        assert_eq!(folded.count, 10);
        assert!((folded.sum_seconds - 1.5).abs() < 1e-9);
        assert_eq!(folded.cumulative[0], (0.000_128, 3));
        assert_eq!(folded.cumulative[1], (0.001_024, 5));
        assert_eq!(folded.cumulative[4], (1.048_576, 6));
        // The open-ended bucket is in +Inf alone.
        assert_eq!(folded.cumulative.last(), Some(&(17_179.869_184, 6)));
        assert!(folded.cumulative.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1));
    }

    #[test]
    fn nothing_observed_is_no_series() {
        assert_eq!(fold(&Lifetimes::default()), None);
    }
}
