//! Measures modes in rounds, each right after a bare run.

use std::time::Duration;

use anyhow::Result;

use super::mode::{Beside, Mode};
use super::report::Table;
use super::stats::Sample;
use crate::shell::say;

/// Something to be done while something else runs beside it.
pub trait Work {
    /// The name on the page.
    fn title(&self) -> &'static str;
    /// Does it once: what a turn costs, in any unit; less is better.
    ///
    /// # Errors
    /// When it cannot be done.
    fn cost(&mut self, beside: Mode) -> Result<f64>;
    /// What bare runs cost, for people.
    fn bare(&self, costs: Vec<f64>) -> String;
    /// The most that a mode should cost, as a ratio.
    fn aim(&self, mode: Mode) -> Option<f64>;
}

/// Costs and ratios; works are told apart by their place.
#[derive(Default)]
pub struct Results {
    bare: Vec<(usize, f64)>,
    ratios: Vec<(Mode, usize, f64)>,
    working: Vec<(Mode, Vec<String>)>,
    failures: Vec<(Mode, String)>,
}

impl Results {
    /// Measures all modes in each round, every one right after a bare run of all works.
    /// What has just been started is given `settle` to come to rest.
    ///
    /// # Errors
    /// When a work fails. A mode that cannot be started is left out, and said.
    pub fn measure(
        works: &mut [Box<dyn Work>],
        modes: &[Mode],
        rounds: u32,
        settle: Duration,
    ) -> Result<Self> {
        let mut results = Self::default();
        for round in 1..=rounds {
            say(&format!("  round {round} of {rounds}"));
            for &mode in modes {
                if results.failures.iter().any(|(failed, _)| *failed == mode) {
                    continue;
                }
                let mut bare = Vec::new();
                for work in works.iter_mut() {
                    bare.push(work.cost(Mode::Nothing)?);
                }
                results.bare.extend(bare.iter().copied().enumerate());
                let beside = match mode.start() {
                    Ok(beside) => beside,
                    Err(error) => {
                        say(&format!("  {} left out: {error:#}", mode.title()));
                        let first = error.to_string().lines().next().unwrap_or("").to_owned();
                        results.failures.push((mode, first));
                        continue;
                    }
                };
                std::thread::sleep(settle);
                for (place, (work, bare)) in works.iter_mut().zip(bare).enumerate() {
                    results.ratios.push((mode, place, work.cost(mode)? / bare));
                }
                if let Beside::Agent(agent) = &beside
                    && round == 1
                {
                    results.working.push((mode, agent.metrics()?.working()));
                }
            }
        }
        Ok(results)
    }

    /// What the bare runs cost.
    pub fn bare(&self, works: &[Box<dyn Work>]) -> String {
        let mut table = Table::new(&["workload", "bare"]);
        for (place, work) in works.iter().enumerate() {
            let costs = self.bare.iter().filter(|(p, _)| *p == place);
            table.row(&[work.title(), &work.bare(costs.map(|(_, cost)| *cost).collect())]);
        }
        table.text().to_owned()
    }

    /// What the modes cost, times the bare run, with the aims.
    pub fn ratios(&self, works: &[Box<dyn Work>], modes: &[Mode], decimals: usize) -> String {
        let mut columns = vec!["beside it"];
        columns.extend(works.iter().map(|work| work.title()));
        let mut table = Table::new(&columns);
        for &mode in modes {
            let mut row = vec![mode.title().to_owned()];
            for (place, work) in works.iter().enumerate() {
                let values = self.ratios.iter().filter(|(m, p, _)| *m == mode && *p == place);
                let sample = Sample::new(values.map(|(_, _, ratio)| *ratio).collect());
                let mut cell = sample.spread("", decimals);
                if let (Some(aim), false) = (work.aim(mode), sample.is_empty()) {
                    cell.push_str(&format!(" · aim {aim}: {}", sample.told(aim)));
                }
                row.push(cell);
            }
            table.row(&row);
        }
        table.text().to_owned()
    }

    /// What of the agent worked in each mode.
    pub fn working(&self) -> String {
        let line = |(mode, working): &(Mode, Vec<String>)| {
            format!("\n{}: {}.\n", mode.title(), working.join(", "))
        };
        self.working.iter().map(line).collect()
    }

    /// The modes that could not be measured, and why.
    pub fn failures(&self) -> String {
        let line = |(mode, why): &(Mode, String)| {
            format!("\n{} could not be measured: {why}.\n", mode.title())
        };
        self.failures.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Work for Fake {
        fn title(&self) -> &'static str {
            "fake"
        }
        fn cost(&mut self, _: Mode) -> Result<f64> {
            Ok(2.0)
        }
        fn bare(&self, costs: Vec<f64>) -> String {
            Sample::new(costs).spread(" s", 1)
        }
        fn aim(&self, mode: Mode) -> Option<f64> {
            (mode == Mode::Nothing).then_some(1.02)
        }
    }

    #[test]
    fn a_mode_has_a_row_whether_it_was_measured_or_not() {
        let mut works: Vec<Box<dyn Work>> = vec![Box::new(Fake)];
        let mut results =
            Results::measure(&mut works, &[Mode::Nothing], 2, Duration::ZERO).unwrap();
        results.failures.push((Mode::Opensnoop, "it is missing".to_owned()));
        assert!(results.bare(&works).ends_with("| fake | 2.0 s (2.0 to 2.0) |\n"));
        let table = results.ratios(&works, &[Mode::Nothing, Mode::Opensnoop], 2);
        assert!(table.contains("| 1.00 (1.00 to 1.00) · aim 1.02: PASS |"), "{table}");
        assert!(table.ends_with("| opensnoop | not measured |\n"), "{table}");
        assert_eq!(results.failures(), "\nopensnoop could not be measured: it is missing.\n");
    }
}
