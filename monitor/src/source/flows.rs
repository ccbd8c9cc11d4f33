//! Counts and lifetimes that the probes keep per unit, and the slots they use.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use leakwatch_common::{
    BirthKey, Flow as RawFlow, KernelKind, LIFETIME_BUCKETS, ProcessEntry, SELF_TEST_SLOT,
    SLOT_OTHER, process_flags,
};

use super::bpf::Bpf;
use super::model::{Demand, FdKind, Flow, Lifetimes, Observation, ProcessId, UnitFlows};
use crate::time::Boottime;

/// Kinds of the kernel side that are descriptors, and what they are here.
const FDS: [(KernelKind, FdKind); 14] = [
    (KernelKind::File, FdKind::Regular),
    (KernelKind::Socket, FdKind::Socket),
    (KernelKind::Pipe, FdKind::Pipe),
    (KernelKind::Epoll, FdKind::Epoll),
    (KernelKind::Eventfd, FdKind::Eventfd),
    (KernelKind::Timerfd, FdKind::Timerfd),
    (KernelKind::Signalfd, FdKind::Signalfd),
    (KernelKind::Inotify, FdKind::Inotify),
    (KernelKind::Memfd, FdKind::Memfd),
    (KernelKind::Pidfd, FdKind::Pidfd),
    (KernelKind::IoUring, FdKind::IoUring),
    (KernelKind::Bpf, FdKind::Bpf),
    (KernelKind::Perf, FdKind::Perf),
    (KernelKind::Other, FdKind::Other),
];

/// The unit that has slot 0: processes not placed yet, and units past the last slot.
pub const UNPLACED: &str = "other";

/// Tells the programs whose a process is, and reads back what they counted.
pub struct Flows {
    slots: HashMap<Arc<str>, u16>,
    told: HashMap<u32, (ProcessId, ProcessEntry)>,
    /// Releases that no probe saw, by (slot, kind): close-on-exec and exit.
    swept: HashMap<(u16, u16), (u64, Lifetimes)>,
}

impl Flows {
    /// Nothing told, nothing counted.
    pub fn new() -> Self {
        let slots = HashMap::from([(Arc::from(UNPLACED), SLOT_OTHER)]);
        Self { slots, told: HashMap::new(), swept: HashMap::new() }
    }

    /// Brings the programs' process table up to date: only what changed is
    /// written. Returns how many processes found no room.
    pub fn tell(&mut self, bpf: &mut Bpf, demand: &Demand, watched: &dyn Fn(&str) -> u16) -> u64 {
        let (mut failed, mut said) = (0, false);
        let mut alive = HashSet::with_capacity(demand.units.len());
        for (id, unit) in &demand.units {
            alive.insert(id.pid);
            let mut entry = ProcessEntry { slot: self.slot(unit), flags: watched(unit), fd_end: 0 };
            if self.told.get(&id.pid) == Some(&(*id, entry)) {
                continue;
            }
            // How far its births reach is the programs' own note.
            let told = entry;
            entry.fd_end = bpf.processes.get(&id.pid, 0).map_or(0, |e| e.fd_end);
            said = true;
            if bpf.processes.insert(id.pid, entry, 0).is_ok() {
                self.told.insert(id.pid, (*id, told));
            } else {
                failed += 1;
            }
        }
        // The exit probe removes entries itself; this is for exits it missed.
        self.told.retain(|pid, _| {
            let keep = alive.contains(pid);
            if !keep {
                let _ = bpf.processes.remove(pid);
            }
            keep
        });
        if said {
            bpf.new_word();
        }
        failed
    }

    fn slot(&mut self, unit: &Arc<str>) -> u16 {
        if let Some(slot) = self.slots.get(unit) {
            return *slot;
        }
        let next = self.slots.len();
        let slot = if next < usize::from(SELF_TEST_SLOT) { next as u16 } else { SLOT_OTHER };
        if slot != SLOT_OTHER {
            self.slots.insert(unit.clone(), slot);
        }
        slot
    }

