//! A made-up machine that feeds a ledger, for the tables beside the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::attribution::unit::{Unit, UnitKind};
use crate::config::model::{Config, Detection};
use crate::detection::finding::{Finding, Strength};
use crate::detection::verdict::{Leak, State};
use crate::detection::{Change, Docket};
use crate::ledger::Ledger;
use crate::ledger::baseline::CohortKey;
use crate::source::model::{
    BootId, Depth, FdBirth, FdKind, FdSample, FdTable, KernelStr, Observation, ProcessId,
    ProcessSample, ProcessTasks, SocketState, SourceFigures, SourceState, SystemdUnit, TaskEvent,
    UnitFlows,
};
use crate::time::{Boottime, ClockPair};

/// Between two censuses.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// Windows of 30 s, four of them; warm and stale after 60 s and 30 s.
pub(crate) fn config() -> Config {
    Config {
        detection: Detection {
            window: Duration::from_secs(30),
            windows: 4,
            warmup: Duration::from_secs(60),
            stale_after: Duration::from_secs(30),
            min_held: 5,
            min_share: 0.0,
        },
        ..Config::default()
    }
}

/// The machine.
pub(crate) struct World {
    pub config: Config,
    pub ledger: Ledger,
    pub docket: Docket,
    pub now: Boottime,
    pub changes: Vec<Change>,
    pub flows: bool,
    counted: BTreeMap<Arc<str>, UnitFlows>,
    /// What the probes told of openers, by number.
    pub stacks: BTreeMap<u32, Vec<u64>>,
    /// What has been looked up since the last look.
    pub openers: Vec<Arc<crate::source::model::Opener>>,
    pub task_probes: bool,
    pub exact: bool,
    /// Processes whose tables the next looks do not read, for they are the same.
    pub same: BTreeSet<u32>,
    pub lost: BTreeMap<String, u64>,
    processes: BTreeMap<u32, (ProcessSample, Arc<Unit>)>,
    next_file: u64,
    next_pid: u32,
    inodes: BTreeMap<String, u64>,
    /// What systemd says, by cgroup.
    pub systemd: BTreeMap<KernelStr, Arc<SystemdUnit>>,
    /// Async tasks, by pid.
    pub async_tasks: BTreeMap<u32, ProcessTasks>,
}

