//! When the next census comes and how deep it goes, so that all of them keep to the
//! processor budget.
//!
//! While the budget allows, every census reads every descriptor. Past that, most only
//! count, and read again what has moved: half of the budget is for them, half for the
//! whole ones between.

use std::time::Duration;

use crate::config::model::Watch;
use crate::source::model::Depth;

/// A whole census may be so much rarer than wanted before others come between.
const TOLERATED: f64 = 1.5;

/// What the censuses of one depth cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    smoothed: Duration,
    taken: u64,
}

impl Cost {
    fn spent(&mut self, cost: Duration) {
        // One slow look on a busy host should not slow the next hour. And the first one
        // asks for every path: it says nothing of the second.
        self.smoothed =
            if self.taken < 2 { cost } else { self.smoothed.mul_f64(0.75) + cost.mul_f64(0.25) };
        self.taken += 1;
    }

    /// What was measured a while ago says ever less.
    fn age(&mut self) {
        self.smoothed = self.smoothed.mul_f64(0.95);
    }

    /// How far apart they are for `share` of a processor.
    fn affordable(self, share: f64) -> Duration {
        if self.taken < 2 { Duration::ZERO } else { self.smoothed.div_f64(share) }
    }
}

/// Between two censuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intervals {
    /// Of any depth.
    pub any: Duration,
    /// Of those that read everything.
    pub whole: Duration,
}

/// Keeps the costs.
#[derive(Debug)]
pub(super) struct Pace {
    wanted: Duration,
    budget: f64,
    whole: Cost,
    part: Cost,
    /// Since the last whole census.
    parts: u32,
    /// A census in part can be had.
    countable: bool,
    intervals: Intervals,
}

impl Pace {
    /// Nothing spent yet.
    pub fn new(watch: &Watch) -> Self {
        let wanted = watch.census_interval;
        Self {
            wanted,
            budget: watch.census_cpu_budget.max(0.0001),
            whole: Cost::default(),
            part: Cost::default(),
            parts: 0,
            countable: false,
            intervals: Intervals { any: wanted, whole: wanted },
        }
    }

    /// Takes another interval and budget; what was spent stays known.
    pub fn reconfigure(&mut self, watch: &Watch) {
        (self.wanted, self.budget) = (watch.census_interval, watch.census_cpu_budget.max(0.0001));
        self.intervals = self.plan();
    }

    /// A census of `depth` took so much processor time, with all that came of it.
    /// `countable` says whether the next may be in part.
    pub fn spent(&mut self, depth: Depth, countable: bool, cost: Duration) {
        match depth {
            Depth::Whole => {
                self.whole.spent(cost);
                self.parts = 0;
                // One that happened to be dear must not be the last that was tried.
                self.part.age();
            }
            Depth::Part => {
                self.part.spent(cost);
                self.parts += 1;
            }
        }
        self.countable = countable;
        let plan = self.plan();
        let stretched = plan.any > self.wanted || plan.whole > self.wanted.mul_f64(TOLERATED);
        let longer = |now: Duration, before: Duration| now > before.mul_f64(TOLERATED);
        if stretched
            && (longer(plan.any, self.intervals.any) || longer(plan.whole, self.intervals.whole))
        {
            tracing::info!(
                every = ?plan.any,
                all_descriptors_every = ?plan.whole,
                cost_in_part = ?self.part.smoothed,
                cost_whole = ?self.whole.smoothed,
                "the census is stretched to keep to its processor budget"
            );
        }
        self.intervals = plan;
    }

    fn plan(&self) -> Intervals {
        let whole = self.wanted.max(self.whole.affordable(self.budget));
        let only_whole = Intervals { any: whole, whole };
        if !self.countable || whole <= self.wanted.mul_f64(TOLERATED) {
            return only_whole;
        }
        let any = self.wanted.max(self.part.affordable(self.budget / 2.0));
        let whole_between = self.whole.affordable(self.budget / 2.0);
        // Where counting costs nearly as much as reading, it is not worth while.
        if any.mul_f64(2.0) >= whole { only_whole } else { Intervals { any, whole: whole_between } }
    }

