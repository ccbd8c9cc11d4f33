//! What a rule found at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::attribution::unit::Unit;
use crate::detection::opened::{self, Opened};
use crate::detection::verdict::{Example, Resource, Rule};
use crate::ledger::Ledger;
use crate::ledger::process::{Held, Process, Sight, held_flags};
use crate::source::model::{KernelStr, ProcessId};
use crate::text;
use crate::time::Boottime;

/// Most examples of a verdict.
const EXAMPLES: usize = 10;

/// A process that a verdict speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Identity.
    pub id: ProcessId,
    /// Its cgroup.
    pub cgroup: KernelStr,
    /// Its name.
    pub comm: KernelStr,
}

impl Member {
    /// From the ledger.
    pub(crate) fn of(p: &Process) -> Self {
        Self { id: p.id, cgroup: p.cgroup.clone(), comm: p.comm.clone() }
    }
}

/// What a finding does to a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// Keeps an open one open; opens none.
    Sustains,
    /// Opens one as suspected.
    Suspects,
    /// Confirms it.
    Confirms,
}

/// How near the worst holder is to its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    /// The limit.
    pub limit: u64,
    /// Used of it now.
    pub used: u64,
    /// Share of the cohort's growth that lands there, 0 to 1.
    pub share: f64,
}

impl Room {
    /// Of the tasks of a unit, where they have a limit.
    pub(crate) fn of_tasks(ledger: &Ledger, unit: &str) -> Option<Self> {
        let limit = ledger.unit(unit)?.tasks_max?;
        let members = ledger.processes().filter(|p| p.alive() && *p.unit.name == *unit);
        Some(Self { limit, used: members.map(|p| u64::from(p.threads.count)).sum(), share: 1.0 })
    }
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// By which rule.
    pub rule: Rule,
    /// Whose.
    pub unit: Arc<Unit>,
    /// In which of its lives.
    pub invocation: u64,
    /// What.
    pub resource: Resource,
    /// Kind of descriptor, else the resource, or `limit`.
    pub kind: String,
    /// What the members share, printable.
    pub cohort: String,
    /// How sure.
    pub strength: Strength,
    /// It has seen what speaks against a leak: if it has confirmed the verdict before, it
    /// takes that back.
    pub withdraws: bool,
    /// Leaked now.
    pub held: u64,
    /// Members per hour, where the rule measures it.
    pub growth_per_hour: Option<f64>,
    /// When the oldest member was opened, at the latest.
    pub oldest: Option<Boottime>,
    /// Disk space kept by deleted files, bytes.
    pub pinned_bytes: u64,
    /// The limit ahead.
    pub room: Option<Room>,
    /// Some holder was seen by its count alone.
    pub blind: bool,
    /// The probes missed the opening of most members that came while they were attached.
    pub unborn: bool,
    /// Sentences.
    pub evidence: Vec<String>,
    /// Stack of the most frequent opener.
    pub opener: Opened,
    /// A sentence on the others, where there are any.
    pub openers: Option<String>,
    /// Oldest members.
    pub examples: Vec<Example>,
    /// Every process concerned, each once, by identity.
    pub members: Vec<Member>,
}

impl Finding {
    /// Of what says as much of the same, the first.
    pub(crate) fn stronger(best: Option<Self>, other: Self) -> Option<Self> {
        match best {
            Some(best) if best.strength >= other.strength => Some(best),
            _ => Some(other),
        }
    }