impl World {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: Config) -> Self {
        Self {
            ledger: Ledger::new(&config).unwrap(),
            docket: Docket::new(),
            now: Boottime(1_000_000_000_000),
            changes: Vec::new(),
            flows: false,
            counted: BTreeMap::new(),
            stacks: BTreeMap::new(),
            openers: Vec::new(),
            task_probes: false,
            exact: true,
            same: BTreeSet::new(),
            lost: BTreeMap::new(),
            processes: BTreeMap::new(),
            next_file: 0xffff_8880_0000_0000,
            next_pid: 100,
            inodes: BTreeMap::new(),
            systemd: BTreeMap::new(),
            async_tasks: BTreeMap::new(),
            config,
        }
    }

    /// A new process, child of `parent` (1 for init).
    pub fn spawn(&mut self, unit: (&str, UnitKind), parent: u32, cmdline: &str) -> u32 {
        let pid = self.next_pid;
        self.next_pid += 1;
        let program = cmdline.split(' ').next().unwrap();
        let (name, kind) = unit;
        let sample = ProcessSample {
            id: ProcessId { boot: BootId(1), pid, start_ticks: self.now.0 / 10_000_000 },
            ppid: parent,
            comm: program.rsplit('/').next().unwrap().into(),
            exe: Some(program.into()),
            exe_file: None,
            cmdline: cmdline.into(),
            uid: Some(0),
            cgroup: KernelStr::from(format!("/system.slice/{name}").as_str()),
            zombie: false,
            threads: 1,
            old_threads: None,
            max_fds: Some(1024),
            fds: FdTable::Full(Vec::new()),
        };
        let cgroup = format!("/system.slice/{name}");
        let unit = Unit { name: name.into(), kind, cgroup: cgroup.as_str().into() };
        self.processes.insert(pid, (sample, Arc::new(unit)));
        pid
    }

    pub fn process(&mut self, pid: u32) -> &mut ProcessSample {
        &mut self.processes.get_mut(&pid).unwrap().0
    }

    pub fn fds(&mut self, pid: u32) -> &mut Vec<FdSample> {
        match &mut self.process(pid).fds {
            FdTable::Full(fds) => fds,
            _ => panic!("not seen in full"),
        }
    }

    pub fn fd(&mut self, pid: u32, fd: u32) -> &mut FdSample {
        self.fds(pid).iter_mut().find(|f| f.fd == fd).unwrap()
    }

    /// Opens a file for appending; gives the lowest free number from 3.
    pub fn open(&mut self, pid: u32, path: &str) -> u32 {
        let fresh = self.inodes.len() as u64 + 100;
        let inode = *self.inodes.entry(path.to_owned()).or_insert(fresh);
        self.next_file += 256;
        let sample = FdSample {
            fd: self.free(pid),
            file: self.next_file,
            kind: FdKind::Regular,
            device: 8 << 20,
            inode,
            flags: 0o2001,
            nlink: 1,
            position: 0,
            size: 4096,
            disk_bytes: 4096,
            path: path.into(),
            socket: None,
            birth: None,
        };
        let fd = sample.fd;
        self.fds(pid).push(sample);
        self.fds(pid).sort_by_key(|f| f.fd);
        fd
    }

    /// Opens a connected socket.
    pub fn connect(&mut self, pid: u32) -> u32 {
        let name = format!("socket:[{}]", self.next_file);
        let fd = self.open(pid, &name);
        let f = self.fd(pid, fd);
        f.kind = FdKind::Socket;
        f.socket = Some(SocketState::new(2, 1, 1));
        fd
    }

    /// The probes saw the opening.
    pub fn born(&mut self, pid: u32, fd: u32) {
        let at = self.now;
        self.fd(pid, fd).birth = Some(FdBirth { at, tid: pid, stack: None });
    }

    /// The probes saw one of a unit end whose life falls into a bucket.
    pub fn ended(&mut self, unit: &str, kind: FdKind, bucket: usize) {
        self.ended_often(unit, kind, bucket, 1);
    }

    /// They saw so many.
    pub fn ended_often(&mut self, unit: &str, kind: FdKind, bucket: usize, times: u64) {
        let flow = self.counted.entry(unit.into()).or_default().fds.entry(kind).or_default();
        flow.opened += times;
        flow.closed += times;
        flow.lifetimes.buckets[bucket] += times;
    }

    /// All that ended of a kind lived so long together, beside what was said before.
    pub fn fds_lived(&mut self, unit: &str, kind: FdKind, together: Duration) {
        let flow = self.counted.entry(unit.into()).or_default().fds.entry(kind).or_default();
        flow.lifetimes.sum_ns += together.as_nanos() as u64;
    }

    /// They saw so many threads of a unit end, each after so long.
    pub fn threads_ended(&mut self, unit: &str, times: u64, after: Duration) {
        let unit = self.counted.entry(unit.into()).or_default();
        let flow = unit.threads.get_or_insert_default();
        flow.opened += times;
        flow.closed += times;
        flow.lifetimes.sum_ns += times * after.as_nanos() as u64;
        let bucket = u64::BITS - (after.as_micros() as u64).leading_zeros();
        flow.lifetimes.buckets[bucket as usize] += times;
    }

    fn free(&mut self, pid: u32) -> u32 {
        let fds = self.fds(pid);
        (3..).find(|n| fds.iter().all(|f| f.fd != *n)).unwrap()
    }

    pub fn close(&mut self, pid: u32, fd: u32) {
        self.fds(pid).retain(|f| f.fd != fd);
    }

    /// Gives a copy of a descriptor to another process, as fork does.
    pub fn share(&mut self, from: u32, fd: u32, to: u32) {
        let mut copy = self.fd(from, fd).clone();
        copy.fd = self.free(to);
        self.fds(to).push(copy);
    }

    /// Writes through a descriptor: every holder of the description moves.
    pub fn write(&mut self, pid: u32, fd: u32) {
        let (file, inode) = (self.fd(pid, fd).file, self.fd(pid, fd).inode);
        for (p, _) in self.processes.values_mut() {
            let FdTable::Full(fds) = &mut p.fds else { continue };
            for f in fds {
                if f.file == file {
                    f.position += 100;
                }
                if f.inode == inode {
                    f.size += 100;
                }
            }
        }
    }

    /// Deletes a file that may be open.
    pub fn unlink(&mut self, path: &str) {
        self.inodes.remove(path);
        self.each_at(path, |f| f.nlink = 0);
    }

    /// Renames a file that may be open.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(inode) = self.inodes.remove(from) {
            self.inodes.insert(to.to_owned(), inode);
        }
        self.each_at(from, |f| f.path = to.into());
    }

    fn each_at(&mut self, path: &str, change: impl Fn(&mut FdSample)) {
        for (p, _) in self.processes.values_mut() {
            let FdTable::Full(fds) = &mut p.fds else { continue };
            fds.iter_mut().filter(|f| f.path == path.into()).for_each(&change);
        }
    }

    /// A process is put into the cgroup of another unit.
    pub fn moves(&mut self, pid: u32, unit: (&str, UnitKind)) {
        let (name, kind) = unit;
        let cgroup = format!("/system.slice/{name}");
        let unit = Unit { name: name.into(), kind, cgroup: cgroup.as_str().into() };
        let (sample, of) = self.processes.get_mut(&pid).unwrap();
        sample.cgroup = cgroup.as_str().into();
        *of = Arc::new(unit);
    }

    /// A process ends and is reaped; its children go to init.
    pub fn exit(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.processes.values_mut().filter(|(p, _)| p.ppid == pid).for_each(|(p, _)| p.ppid = 1);
    }

    /// The same, with the event of the task probe; judges at once.
    pub fn exit_seen(&mut self, pid: u32) {
        let id = self.process(pid).id;
        self.exit(pid);
        self.now = self.now + Duration::from_millis(10);
        self.ledger.task(&TaskEvent::Exit { at: self.now, id, status: 9 }, None);
        self.judge();
    }

    pub fn clock(&self) -> ClockPair {
        let wall =
            jiff::Timestamp::from_nanosecond(i128::from(self.now.0) + 1_700_000_000_000_000_000);
        ClockPair { boot: self.now, wall: wall.unwrap() }
    }

    /// An interval passes, then a census and a judgement.
    pub fn look(&mut self) {
        let (obs, units) = self.observe();
        self.ledger.census(obs, &units);
        self.judge();
    }

    /// An interval passes; what a census then sees.
    pub fn observe(&mut self) -> (Observation, Vec<Arc<Unit>>) {
        self.now = self.now + INTERVAL;
        let at = self.clock();
        let source = |source: &str, mechanism: &str, active| SourceState {
            source: source.into(),
            mechanism: mechanism.into(),
            active,
            standby: false,
            reason: String::new(),
        };
        let obs = Observation {
            began: self.now - Duration::from_millis(20),
            at,
            depth: if self.same.is_empty() { Depth::Whole } else { Depth::Part },
            countable: true,
            processes: self.processes.values().map(|(p, _)| self.as_seen(p)).collect(),
            fd_probes: self.flows,
            task_probes: self.task_probes,
            flows: self.flows.then(|| self.counted.clone()),
            stacks: self.stacks.clone(),
            openers: std::mem::take(&mut self.openers),
            pids_max: BTreeMap::new(),
            systemd: self.systemd.clone(),
            async_tasks: self.async_tasks.clone(),
            sources: vec![source(
                "census",
                if self.exact { "iter/task_file" } else { "proc" },
                true,
            )],
            figures: SourceFigures { lost: self.lost.clone(), ..SourceFigures::default() },
        };
        let units = self.processes.values().map(|(_, u)| Arc::clone(u)).collect();
        (obs, units)
    }

    fn as_seen(&self, p: &ProcessSample) -> ProcessSample {
        let mut p = p.clone();
        if self.same.contains(&p.id.pid) {
            p.fds = FdTable::Same(p.fds.len().unwrap());
        }
        p
    }

    fn judge(&mut self) {
        let at = self.clock();
        let changes = self.docket.judge(&self.ledger, &self.config, at);
        for change in changes.iter().filter(|change| change.to == State::Confirmed) {
            self.ledger.distrust(&CohortKey {
                unit: change.leak.unit.clone(),
                kind: change.leak.kind.as_str().into(),
                cohort: change.leak.cohort.as_str().into(),
            });
        }
        self.changes.extend(changes);
    }

    /// Several of them.
    pub fn looks(&mut self, n: usize) {
        (0..n).for_each(|_| self.look());
    }

    /// Verdicts that are open.
    pub fn open_leaks(&self) -> Vec<Leak> {
        self.docket.leaks().into_iter().filter(|l| l.state != State::Resolved).collect()
    }

    /// The one verdict that is open.
    pub fn only(&self) -> Leak {
        let mut leaks = self.open_leaks();
        assert_eq!(leaks.len(), 1, "{leaks:#?}");
        leaks.remove(0)
    }

    /// Whether anything was ever confirmed.
    pub fn ever_confirmed(&self) -> bool {
        self.changes.iter().any(|c| c.to == State::Confirmed)
    }

    /// What one rule says now.
    pub fn ask(
        &self,
        rule: fn(&Ledger, &Detection, Boottime) -> Vec<Finding>,
    ) -> Vec<(Strength, u64)> {
        let found = rule(&self.ledger, &self.config.detection, self.now);
        found.into_iter().map(|f| (f.strength, f.held)).collect()
    }
}
