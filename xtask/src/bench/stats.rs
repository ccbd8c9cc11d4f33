//! Order statistics and how they are written.

/// Numbers of one measurement, sorted.
#[derive(Clone, Debug)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Of numbers in any order; those that are not finite are left out.
    pub fn new(mut values: Vec<f64>) -> Self {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// Nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The quantile `q` (0 to 1) by the nearest rank; NaN when empty.
    pub fn quantile(&self, q: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a rank within a short list"
        )]
        let rank = (q.clamp(0.0, 1.0) * last as f64).round() as usize;
        self.0.get(rank).copied().unwrap_or(f64::NAN)
    }

    /// The median; NaN when empty.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Whether it is at most `aim`: `PASS` or `over` where three quarters of the rounds
    /// say so, else `undecided`.
    pub fn told(&self, aim: f64) -> &'static str {
        if self.quantile(0.75) <= aim {
            "PASS"
        } else if self.quantile(0.25) <= aim {
            "undecided"
        } else {
            "over"
        }
    }

    /// `median (least to most)`.
    pub fn spread(&self, unit: &str, decimals: usize) -> String {
        if self.is_empty() {
            return "not measured".to_owned();
        }
        format!(
            "{:.decimals$}{unit} ({:.decimals$} to {:.decimals$})",
            self.median(),
            self.quantile(0.0),
            self.quantile(1.0)
        )
    }
}

/// `PASS` or `over` for a figure that should be at most `aim`.
pub fn at_most(value: f64, aim: f64) -> &'static str {
    if value <= aim { "PASS" } else { "over" }
}

/// `PASS` or `under` for a figure that should be at least `aim`.
pub fn at_least(value: f64, aim: f64) -> &'static str {
    if value >= aim { "PASS" } else { "under" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let sample = Sample::new(vec![3.0, 1.0, f64::NAN, 2.0]);
        assert!((sample.median() - 2.0).abs() < 1e-9);
        assert!((sample.quantile(0.99) - 3.0).abs() < 1e-9);
        assert_eq!(sample.spread(" ms", 1), "2.0 ms (1.0 to 3.0)");
        assert_eq!(Sample::new(vec![]).spread("", 1), "not measured");
    }

    #[test]
    fn rounds_that_spread_over_the_aim_decide_nothing() {
        let told = |values: [f64; 5]| Sample::new(values.to_vec()).told(1.02);
        assert_eq!(told([0.98, 1.0, 1.0, 1.01, 1.3]), "PASS", "one was disturbed");
        assert_eq!(told([0.9, 1.0, 1.01, 1.04, 1.05]), "undecided");
        assert_eq!(told([1.0, 1.03, 1.04, 1.05, 1.05]), "over");
        assert_eq!(Sample::new(vec![]).told(1.0), "over");
    }

    #[test]
    fn nothing_measured_is_no_pass() {
        assert_eq!(at_most(f64::NAN, 1.0), "over");
        assert_eq!(at_least(f64::NAN, 1.0), "under");
    }
}
