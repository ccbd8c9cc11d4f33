//! `/health`: a small answer for programs that watch programs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rank;
use super::snapshot::Snapshot;
use crate::detection::verdict::State;

/// `/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthDoc {
    /// The agent looks at the host, lately too, and every unit is healthy.
    pub is_healthy: bool,
    /// The agent's own.
    pub resource_usage: OwnUsage,
    /// Units by name.
    pub units: BTreeMap<String, UnitHealth>,
}

/// Descriptors of the agent itself; null where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnUsage {
    /// Open now.
    pub open_files: Option<u64>,
    /// Soft `RLIMIT_NOFILE`; null where unlimited.
    pub max_files: Option<u64>,
}

/// One unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitHealth {
    /// No confirmed verdict, also none about a limit.
    pub is_healthy: bool,
    /// What it uses.
    pub resource_usage: UnitUsage,
    /// Open verdicts, without warnings about limits.
    pub leaks: u64,
}

/// What a unit uses; null where unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitUsage {
    /// Of its process nearest to its limit.
    pub open_files: Option<u64>,
    /// Limit of that process.
    pub max_files: Option<u64>,
    /// Of all processes.
    pub threads: u64,
    /// Living ones.
    pub processes: u64,
}

/// The document. Before the first snapshot, or while it is not `fresh`, nobody
/// can say that all is well.
pub fn document(snapshot: Option<&Snapshot>, fresh: bool, own: OwnUsage) -> HealthDoc {
    let Some(snapshot) = snapshot else {
        return HealthDoc { is_healthy: false, resource_usage: own, units: BTreeMap::new() };
    };
    let units: BTreeMap<_, _> = snapshot.units.iter().map(|view| unit(snapshot, view)).collect();
    let is_healthy = fresh && units.values().all(|unit| unit.is_healthy);
    HealthDoc { is_healthy, resource_usage: own, units }
}

fn unit(snapshot: &Snapshot, view: &crate::ledger::view::UnitView) -> (String, UnitHealth) {
    let name = &view.unit.name;
    let confirmed =
        |l: &crate::detection::verdict::Leak| l.unit == *name && l.state == State::Confirmed;
    let worst = view.worst.as_ref();
    let health = UnitHealth {
        is_healthy: !snapshot.leaks.iter().any(confirmed),
        resource_usage: UnitUsage {
            open_files: worst.map(|w| w.open_fds),
            max_files: worst.and_then(|w| w.max_fds),
            threads: view.threads,
            processes: view.processes,
        },
        leaks: rank::open_leaks(&snapshot.leaks, name),
    };
    (name.to_string(), health)
}

/// Reads the agent's own descriptors and their limit.
pub fn own_usage() -> OwnUsage {
    // The directory that is read is open itself while it is counted.
    let open = std::fs::read_dir("/proc/self/fd").map(|entries| entries.count() as u64);
    OwnUsage {
        open_files: open.ok().map(|n| n.saturating_sub(1)),
        max_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::detection::verdict::Rule;
    use crate::export::testing::night;

    const OWN: OwnUsage = OwnUsage { open_files: Some(31), max_files: Some(1024) };

    #[test]
    fn the_document_is_as_promised() {
        let got = serde_json::to_value(document(Some(&night()), true, OWN)).unwrap();
        let want = json!({
            "is_healthy": false,
            "resource_usage": {"open_files": 31, "max_files": 1024},
            "units": {
                "deployer": {
                    "is_healthy": false,
                    "resource_usage":
                        {"open_files": 833, "max_files": 1024, "threads": 11, "processes": 5},
                    "leaks": 1
                },
                "nginx.service": {
                    "is_healthy": true,
                    "resource_usage":
                        {"open_files": 14, "max_files": 1024, "threads": 4, "processes": 2},
                    "leaks": 1
                },
                "vault.service": {
                    "is_healthy": true,
                    "resource_usage":
                        {"open_files": null, "max_files": null, "threads": 4, "processes": 2},
                    "leaks": 0
                }
            }
        });
        assert_eq!(got, want);
    }

    #[test]
    fn a_confirmed_warning_about_a_limit_is_unhealthy_and_a_suspicion_is_not() {
        let mut snapshot = night();
        snapshot.leaks.retain(|l| l.rules == [Rule::Headroom]);
        assert!(!document(Some(&snapshot), true, OWN).is_healthy);
        snapshot.leaks[0].state = State::Suspected;
        assert!(document(Some(&snapshot), true, OWN).is_healthy);
    }

    #[test]
    fn nobody_is_healthy_before_the_first_look_or_long_after_the_last() {
        assert!(!document(None, true, OWN).is_healthy);
        let mut snapshot = night();
        snapshot.leaks.clear();
        assert!(document(Some(&snapshot), true, OWN).is_healthy);
        assert!(!document(Some(&snapshot), false, OWN).is_healthy);
    }

    #[test]
    fn the_agent_counts_its_own_descriptors() {
        let before = own_usage().open_files.unwrap();
        assert!(before >= 3);
        assert!(own_usage().max_files.is_none_or(|max| max >= before));
    }
}
