//! What an act did to each of its targets, and what that amounts to.

use super::act::Report;
use super::record::Outcome;
use super::target::Spared;
use crate::source::model::ProcessId;

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
    pub(super) fn report(self, act: u64) -> Report {
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
