//! One act, and what it reports.

use std::time::Duration;

use super::notify::Notice;
use super::record::Outcome;
use super::target::Target;
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
