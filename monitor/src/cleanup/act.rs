//! One act, and what it reports.

use std::time::Duration;

use super::notify::Notice;
use super::record::Outcome;
use super::target::{Spared, Target};
use super::{kill, signal};
use crate::source::model::ProcessId;

/// Something that a rule decided to do. Hand it to [`Act::perform`] off the
/// pipeline and the report to [`super::Engine::finished`].
#[derive(Debug)]
#[must_use = "an act that is not performed never ends"]
pub struct Act {
    pub(super) number: u64,
    pub(super) job: Job,
}

#[derive(Debug)]
pub(super) enum Job {
    Notify(Box<Notice>),
    Signal { targets: Vec<Target>, signal: i32 },
    KillOrphans { targets: Vec<Target>, grace: Duration, timeout: Duration },
}

/// What came of an act, before any census has looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Number of the act.
    pub act: u64,
    /// `Pending` where something was done that a census can check, `Verified`
    /// where nothing is left to check, else `Failed` or `Refused`.
    pub outcome: Outcome,
    /// A sentence.
    pub detail: String,
    /// Processes that it did something to.
    pub hit: Vec<ProcessId>,
}

impl Act {
    /// Counts acts since the agent started; the audit's `act`.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Does it. Blocks, at most for the rule's grace and timeout.
    pub fn perform(self) -> Report {
        let tally = match self.job {
            Job::Notify(notice) => {
                notice.say();
                return Report {
                    act: self.number,
                    outcome: Outcome::Verified,
                    detail: "written to the log; there is nothing to check".to_owned(),
                    hit: Vec::new(),
                };
            }
            Job::Signal { targets, signal } => signal::send(targets, signal),
            Job::KillOrphans { targets, grace, timeout } => kill::kill(targets, grace, timeout),
        };
        tally.report(self.number)
    }
}

/// What happened to each target.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// What was done, by target.
    pub(super) done: Vec<(ProcessId, String)>,
    /// Who was spared or survived.
    pub(super) spared: Vec<Spared>,
    /// Done to some is done, whoever else could not be reached.
    pub(super) some_is_enough: bool,
}

impl Tally {
    fn report(self, act: u64) -> Report {
        let (refused, failed): (Vec<_>, Vec<_>) =
            self.spared.into_iter().partition(Spared::is_refusal);
        let outcome = match (self.done.is_empty(), failed.is_empty()) {
            (false, true) => Outcome::Pending,
            (false, false) if self.some_is_enough => Outcome::Pending,
            (_, false) => Outcome::Failed,
            (true, true) => Outcome::Refused,
        };
        let (hit, mut parts): (Vec<_>, Vec<_>) = self.done.into_iter().unzip();
        parts.extend(failed.iter().map(|s| format!("failed: {s}")));
        parts.extend(refused.iter().map(|s| format!("left alone: {s}")));
        let detail = if parts.is_empty() { "nothing to do".to_owned() } else { parts.join("; ") };
        Report { act, outcome, detail, hit }
    }
}
