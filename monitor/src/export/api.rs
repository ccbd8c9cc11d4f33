//! The documents of `/api/v1`: what the agent writes and `status`, `explain`
//! and `top` read.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::rank;
use super::snapshot::Snapshot;
use crate::attribution::unit::UnitKind;
use crate::cleanup::record::ActionRecord;
use crate::detection::verdict::{Leak, State};
use crate::ledger::baseline::{Baseline, CohortKey, Era};
use crate::ledger::view::{TasksView, UnitView};
use crate::source::model::{FdKind, SourceState, TaskCount};

/// `/api/v1/units`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitsDoc {
    /// Units by name.
    pub units: Vec<UnitDoc>,
}

/// `/api/v1/units/NAME`. `null` means not seen (permission), never zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitDoc {
    /// Name, unique.
    pub name: String,
    /// Where the name comes from.
    pub unit_kind: UnitKind,
    /// Cgroup path; empty where the unit spans several.
    pub cgroup: String,
    /// Lives seen so far, counting from 1.
    pub invocation: u64,
    /// When the present invocation started.
    pub since: Timestamp,
    /// Descriptors by kind; null where no table could be read.
    pub open_fds: Option<BTreeMap<FdKind, u64>>,
    /// All descriptors, also where only the count is known.
    pub open_fds_total: Option<u64>,
    /// The process nearest to its limit.
    pub worst_process: Option<WorstProcessDoc>,
    /// Threads of all processes.
    pub threads: u64,
    /// Living processes.
    pub processes: u64,
    /// Ended and not reaped.
    pub zombies: u64,
    /// Processes that outlived their invocation.
    pub orphans: u64,
    /// Bytes that deleted files keep on disk.
    pub deleted_open_bytes: Option<u64>,
    /// `TasksMax` as systemd has it, else `pids.max` of its cgroup.
    pub tasks_max: Option<u64>,
    /// Its present life as systemd names it: 32 hexadecimal digits.
    pub invocation_id: Option<String>,
    /// `ActiveState` as systemd has it.
    pub active_state: Option<String>,
    /// Its main process as systemd has it.
    pub main_pid: Option<u32>,
    /// How often systemd has restarted it by itself.
    pub restarts: Option<u32>,
    /// `LimitNOFILE` as systemd has it, the hard limit.
    pub limit_nofile: Option<u64>,
    /// `LimitNOFILESoft` as systemd has it.
    pub limit_nofile_soft: Option<u64>,
    /// Processes whose descriptors were denied.
    pub denied_processes: u64,
    /// Open verdicts, without warnings about limits.
    pub leaks: u64,
    /// Where its cohorts came to rest in this life and earlier ones, as far as learned.
    #[serde(default)]
    pub baselines: Vec<BaselineDoc>,
    /// Recent totals of open descriptors, oldest first.
    pub history: Vec<u64>,
    /// Async tasks, where the config asks for them.
    #[serde(default)]
    pub async_tasks: Option<AsyncTasksDoc>,
}

/// Async tasks of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsyncTasksDoc {
    /// Begun and not ended; null where they cannot be counted.
    pub alive: Option<u64>,
    /// Begun while they were counted.
    pub spawned: u64,
    /// Of those, ended.
    pub ended: u64,
    /// The functions that most of them run, at most 50.
    pub functions: Vec<AsyncFunctionDoc>,
    /// Why those of some process are not counted, and what would help.
    pub note: Option<String>,
}

/// Async tasks that run one function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsyncFunctionDoc {
    /// The function whose future they are.
    pub function: String,
    /// Begun and not ended.
    pub alive: u64,
    /// Begun, in the present processes.
    pub spawned: u64,
    /// Of those, ended.
    pub ended: u64,
    /// Ended without having been seen to begin.
    pub unseen: u64,
}

/// What was learned of a cohort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineDoc {
    /// Kind of descriptor, or `thread`.
    pub kind: String,
    /// What the members share.
    pub cohort: String,
    /// By version of the service, the present one last, and the one before it.
    pub versions: Vec<VersionDoc>,
}

/// What was learned under one version of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionDoc {
    /// Its main executable; null where it could not be seen.
    pub exe: Option<String>,
    /// Bytes of that file.
    pub size: Option<u64>,
    /// When that file was last written to.
    pub modified: Option<Timestamp>,
    /// When a cohort first came to rest under it.
    pub since: Timestamp,
    /// When one was last seen at rest.
    pub until: Timestamp,
    /// At how many its newest lives came to rest, newest last; at most eight.
    pub rested_at: Vec<u32>,
}

