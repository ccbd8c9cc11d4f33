//! Lives as systemd counts them, where it says so: one invocation id, one life;
//! and the main process is the one systemd watches. Elsewhere `lives` infers both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::attribution::managed::Managed;
use crate::ledger::Ledger;
use crate::ledger::invocation::UnitState;
use crate::source::model::ProcessId;
use crate::time::Boottime;

/// Start times of processes are rounded down to it.
const TICK: Duration = Duration::from_millis(10);

impl UnitState {
    /// systemd says which life this is.
    pub(super) fn has_invocation_id(&self) -> bool {
        self.systemd.as_ref().is_some_and(|s| s.invocation_id.is_some())
    }

    /// systemd says which process is the main one, or that there is none.
    pub(super) fn has_main_pid(&self) -> bool {
        self.systemd.as_ref().is_some_and(|s| s.main_pid.is_some())
    }
}

impl Ledger {
    /// Begins the lives that systemd has begun.
    pub(super) fn renew(&mut self, managed: &Managed, ids: &[ProcessId], now: Boottime) {
        let mut renewed: HashMap<Arc<str>, (u64, Boottime)> = HashMap::new();
        let by_pid: HashMap<u32, ProcessId> = ids.iter().map(|id| (id.pid, *id)).collect();
        for (name, u) in &mut self.units {
            u.systemd = managed.unit(&u.unit).cloned();
            let Some(s) = &u.systemd else { continue };
            let Some(id) = s.invocation_id else { continue };
            if u.invocation_id.is_some_and(|before| before != id) {
                let main = s.main_pid.and_then(|pid| by_pid.get(&pid)).map(ProcessId::started);
                let began = main.into_iter().chain(s.entered).min().unwrap_or(now);
                renewed.insert(Arc::clone(name), (u.invocation, began));
                u.begin(began);
            }
            u.invocation_id = Some(id);
        }
        if renewed.is_empty() {
            return;
        }
        // What came with the new life was taken for the old one's until now.
        for p in self.processes.values_mut().filter(|p| p.alive() && p.invocation != 0) {
            if let Some((before, began)) = renewed.get(&p.unit.name)
                && p.invocation == *before
                && p.id.started() + TICK >= *began
            {
                p.invocation += 1;
            }
        }
    }

    /// Makes main processes of those that systemd names.
    pub(super) fn appoint(&mut self, managed: &Managed, ids: &[ProcessId]) {
        let by_pid: HashMap<u32, ProcessId> = ids.iter().map(|id| (id.pid, *id)).collect();
        for (name, u) in &mut self.units {
            // Also of units that are new with this census.
            u.systemd = managed.unit(&u.unit).cloned();
            u.unsettled = false;
            let Some(s) = &u.systemd else { continue };
            u.invocation_id = u.invocation_id.or(s.invocation_id);
            match s.main_pid {
                // It runs on without one, and systemd finds nothing wrong with that:
                // `RemainAfterExit=`, `ExitType=cgroup`.
                Some(0) if s.active_state.as_deref() == Some("active") => {
                    (u.main, u.main_gone) = (None, None);
                }
                None | Some(0) => {}
                Some(pid) => {
                    let main = by_pid.get(&pid).and_then(|id| self.processes.get_mut(id));
                    match main.filter(|p| p.alive() && p.unit.name == *name) {
                        Some(p) => {
                            p.invocation = u.invocation;
                            (u.main, u.main_gone) = (Some(p.id), None);
                        }
                        // It has ended or just begun, and the word is yet to come.
                        None => u.unsettled = true,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "managed_tests.rs"]
mod tests;
