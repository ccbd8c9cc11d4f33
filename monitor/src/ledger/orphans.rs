//! Processes that outlived the main process of the life they belong to.

use crate::ledger::Ledger;
use crate::ledger::process::Process;
use crate::time::Boottime;

/// One of them.
pub(crate) struct Outlived<'a> {
    /// Which.
    pub process: &'a Process,
    /// The end of the main process; `None` where nobody saw one.
    pub main: Option<&'a crate::ledger::invocation::MainGone>,
    /// Since when it has been without.
    pub since: Boottime,
}

impl Ledger {
    /// All of them. Only what was seen to belong to the unit counts.
    pub(crate) fn orphans(&self) -> impl Iterator<Item = Outlived<'_>> {
        self.processes.values().filter(|p| p.alive()).filter_map(|p| {
            let unit = self.units.get(&p.unit.name)?;
            let spared = unit.unsettled || unit.main == Some(p.id);
            if spared || !Self::may_leave_orphans(unit.unit.kind) {
                return None;
            }
            // With `orphans` patterns the user has said which ones count.
            if self.patterns.has_orphans(&p.unit.name) && (!p.must_not_outlive || self.kept(p)) {
                return None;
            }
            if let Some(main) = unit.main_gone(p.invocation) {
                let since = main.at.max(p.id.started());
                return Some(Outlived { process: p, main: Some(main), since });
            }
            // The manager may have gone before the agent came: pid 1 has it.
            let lost = p.must_not_outlive && p.ppid == 1 && unit.main.is_none();
            lost.then_some(Outlived { process: p, main: None, since: p.first_seen })
        })
    }

    /// Somebody of the unit still keeps it: a living ancestor that may itself
    /// outlive the main process. What ended was then a launcher, or a manager
    /// that handed over to the next; its workers are nobody's orphans.
    fn kept(&self, p: &Process) -> bool {
        let mut next = p.parent;
        // The depth is bounded, for the parents may be of different censuses.
        for _ in 0..64 {
            let parent = next.and_then(|id| self.processes.get(&id));
            let Some(parent) = parent.filter(|q| q.alive() && q.unit.name == p.unit.name) else {
                return false;
            };
            if !parent.must_not_outlive {
                return true;
            }
            next = parent.parent;
        }
        false
    }
}