    /// A finding about descriptors; the caller adds evidence.
    pub(crate) fn of_descriptors(
        ledger: &Ledger,
        rule: Rule,
        strength: Strength,
        cohort: String,
        members: &[(&Process, &Held)],
    ) -> Option<Self> {
        let (first, held) = members.first()?;
        let mut oldest: Vec<_> = members.to_vec();
        oldest.sort_by_key(|(p, h)| (h.opened, p.id, h.fd));
        let due = |h: &Held| ledger.fd_probes().is_some_and(|attached| h.since > attached);
        let came: Vec<_> = members.iter().filter(|(_, h)| due(h)).collect();
        let missed = came.iter().filter(|(_, h)| h.birth.is_none()).count();
        let mut by_process: BTreeMap<ProcessId, (&Process, usize)> = BTreeMap::new();
        for (p, _) in members {
            by_process.entry(p.id).or_insert((p, 0)).1 += 1;
        }
        let room = by_process
            .values()
            .filter_map(|(p, n)| {
                let share = *n as f64 / members.len() as f64;
                Some(Room { limit: p.max_fds?, used: p.open_fds()?, share })
            })
            .max_by(|a, b| {
                let near = |r: &Room| r.used as f64 / r.limit.max(1) as f64;
                near(a).total_cmp(&near(b))
            });
        Some(Self {
            rule,
            unit: Arc::clone(&first.unit),
            invocation: first.invocation,
            resource: Resource::Fd,
            kind: held.kind.as_str().to_owned(),
            cohort,
            strength,
            withdraws: false,
            held: members.len() as u64,
            growth_per_hour: None,
            oldest: oldest.first().map(|(_, h)| h.opened),
            pinned_bytes: 0,
            room,
            blind: by_process.values().any(|(p, _)| p.sight != Sight::Full),
            unborn: missed * 2 > came.len(),
            evidence: Vec::new(),
            opener: Opened::most_frequent(ledger, members),
            openers: opened::shares(ledger, members),
            examples: oldest.iter().take(EXAMPLES).map(|(p, h)| descriptor(ledger, p, h)).collect(),
            members: by_process.values().map(|(p, _)| Member::of(p)).collect(),
        })
    }

    /// A finding about processes or threads; `owner` says whose.
    pub(crate) fn of_processes(
        ledger: &Ledger,
        rule: Rule,
        strength: Strength,
        resource: Resource,
        cohort: String,
        owner: &Process,
        examples: &[&Process],
    ) -> Self {
        let mut oldest = examples.to_vec();
        oldest.sort_by_key(|p| p.id.start_ticks);
        let members: BTreeSet<Member> = examples.iter().map(|p| Member::of(p)).collect();
        Self {
            rule,
            unit: Arc::clone(&owner.unit),
            invocation: owner.invocation,
            resource,
            kind: resource.as_str().to_owned(),
            cohort,
            strength,
            withdraws: false,
            held: examples.len() as u64,
            growth_per_hour: None,
            oldest: oldest.first().map(|p| p.id.started()),
            pinned_bytes: 0,
            room: None,
            blind: false,
            unborn: false,
            evidence: Vec::new(),
            opener: Opened::default(),
            openers: None,
            examples: oldest.iter().take(EXAMPLES).map(|p| process(ledger, p)).collect(),
            members: members.into_iter().collect(),
        }
    }
}

fn descriptor(ledger: &Ledger, p: &Process, h: &Held) -> Example {
    let known = h.is(held_flags::OPENED_KNOWN);
    Example {
        pid: p.id.pid,
        start_ticks: p.id.start_ticks,
        comm: text::printable(p.comm.as_bytes()),
        fd: Some(h.fd),
        path: text::printable(h.path.as_bytes()),
        opened_at: known.then(|| h.opened.to_wall(ledger.clock())),
    }
}

fn process(ledger: &Ledger, p: &Process) -> Example {
    Example {
        pid: p.id.pid,
        start_ticks: p.id.start_ticks,
        comm: text::printable(p.comm.as_bytes()),
        fd: None,
        path: text::printable(p.cmdline.as_bytes()),
        opened_at: Some(p.id.started().to_wall(ledger.clock())),
    }
}

/// `name[pid]`, safe to show.
pub(crate) fn named(p: &Process) -> String {
    format!("{}[{}]", text::printable(p.comm.as_bytes()), p.id.pid)
}