/// The process of a unit that is nearest to its descriptor limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstProcessDoc {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Its open descriptors.
    pub open_fds: u64,
    /// Its soft `RLIMIT_NOFILE`; null where unlimited or unreadable.
    pub max_fds: Option<u64>,
}

/// `/api/v1/leaks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeaksDoc {
    /// Verdicts, worst first.
    pub leaks: Vec<Leak>,
}

/// `/api/v1/actions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActionsDoc {
    /// Acts, newest first.
    pub actions: Vec<ActionRecord>,
}

/// What works and what is blind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourcesDoc {
    /// Sources of data.
    pub sources: Vec<SourceState>,
}

/// All units.
pub fn units(snapshot: &Snapshot) -> UnitsDoc {
    UnitsDoc { units: snapshot.units.iter().map(|view| unit_doc(view, &snapshot.leaks)).collect() }
}

/// The unit of that name.
pub fn unit(snapshot: &Snapshot, name: &str) -> Option<UnitDoc> {
    let view = snapshot.units.iter().find(|view| &*view.unit.name == name)?;
    Some(unit_doc(view, &snapshot.leaks))
}

/// All verdicts, worst first; of one state where `state` is given.
pub fn leaks(snapshot: &Snapshot, state: Option<State>) -> LeaksDoc {
    let wanted = |leak: &&Leak| state.is_none_or(|state| leak.state == state);
    let mut leaks: Vec<Leak> = snapshot.leaks.iter().filter(wanted).cloned().collect();
    leaks.sort_by(rank::worst_first);
    LeaksDoc { leaks }
}

/// The verdict of that id.
pub fn leak<'a>(snapshot: &'a Snapshot, id: &str) -> Option<&'a Leak> {
    snapshot.leaks.iter().find(|leak| leak.id == id)
}

/// The newest acts.
pub fn actions(snapshot: &Snapshot) -> ActionsDoc {
    ActionsDoc { actions: snapshot.actions.clone() }
}

/// The sources.
pub fn sources(snapshot: &Snapshot) -> SourcesDoc {
    SourcesDoc { sources: snapshot.sources.clone() }
}

fn unit_doc(view: &UnitView, leaks: &[Leak]) -> UnitDoc {
    let systemd = view.systemd.as_deref();
    UnitDoc {
        name: view.unit.name.to_string(),
        unit_kind: view.unit.kind,
        cgroup: view.unit.cgroup.to_string(),
        invocation: view.invocation,
        since: view.since,
        open_fds: view.open_fds.clone(),
        open_fds_total: view.open_fds_total,
        worst_process: view.worst.as_ref().map(|worst| WorstProcessDoc {
            pid: worst.pid,
            comm: worst.comm.clone(),
            open_fds: worst.open_fds,
            max_fds: worst.max_fds,
        }),
        threads: view.threads,
        processes: view.processes,
        zombies: view.zombies,
        orphans: view.orphans,
        deleted_open_bytes: view.deleted_open_bytes,
        tasks_max: systemd.and_then(|s| s.tasks_max).or(view.tasks_max),
        invocation_id: systemd.and_then(|s| s.invocation_id).map(|id| id.to_string()),
        active_state: systemd.and_then(|s| s.active_state.as_deref()).map(ToOwned::to_owned),
        // 0 is systemd's word for none.
        main_pid: systemd.and_then(|s| s.main_pid).filter(|pid| *pid != 0),
        restarts: systemd.and_then(|s| s.restarts),
        limit_nofile: systemd.and_then(|s| s.limit_nofile),
        limit_nofile_soft: systemd.and_then(|s| s.limit_nofile_soft),
        denied_processes: view.denied_processes,
        leaks: rank::open_leaks(leaks, &view.unit.name),
        baselines: view.baselines.iter().map(|(key, b)| baseline_doc(key, b)).collect(),
        history: view.history.clone(),
        async_tasks: view.tasks.as_ref().map(tasks_doc),
    }
}

/// Functions of one unit that are told.
const MAX_FUNCTIONS: usize = 50;

fn tasks_doc(tasks: &TasksView) -> AsyncTasksDoc {
    let mut kinds: Vec<_> = tasks.kinds.iter().collect();
    kinds.sort_by_key(|(function, count)| (Reverse(count.alive), *function));
    let function = |(function, count): (&Arc<str>, &TaskCount)| AsyncFunctionDoc {
        function: function.to_string(),
        alive: count.alive,
        spawned: count.spawned,
        ended: count.ended,
        unseen: count.unseen,
    };
    AsyncTasksDoc {
        alive: tasks.alive,
        spawned: tasks.spawned,
        ended: tasks.ended,
        functions: kinds.into_iter().take(MAX_FUNCTIONS).map(function).collect(),
        note: tasks.blind.clone(),
    }
}

