//! Counts and lifetimes that the probes keep per unit, and the slots they use.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use leakwatch_common::{
    BirthKey, Flow as RawFlow, KernelKind, LIFETIME_BUCKETS, ProcessEntry, SLOT_OTHER,
    process_flags,
};

use super::bpf::Bpf;
use super::model::{Demand, FdKind, Flow, Lifetimes, Observation, ProcessId, UNPLACED, UnitFlows};
use super::slots::{Slot, Slots};
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

/// Whose a process is, and how it is watched.
type Place = (u16, u16);

/// Tells the programs whose a process is, and reads back what they counted.
pub struct Flows {
    slots: Slots,
    told: HashMap<u32, (ProcessId, ProcessEntry)>,
    /// Releases that no probe saw, by (slot, kind): close-on-exec and exit.
    swept: HashMap<(u16, u16), (u64, Lifetimes)>,
    /// Processes that have births and were not in the census of the last sweep.
    missed: HashSet<u32>,
    /// What a slot's earlier unit left in the counters, by (slot, kind).
    left: HashMap<(u16, u16), Flow>,
}

impl Flows {
    /// Nothing told, nothing counted.
    pub fn new() -> Self {
        Self {
            slots: Slots::new(),
            told: HashMap::new(),
            swept: HashMap::new(),
            missed: HashSet::new(),
            left: HashMap::new(),
        }
    }

    /// Brings the programs' process table up to date with all that live: only what
    /// changed is written. Returns how many processes found no room.
    pub fn tell(&mut self, bpf: &mut Bpf, demand: &Demand, watched: &dyn Fn(&str) -> u16) -> u64 {
        let failed = self.place(bpf, &demand.units, watched);
        let alive: HashSet<u32> = demand.units.iter().map(|(id, _)| id.pid).collect();
        // The exit probe removes entries itself; this is for exits it missed.
        self.told.retain(|pid, _| {
            let keep = alive.contains(pid);
            if !keep {
                let _ = bpf.processes.remove(pid);
            }
            keep
        });
        failed
    }

    /// Says of some processes whose they are. Returns how many found no room.
    pub fn place(
        &mut self,
        bpf: &mut Bpf,
        units: &[(ProcessId, Arc<str>)],
        watched: &dyn Fn(&str) -> u16,
    ) -> u64 {
        let now = Boottime::now();
        let mut places: HashMap<&Arc<str>, Place> = HashMap::new();
        let (mut failed, mut said) = (0, false);
        for (id, unit) in units {
            let (slot, flags) =
                *places.entry(unit).or_insert_with(|| (self.slot(bpf, unit, now), watched(unit)));
            let mut entry = ProcessEntry { slot, flags, fd_end: 0 };
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
        if said {
            bpf.new_word();
        }
        failed
    }

    fn slot(&mut self, bpf: &Bpf, unit: &Arc<str>, now: Boottime) -> u16 {
        if **unit == *UNPLACED {
            return SLOT_OTHER;
        }
        match self.slots.of(unit, now) {
            Slot::Own(slot) => slot,
            Slot::Inherited(slot) => {
                for kind in 0..KernelKind::COUNT as u16 {
                    if let Some(sum) = self.sum(bpf, slot, kind) {
                        self.left.insert((slot, kind), sum);
                    }
                }
                slot
            }
            Slot::Shared => SLOT_OTHER,
        }
    }

    /// Removes births whose descriptor the census did not find: released by
    /// close-on-exec or unseen, or left by a process with so many that the exit
    /// probe did not reach them. `exits` says when a process ended. One that is not in the
    /// census may be younger than it: only who was not in the last one either is gone.
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
            .into_iter()
            .filter(|k| k.fd & leakwatch_common::THREAD_KEY == 0)
            .filter(|k| match open.get(&k.tgid) {
                Some(FdTable::Full(fds)) => fds.binary_search_by_key(&k.fd, |f| f.fd).is_err(),
                Some(_) => false,
                None => true,
            })
            .collect();
        let missed = stale.iter().map(|key| key.tgid).filter(|tgid| !open.contains_key(tgid));
        let missed_before = std::mem::replace(&mut self.missed, missed.collect());
        let mut removed = 0;
        for key in stale {
            let Some(birth) = bpf.births.get(&key) else { continue };
            // Opened while the census ran: it may just have missed it.
            if birth.at_ns >= seen.began.0 {
                continue;
            }
            let ended = self.missed.contains(&key.tgid) && missed_before.contains(&key.tgid);
            let done = if ended {
                bpf.births.forget(&key, &birth)
            } else {
                bpf.births.release(&key, &birth)
            };
            if !done || birth.at_ns == 0 {
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

    /// Everything counted so far, by unit; for no unit as [`UNPLACED`].
    pub fn read(&self, bpf: &Bpf, tasks: bool) -> BTreeMap<Arc<str>, UnitFlows> {
        let fds = bpf.fds_attached();
        let unplaced = Arc::from(UNPLACED);
        self.slots
            .units()
            .chain([(&unplaced, SLOT_OTHER)])
            .filter_map(|(unit, slot)| {
                let mut flows = UnitFlows::default();
                for (kind, fd_kind) in FDS.iter().filter(|_| fds) {
                    if let Some(flow) = self.own(bpf, slot, *kind) {
                        flows.fds.insert(*fd_kind, flow);
                    }
                }
                if tasks {
                    flows.threads = self.own(bpf, slot, KernelKind::Thread);
                    flows.processes = self.own(bpf, slot, KernelKind::Process);
                }
                (flows != UnitFlows::default()).then(|| (unit.clone(), flows))
            })
            .collect()
    }

    /// What was counted for the slot's present unit; `None` where nothing was.
    fn own(&self, bpf: &Bpf, slot: u16, kind: KernelKind) -> Option<Flow> {
        let kind = kind as u16;
        let mut flow = self.sum(bpf, slot, kind)?;
        if let Some(left) = self.left.get(&(slot, kind)) {
            flow.subtract(left);
        }
        (flow.opened > 0 || flow.closed > 0).then_some(flow)
    }

    /// The sum over CPUs of all that was ever counted in the slot.
    fn sum(&self, bpf: &Bpf, slot: u16, kind: u16) -> Option<Flow> {
        let index = u32::from(slot) * KernelKind::COUNT + u32::from(kind);
        let mut sum = Flow::default();
        for raw in bpf.flows.get(&index, 0).ok()?.iter() {
            sum.add(&Flow::from(raw));
        }
        if let Some((closed, lifetimes)) = self.swept.get(&(slot, kind)) {
            sum.closed += closed;
            sum.lifetimes.add(lifetimes);
        }
        Some(sum)
    }
}

impl From<&RawFlow> for Flow {
    fn from(raw: &RawFlow) -> Self {
        let lifetimes = Lifetimes { sum_ns: raw.lifetime_ns, buckets: raw.buckets.to_vec() };
        Self { opened: raw.opened, closed: raw.closed, lifetimes }
    }
}

/// Flags for a unit's processes.
pub fn flags(watch: bool, stacks: bool, copies: bool) -> u16 {
    let mut flags = 0;
    if watch {
        flags |= process_flags::WATCH;
    }
    if stacks {
        flags |= process_flags::STACKS;
    }
    if copies {
        flags |= process_flags::COPIES;
    }
    flags
}
