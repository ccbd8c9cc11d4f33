//! The rising minimum of `fdleak`, a tool proposed to bcc (iovisor/bcc, pull request
//! 3655, 2021; not merged), written anew from what it does.
//!
//! Of each process it counts what was opened less what was closed since it watches, and
//! takes a sample wherever that is not nothing. It remembers the least count. Once `patience` samples in a row lie above that, and it is
//! above the one before, the minimum has risen once; the highest count so far is where
//! the search for the next one begins, with twice the patience. After two rises, or above 80 % of
//! the limit, the process is at risk. Its second stage, which asks whether what is opened
//! within the next 90 s lives for 30, is not done here: a census a minute cannot tell.

/// Samples above the minimum, at first.
const PATIENCE: u32 = 3;
/// Rises that are a risk.
const RISES: u32 = 2;
/// Share of the limit that is one.
const FULL: f64 = 0.8;

/// One process.
pub struct Fdleak {
    before: f64,
    least: Option<f64>,
    most: f64,
    risen_from: f64,
    above: u32,
    patience: u32,
    rises: u32,
    at_risk: bool,
}

impl Fdleak {
    /// That has so many open when it is first seen: those are not counted.
    pub fn new(open: f64) -> Self {
        Self {
            before: open,
            least: None,
            most: 0.0,
            risen_from: 0.0,
            above: 0,
            patience: PATIENCE,
            rises: 0,
            at_risk: false,
        }
    }

    /// Takes a sample; true where the process comes to be at risk.
    pub fn update(&mut self, open: f64, limit: f64) -> bool {
        let count = open - self.before;
        if count <= 0.0 {
            return false;
        }
        self.most = self.most.max(count);
        let Some(least) = &mut self.least else {
            self.least = Some(count);
            return false;
        };
        if count > *least {
            self.above += 1;
            if self.above >= self.patience && *least > self.risen_from {
                self.rises += 1;
                self.patience *= 2;
                (self.risen_from, *least) = (*least, self.most);
            }
        } else {
            (*least, self.above) = (count, 0);
        }
        let risk = self.rises >= RISES || self.most > FULL * limit;
        risk && !std::mem::replace(&mut self.at_risk, risk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(counts: &[u32], limit: f64) -> Option<usize> {
        let mut process = Fdleak::new(0.0);
        counts.iter().position(|c| process.update(f64::from(*c), limit))
    }

    #[test]
    fn the_minimum_must_rise_twice() {
        // 1 is the first; 2, 3, 4 lie above it: once. From 4 on, with six samples above
        // a minimum: 5, 6, 7 make them six.
        assert_eq!(first(&[1, 2, 3, 4, 5, 6, 7, 8], 1e6), Some(6));
        assert_eq!(first(&[1, 2, 3, 4, 5, 6, 6], 1e6), Some(6));
        // What falls back begins anew, at the lower minimum.
        assert_eq!(first(&[5, 6, 7, 1, 6, 7, 1, 6, 7, 1, 6], 1e6), None);
        // Nothing open is no sample.
        assert_eq!(first(&[0, 0, 1, 0, 2, 3, 0, 4, 5, 6, 7], 1e6), Some(10));
        assert_eq!(first(&[10, 81], 100.0), Some(1), "81 is over 80 %");
    }
}