fn baseline_doc(key: &CohortKey, baseline: &Baseline) -> BaselineDoc {
    let version = |era: &Era| VersionDoc {
        exe: era.version.as_ref().map(|v| v.exe.clone()),
        size: era.version.as_ref().map(|v| v.size),
        modified: era.version.as_ref().map(|v| v.modified),
        since: era.since,
        until: era.until,
        rested_at: era.rests.iter().map(|rest| rest.at).collect(),
    };
    BaselineDoc {
        kind: key.kind.to_string(),
        cohort: key.cohort.to_string(),
        versions: baseline.eras.iter().map(version).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::export::testing::{HOSTILE, hostile, night};

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_fields_of_a_unit_are_as_promised() {
        let doc = serde_json::to_value(units(&night())).unwrap();
        let deployer = &doc["units"][0];
        let mut want = vec![
            "name",
            "unit_kind",
            "cgroup",
            "invocation",
            "since",
            "open_fds",
            "open_fds_total",
            "worst_process",
            "threads",
            "processes",
            "zombies",
            "orphans",
            "deleted_open_bytes",
            "tasks_max",
            "invocation_id",
            "active_state",
            "main_pid",
            "restarts",
            "limit_nofile",
            "limit_nofile_soft",
            "denied_processes",
            "leaks",
            "baselines",
            "history",
            "async_tasks",
        ];
        want.sort_unstable();
        assert_eq!(keys(deployer), want);
        assert_eq!(
            deployer["open_fds"],
            json!({"log": 812, "regular": 9, "socket": 14, "pipe": 6})
        );
        assert_eq!(
            deployer["worst_process"],
            json!({"pid": 4211, "comm": "python3", "open_fds": 833, "max_fds": 1024})
        );
        // The warning about the limit is not a leak.
        assert_eq!(deployer["leaks"], 1);
        let denied = &doc["units"][2];
        assert_eq!(denied["open_fds"], Value::Null);
        assert_eq!(denied["open_fds_total"], Value::Null);
        assert_eq!(denied["denied_processes"], 2);
    }

    #[test]
    fn the_fields_of_a_leak_are_as_promised() {
        let doc = serde_json::to_value(leaks(&night(), Some(State::Confirmed))).unwrap();
        assert_eq!(doc["leaks"].as_array().unwrap().len(), 2);
        let leak = serde_json::to_value(leak(&night(), "3f9a01c2d4e5").unwrap()).unwrap();
        let mut want = vec![
            "id",
            "unit",
            "unit_kind",
            "resource",
            "kind",
            "cohort",
            "rules",
            "state",
            "held",
            "growth_per_hour",
            "first_seen",
            "confirmed_at",
            "oldest_age_seconds",
            "limit",
            "exhausts_at",
            "pinned_bytes",
            "confidence",
            "evidence",
            "opener",
            "opener_note",
            "examples",
        ];
        want.sort_unstable();
        assert_eq!(keys(&leak), want);
        assert_eq!(leak["rules"], json!(["unclosed-log-handle", "rising-floor"]));
        assert_eq!(leak["exhausts_at"], "2026-11-22T04:30:22.5Z");
        assert_eq!(keys(&leak["opener"][0]), ["file", "function", "line", "module", "role"]);
    }

    #[test]
    fn the_worst_comes_first_and_what_is_over_last() {
        let ids: Vec<String> = leaks(&night(), None).leaks.into_iter().map(|l| l.id).collect();
        assert_eq!(ids, ["0b0001c2d4e7", "3f9a01c2d4e5", "77aa01c2d4e6", "c0ffee000001"]);
    }

    #[test]
    fn every_document_reads_back_whatever_the_names() {
        for name in HOSTILE {
            let snapshot = hostile(name);
            let doc = units(&snapshot);
            let text = serde_json::to_string(&doc).unwrap();
            assert_eq!(serde_json::from_str::<UnitsDoc>(&text).unwrap(), doc);
            assert!(!text.contains('\n') && !text.contains('\u{1b}'));
            let doc = leaks(&snapshot, None);
            let text = serde_json::to_string(&doc).unwrap();
            assert_eq!(serde_json::from_str::<LeaksDoc>(&text).unwrap(), doc);
            let doc = actions(&snapshot);
            let text = serde_json::to_string(&doc).unwrap();
            assert_eq!(serde_json::from_str::<ActionsDoc>(&text).unwrap(), doc);
            assert_eq!(unit(&snapshot, name).unwrap().name, name);
            assert_eq!(sources(&snapshot).sources.len(), 3);
        }
        assert_eq!(unit(&night(), "no such unit"), None);
    }
}