    /// How far apart they are now.
    pub fn intervals(&self) -> Intervals {
        self.intervals
    }

    /// How deep the next one goes.
    pub fn depth(&self) -> Depth {
        let Intervals { any, whole } = self.intervals;
        // By their number, not by a clock: one that is late must not make the next whole.
        if any.saturating_mul(self.parts + 1) < whole { Depth::Part } else { Depth::Whole }
    }

    /// Processor time of a usual census.
    pub fn usual(&self) -> Duration {
        if self.part.taken > 0 { self.part.smoothed } else { self.whole.smoothed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn pace() -> Pace {
        let watch =
            Watch { census_interval: MS(5000), census_cpu_budget: 0.01, ..Watch::default() };
        Pace::new(&watch)
    }

    /// Runs for `hours`; gives the share of a processor that was spent and the longest
    /// time without a census and without a whole one.
    fn run(pace: &mut Pace, hours: u64, whole: Duration, part: Duration) -> (f64, Intervals) {
        let (mut now, mut spent) = (Duration::ZERO, Duration::ZERO);
        let (mut last_whole, mut longest) = (now, Intervals { any: now, whole: now });
        while now < MS(hours * 3_600_000) {
            let depth = pace.depth();
            let cost = if depth == Depth::Whole { whole } else { part };
            spent += cost;
            pace.spent(depth, true, cost);
            if depth == Depth::Whole {
                longest.whole = longest.whole.max(now - last_whole);
                last_whole = now;
            }
            longest.any = longest.any.max(pace.intervals().any);
            now += pace.intervals().any;
        }
        (spent.as_secs_f64() / now.as_secs_f64(), longest)
    }

    #[test]
    fn within_the_budget_every_census_is_whole() {
        let mut pace = pace();
        let (share, longest) = run(&mut pace, 1, MS(50), MS(1));
        assert_eq!(longest, Intervals { any: MS(5000), whole: MS(5000) });
        assert!(share <= 0.0101, "{share}");
        // A little over: all of them a little later.
        pace = self::pace();
        let (share, longest) = run(&mut pace, 1, MS(70), MS(1));
        assert_eq!(longest, Intervals { any: MS(7000), whole: MS(7000) });
        assert!(share <= 0.0101, "{share}");
    }

    #[test]
    fn past_it_most_censuses_count_and_the_budget_still_holds() {
        for (whole, part, any, between) in
            [(1400, 150, 30_000, 280_000), (200, 20, 5000, 40_000), (120, 10, 5000, 24_000)]
        {
            let mut pace = pace();
            let (share, longest) = run(&mut pace, 24, MS(whole), MS(part));
            assert_eq!(longest.any, MS(any), "{whole} {part}");
            assert!(longest.whole <= MS(between) + MS(any), "{longest:?}");
            assert!(share <= 0.0102, "{whole} {part}: {share}");
        }
    }

    #[test]
    fn where_counting_is_no_cheaper_all_are_whole() {
        let mut pace = pace();
        let (share, longest) = run(&mut pace, 24, MS(1400), MS(900));
        // Now and then one in part is tried again, for its price may have fallen.
        assert!(share <= 0.0106, "{share}");
        assert!(longest.any <= MS(140_000) && longest.whole <= MS(480_000), "{longest:?}");
        // Nor where it cannot be had.
        let mut pace = self::pace();
        (0..4).for_each(|_| pace.spent(Depth::Whole, false, MS(1400)));
        assert_eq!((pace.depth(), pace.intervals().any), (Depth::Whole, MS(140_000)));
    }

    #[test]
    fn the_first_census_says_nothing_of_the_next() {
        let mut pace = pace();
        pace.spent(Depth::Whole, true, MS(4000));
        assert_eq!((pace.depth(), pace.intervals().any), (Depth::Whole, MS(5000)));
        pace.spent(Depth::Whole, true, MS(40));
        assert_eq!(pace.intervals(), Intervals { any: MS(5000), whole: MS(5000) });
    }
}
