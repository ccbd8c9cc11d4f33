//! What alerts on `process_open_fds` do: a straight line through the last hour.

use std::collections::VecDeque;
use std::time::Duration;

/// An hour and four of them, in windows of five minutes: a trace with shorter windows
/// has its time run faster.
const RANGE: u32 = 12;
const AHEAD: u32 = 48;
/// Share of the limit that is alarming by itself.
const FULL: f64 = 0.7;

/// `predict_linear(process_open_fds[1h], 4 * 3600) > process_max_fds or
/// process_open_fds / process_max_fds > 0.7`, of the process that is nearest to its limit.
pub struct Predict {
    range: Duration,
    ahead: Duration,
    samples: VecDeque<(Duration, f64)>,
    since: Option<Duration>,
    firing: bool,
}

impl Predict {
    /// For a trace with windows of this length.
    pub fn new(window: Duration) -> Self {
        let (range, ahead) = (window * RANGE, window * AHEAD);
        Self { range, ahead, samples: VecDeque::new(), since: None, firing: false }
    }

    /// Takes a sample; says why where an alert begins. Nothing is predicted from less
    /// than a whole range, which a start would else be mistaken by.
    pub fn update(&mut self, at: Duration, open: f64, limit: f64) -> Option<&'static str> {
        let since = *self.since.get_or_insert(at);
        self.samples.push_back((at, open));
        while self.samples.front().is_some_and(|(t, _)| at - *t > self.range) {
            self.samples.pop_front();
        }
        let predicted = (at - since >= self.range).then(|| self.line(at)).flatten();
        let why = if open / limit > FULL {
            Some("over 70 % of the limit")
        } else if predicted.is_some_and(|p| p > limit) {
            Some("over the limit in four hours")
        } else {
            None
        };
        let before = std::mem::replace(&mut self.firing, why.is_some());
        why.filter(|_| !before)
    }

    /// Least squares through the samples, so far ahead of `at`.
    fn line(&self, at: Duration) -> Option<f64> {
        let n = self.samples.len() as f64;
        let x = |t: Duration| t.as_secs_f64() - at.as_secs_f64();
        let mean_x = self.samples.iter().map(|(t, _)| x(*t)).sum::<f64>() / n;
        let mean_y = self.samples.iter().map(|(_, y)| y).sum::<f64>() / n;
        let (mut above, mut below) = (0.0, 0.0);
        for (t, y) in &self.samples {
            above += (x(*t) - mean_x) * (y - mean_y);
            below += (x(*t) - mean_x).powi(2);
        }
        (below > 0.0).then(|| mean_y + above / below * (self.ahead.as_secs_f64() - mean_x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn first_alarm(limit: f64, open: impl Fn(u32) -> f64) -> Option<(u32, &'static str)> {
        let mut predict = Predict::new(5 * MINUTE);
        (0..600).find_map(|m| Some((m, predict.update(MINUTE * m, open(m), limit)?)))
    }

    #[test]
    fn a_straight_line_is_followed_four_hours_ahead() {
        // One a minute: 240 more in four hours, so over 1000 from minute 761 on; 0.7 is
        // over from 701 on.
        assert_eq!(first_alarm(1000.0, f64::from), None);
        // 100 and two a minute: 2m + 580 > 1000 from minute 211 on.
        let alarm = first_alarm(1000.0, |m| 100.0 + 2.0 * f64::from(m));
        assert_eq!(alarm, Some((211, "over the limit in four hours")));
        // Nothing is said within the first hour.
        let alarm = first_alarm(1000.0, |m| 10.0 * f64::from(m));
        assert_eq!(alarm, Some((60, "over the limit in four hours")));
    }

    #[test]
    fn what_is_nearly_full_is_alarming_by_itself_and_once() {
        assert_eq!(first_alarm(100.0, |_| 70.0), None);
        assert_eq!(first_alarm(100.0, |_| 71.0), Some((0, "over 70 % of the limit")));
        let mut predict = Predict::new(5 * MINUTE);
        let alarms = (0..100).filter_map(|m| predict.update(MINUTE * m, 71.0, 100.0)).count();
        assert_eq!(alarms, 1);
    }
}