    /// Removes births whose descriptor the census did not find: released by
    /// close-on-exec or unseen, or left by a process with so many that the exit
    /// probe did not reach them. `exits` says when a process ended.
    pub fn sweep(
        &mut self,
        bpf: &mut Bpf,
        seen: &Observation,
        exits: &HashMap<u32, Boottime>,
    ) -> u64 {
        use super::model::FdTable;
        let open: HashMap<u32, &FdTable> =
            seen.processes.iter().map(|p| (p.id.pid, &p.fds)).collect();
        let stale: Vec<BirthKey> = bpf
            .births
            .keys()
            .filter_map(Result::ok)
            .filter(|k| k.fd & leakwatch_common::THREAD_KEY == 0)
            .filter(|k| match open.get(&k.tgid) {
                Some(FdTable::Full(fds)) => fds.binary_search_by_key(&k.fd, |f| f.fd).is_err(),
                Some(_) => false,
                None => true,
            })
            .collect();
        let mut removed = 0;
        for key in stale {
            let Ok(birth) = bpf.births.get(&key, 0) else { continue };
            // Opened while the census ran: it may just have missed it.
            if birth.at_ns >= seen.began.0 || bpf.births.remove(&key).is_err() {
                continue;
            }
            if birth.at_ns == 0 {
                continue;
            }
            removed += 1;
            let swept = self.swept.entry((birth.slot, birth.kind)).or_default();
            swept.0 += 1;
            if let Some(end) = exits.get(&key.tgid) {
                let lived = end.0.saturating_sub(birth.at_ns);
                let bucket =
                    (64 - (lived / 1000).leading_zeros() as usize).min(LIFETIME_BUCKETS - 1);
                swept.1.sum_ns += lived;
                swept.1.buckets[bucket] += 1;
            }
        }
        removed
    }

    /// Everything counted so far, by unit.
    pub fn read(&mut self, bpf: &Bpf, tasks: bool) -> BTreeMap<Arc<str>, UnitFlows> {
        let fds = bpf.fds_attached();
        self.slots
            .iter()
            .filter_map(|(unit, slot)| {
                let mut flows = UnitFlows::default();
                for (kind, fd_kind) in FDS.iter().filter(|_| fds) {
                    if let Some(flow) = self.one(bpf, *slot, *kind) {
                        flows.fds.insert(*fd_kind, flow);
                    }
                }
                if tasks {
                    flows.threads = self.one(bpf, *slot, KernelKind::Thread);
                    flows.processes = self.one(bpf, *slot, KernelKind::Process);
                }
                (flows != UnitFlows::default()).then(|| (unit.clone(), flows))
            })
            .collect()
    }

    /// The sum over CPUs; `None` where nothing happened.
    fn one(&self, bpf: &Bpf, slot: u16, kind: KernelKind) -> Option<Flow> {
        let index = u32::from(slot) * KernelKind::COUNT + kind as u32;
        let per_cpu = bpf.flows.get(&index, 0).ok()?;
        let mut sum = Flow { opened: 0, closed: 0, lifetimes: Lifetimes::default() };
        let add = |sum: &mut Flow, raw: &RawFlow| {
            sum.opened += raw.opened;
            sum.closed += raw.closed;
            sum.lifetimes.sum_ns += raw.lifetime_ns;
            for (total, n) in sum.lifetimes.buckets.iter_mut().zip(raw.buckets) {
                *total += n;
            }
        };
        for raw in per_cpu.iter() {
            add(&mut sum, raw);
        }
        if let Some((closed, lifetimes)) = self.swept.get(&(slot, kind as u16)) {
            sum.closed += closed;
            sum.lifetimes.sum_ns += lifetimes.sum_ns;
            for (total, n) in sum.lifetimes.buckets.iter_mut().zip(&lifetimes.buckets) {
                *total += n;
            }
        }
        (sum.opened > 0 || sum.closed > 0).then_some(sum)
    }
}

/// Flags for a unit's processes.
pub fn flags(watch: bool, stacks: bool) -> u16 {
    let mut flags = 0;
    if watch {
        flags |= process_flags::WATCH;
    }
    if stacks {
        flags |= process_flags::STACKS;
    }
    flags
}
