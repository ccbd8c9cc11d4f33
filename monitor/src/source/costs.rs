//! What the BPF programs cost, by the kernel's own statistics.
//!
//! The statistics take a clock reading before and after each run of every BPF
//! program of the host, so they are on for one interval between two looks in
//! [`EVERY`] only (`BPF_ENABLE_STATS`, Linux 5.8), and what they say of it stands
//! for the others. Where `kernel.bpf_stats_enabled` has them on for good, nothing
//! is estimated.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};

/// Intervals of which one is sampled. While it is, a system call that a probe
/// meets costs about twice what it costs otherwise.
const EVERY: u64 = 30;
/// Which one of them: not the first, when an agent has most to do.
const THIS: u64 = 5;

/// What the kernel says of one program: time spent in it, and runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Runs {
    /// In it.
    pub time: Duration,
    /// How often it ran.
    pub runs: u64,
}

/// Keeps the sums.
pub struct Costs {
    intervals: u64,
    /// Holds the statistics on, for this interval.
    sample: Option<OwnedFd>,
    /// Statistics cannot be had; said once.
    refused: bool,
    begun: Instant,
    sampled: Instant,
    last: HashMap<String, Runs>,
    sums: BTreeMap<String, (f64, f64)>,
}

impl Costs {
    /// Nothing spent yet.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            intervals: 0,
            sample: None,
            refused: false,
            begun: now,
            sampled: now,
            last: HashMap::new(),
            sums: BTreeMap::new(),
        }
    }

    /// Takes what the kernel says at the end of an interval, and begins another.
    pub fn interval(&mut self, said: Vec<(String, Runs)>) {
        let now = Instant::now();
        let stood_for = match self.sample.take() {
            Some(_) => {
                let length = now.duration_since(self.begun).as_secs_f64();
                let whole = now.duration_since(self.sampled).as_secs_f64();
                self.sampled = now;
                if always_on() { 1.0 } else { (whole / length.max(f64::EPSILON)).max(1.0) }
            }
            None => 1.0,
        };
        self.add(said, stood_for);
        if self.intervals % EVERY == THIS && !self.refused {
            match enable_stats(Stats::RunTime) {
                Ok(sample) => self.sample = Some(sample),
                Err(e) => {
                    self.refused = true;
                    tracing::debug!("no statistics of the BPF programs, CAP_SYS_ADMIN lacks: {e}");
                }
            }
        }
        self.intervals += 1;
        self.begun = now;
    }

    fn add(&mut self, said: Vec<(String, Runs)>, stood_for: f64) {
        for (program, now) in said {
            let before = self.last.insert(program.clone(), now).unwrap_or_default();
            // A program that was loaded anew counts from 0.
            let before = if now.runs < before.runs { Runs::default() } else { before };
            let sum = self.sums.entry(program).or_default();
            sum.0 += now.time.saturating_sub(before.time).as_secs_f64() * stood_for;
            sum.1 += (now.runs - before.runs) as f64 * stood_for;
        }
    }

    /// Seconds and runs of each program that ran, as far as they are known.
    pub fn sums(&self) -> BTreeMap<String, (f64, u64)> {
        let ran = self.sums.iter().filter(|(_, (_, runs))| *runs > 0.0);
        ran.map(|(program, (seconds, runs))| (program.clone(), (*seconds, *runs as u64))).collect()
    }
}

fn always_on() -> bool {
    let text = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").unwrap_or_default();
    text.trim() == "1"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(ns: u64, runs: u64) -> Vec<(String, Runs)> {
        vec![("p".to_owned(), Runs { time: Duration::from_nanos(ns), runs })]
    }

    #[test]
    fn a_sample_stands_for_the_intervals_without_statistics() {
        let mut costs = Costs::new();
        assert_eq!(costs.sums(), BTreeMap::new());
        costs.add(said(0, 0), 1.0);
        assert_eq!(costs.sums(), BTreeMap::new(), "it did not run: unknown is not 0");
        costs.add(said(500, 5), 12.0);
        costs.add(said(500, 5), 1.0);
        assert_eq!(costs.sums()["p"], (500e-9 * 12.0, 60));
        costs.add(said(700, 7), 1.0);
        assert_eq!(costs.sums()["p"], (500e-9 * 12.0 + 200e-9, 62));
    }

    #[test]
    fn a_program_that_is_loaded_anew_does_not_count_backwards() {
        let mut costs = Costs::new();
        costs.add(said(1000, 10), 1.0);
        costs.add(said(300, 3), 1.0);
        assert_eq!(costs.sums()["p"].1, 13);
    }
}
