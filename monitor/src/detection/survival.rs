//! How long descriptors of a kind live: the product-limit estimate with open ones
//! right-censored (Kaplan and Meier, "Nonparametric Estimation from Incomplete
//! Observations", JASA 53, 1958), on the log2 histogram that the probes keep.

use std::time::Duration;

use crate::source::model::Lifetimes;

/// The share that lives on after each bucket.
#[derive(Debug)]
pub(crate) struct Survival {
    alive: Vec<f64>,
    /// Lifetimes that have ended.
    pub completed: u64,
}

impl Survival {
    /// From lifetimes that have ended, and the ages of what has not. Within a bucket
    /// the ends count before the censored: it errs towards long lives.
    pub fn estimate(ended: &Lifetimes, open: impl Iterator<Item = Duration>) -> Self {
        let mut censored = vec![0_u64; ended.buckets.len()];
        for age in open {
            if let Some(n) = censored.get_mut(bucket(age)) {
                *n += 1;
            }
        }
        let completed = ended.buckets.iter().sum();
        let mut at_risk = completed + censored.iter().sum::<u64>();
        let mut share = 1.0;
        let alive = ended.buckets.iter().zip(&censored).map(|(ends, censored)| {
            if at_risk > 0 {
                share *= 1.0 - *ends as f64 / at_risk as f64;
            }
            at_risk -= ends + censored;
            share
        });
        Self { alive: alive.collect(), completed }
    }

    /// The upper bound of the first bucket by whose end at most `share` lives on;
    /// `None` where more does for as long as was watched, or than a bucket tells.
    pub fn until(&self, share: f64) -> Option<Duration> {
        let bucket = self.alive.iter().position(|alive| *alive <= share)?;
        bound(bucket, self.alive.len())
    }
}

/// What the longest life that has ended lasted at least.
pub(crate) fn longest(ended: &Lifetimes) -> Option<Duration> {
    let bucket = ended.buckets.iter().rposition(|n| *n > 0)?;
    Some(Duration::from_micros((1_u64 << bucket.min(62)) / 2))
}

/// The upper bound of a bucket. The last one holds all that is longer than the one before.
fn bound(bucket: usize, buckets: usize) -> Option<Duration> {
    (bucket + 1 < buckets).then(|| Duration::from_micros(1_u64 << bucket.min(62)))
}

/// The bucket of the histogram: `i` is below `2^i` microseconds.
fn bucket(age: Duration) -> usize {
    let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    (u64::BITS - micros.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(of: &[(usize, u64)]) -> Lifetimes {
        let mut lifetimes = Lifetimes::default();
        of.iter().for_each(|(bucket, n)| lifetimes.buckets[*bucket] = *n);
        lifetimes
    }

    #[test]
    fn the_product_limit_by_hand() {
        // 2 of 10 end in bucket 1, one is censored there; of the 7 left 1 ends in
        // bucket 3, two are censored in 4, and the last four end in 6.
        let lifetimes = ended(&[(1, 2), (3, 1), (6, 4)]);
        let open = [1, 8, 9].map(Duration::from_micros);
        let survival = Survival::estimate(&lifetimes, open.into_iter());
        assert_eq!(survival.completed, 7);
        let near = |i: usize, want: f64| (survival.alive[i] - want).abs() < 1e-12;
        assert!(near(0, 1.0) && near(1, 0.8) && near(2, 0.8), "{survival:?}");
        assert!(near(3, 0.8 * 6.0 / 7.0) && near(5, 0.8 * 6.0 / 7.0) && near(6, 0.0));
        assert_eq!(survival.until(0.8), Some(Duration::from_micros(2)));
        assert_eq!(survival.until(0.01), Some(Duration::from_micros(64)));
    }

    #[test]
    fn the_last_bucket_has_no_upper_bound() {
        let last = Lifetimes::default().buckets.len() - 1;
        let lifetimes = ended(&[(3, 50), (last, 50)]);
        let survival = Survival::estimate(&lifetimes, std::iter::empty());
        assert_eq!(survival.until(0.5), Some(Duration::from_micros(8)));
        assert_eq!(survival.until(0.05), None, "they may have lived for days");
        assert_eq!(longest(&lifetimes), Some(Duration::from_micros(1 << (last - 1))));
        assert_eq!(longest(&Lifetimes::default()), None);
    }

    #[test]
    fn what_is_open_keeps_the_estimate_up() {
        let lifetimes = ended(&[(10, 90)]);
        let open = || std::iter::repeat_n(Duration::from_secs(60), 10);
        assert_eq!(Survival::estimate(&lifetimes, open()).until(0.05), None);
        let alone = Survival::estimate(&lifetimes, std::iter::empty());
        assert_eq!(alone.until(0.05), Some(Duration::from_micros(1024)));
        let nothing = Survival::estimate(&Lifetimes::default(), open());
        assert_eq!((nothing.completed, nothing.until(0.5)), (0, None));
    }

    #[test]
    fn ages_fall_into_the_buckets_of_the_probes() {
        for (micros, want) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1 << 20, 21)] {
            assert_eq!(bucket(Duration::from_micros(micros)), want, "{micros}");
        }
    }
}
