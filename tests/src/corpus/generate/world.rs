//! One service on an otherwise idle machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leakwatch::config::model::Detection;
use leakwatch::source::model::{
    BootId, Depth, FdBirth, FdSample, FdTable, Frame, Observation, Opener, ProcessId,
    ProcessSample, Role, SourceFigures, TaskEvent, UnitFlows,
};
use leakwatch::time::{Boottime, ClockPair};

use super::actor::What;
use super::plan::Life;
use super::things;

/// The life of that machine.
pub const BOOT: BootId = BootId(1);

/// After so many minutes a file that is to be deleted is.
const NAMED_FOR: f64 = 2.0;

/// Between two requests over a connection, minutes.
const USED_EVERY: u64 = 7;

/// An open thing: until when, and where it is.
struct Open {
    life: Life,
    opened: Boottime,
    place: Place,
}

enum Place {
    Fd(u32),
    Thread,
    Zombie(Box<ProcessSample>),
}

/// The service and what it has.
pub struct World {
    unit: Arc<str>,
    name: String,
    probes: bool,
    limit: u64,
    main: ProcessSample,
    table: Vec<Option<FdSample>>,
    free: BTreeSet<u32>,
    open: Vec<Open>,
    flows: UnitFlows,
    events: Vec<TaskEvent>,
    things: u64,
    pids: u32,
    /// Functions that open something, by the number of their stack.
    functions: Vec<String>,
    /// Stacks that have been looked up since the last census.
    openers: Vec<Arc<Opener>>,
}

impl World {
    /// Nothing runs yet.
    pub fn new(unit: &str, limit: u64, probes: bool, functions: Vec<String>) -> Self {
        let name = unit.trim_end_matches(".service").to_owned();
        Self {
            unit: unit.into(),
            probes,
            limit,
            main: process(0, 0, &name, limit),
            name,
            table: Vec::new(),
            free: BTreeSet::new(),
            open: Vec::new(),
            flows: UnitFlows::default(),
            events: Vec::new(),
            things: 100,
            pids: 1000,
            functions,
            openers: Vec::new(),
        }
    }

    /// The service is started, with what every service has.
    pub fn start(&mut self, at: Boottime) {
        self.pids += 1;
        self.main = process(self.pids, at.0 / 10_000_000, &self.name, self.limit);
        let (parent, id) = (init().id, self.main.id);
        let comm = self.main.comm.clone();
        self.events.push(TaskEvent::Fork { at, parent, child: id, comm: "systemd".into() });
        self.events.push(TaskEvent::Exec { at, id, comm });
        (self.table, self.free) = (Vec::new(), BTreeSet::new());
        for what in [What::Pipe, What::Pipe, What::Pipe, What::Epoll, What::Socket] {
            self.descriptor(what, at, None);
        }
        self.openers.extend(self.functions.iter().zip(0..).map(|(function, stack)| {
            let role = Role::Opener;
            let frames = vec![Frame { function: function.clone(), role, ..Frame::default() }];
            Arc::new(Opener { process: id, stack, frames, note: None })
        }));
    }

    /// It ends, and takes all it has with it.
    pub fn stop(&mut self, at: Boottime) {
        for open in std::mem::take(&mut self.open) {
            self.count(&open.life, open.opened, Some(at));
        }
        self.events.push(TaskEvent::Exit { at, id: self.main.id, status: 0 });
    }

    /// What happens until `now` (minutes since it was started).
    pub fn step(&mut self, births: &[Life], now: f64, when: &dyn Fn(f64) -> Boottime) {
        let (gone, left): (Vec<Open>, Vec<Open>) =
            std::mem::take(&mut self.open).into_iter().partition(|o| o.life.to <= now);
        self.open = left;
        for open in gone {
            self.count(&open.life, open.opened, Some(when(open.life.to)));
            if let Place::Fd(fd) = open.place {
                self.table[fd as usize] = None;
                self.free.insert(fd);
            }
        }
        for life in births {
            let opened = when(life.from);
            if life.to <= now {
                // Between two censuses: only the probes know.
                self.count(life, opened, None);
                self.count(life, opened, Some(when(life.to)));
                continue;
            }
            self.count(life, opened, None);
            let place = match life.what {
                What::Thread => Place::Thread,
                What::Zombie => Place::Zombie(Box::new(self.zombie(opened))),
                what => Place::Fd(self.descriptor(what, opened, life.stack)),
            };
            self.open.push(Open { life: *life, opened, place });
        }
        self.age(now);
    }

    /// Files are deleted, connections and logs are used, and so is the newest handle on the
    /// same log.
    fn age(&mut self, now: f64) {
        let mut newest = None;
        for open in &self.open {
            let Place::Fd(fd) = open.place else { continue };
            let Some(sample) = &mut self.table[fd as usize] else { continue };
            if open.life.what == What::Deleted && now - open.life.from >= NAMED_FOR {
                sample.nlink = 0;
            }
            if matches!(open.life.what, What::Socket | What::Logs) && open.life.moves {
                sample.position +=
                    if (now as u64 + sample.file).is_multiple_of(USED_EVERY) { 300 } else { 0 };
            }
            if open.life.what == What::Log {
                newest = Some(fd);
            }
        }
        if let Some(Some(log)) = newest.map(|fd| &mut self.table[fd as usize]) {
            log.position += 100;
        }
    }

    fn descriptor(&mut self, what: What, at: Boottime, stack: Option<u32>) -> u32 {
        self.things += 1;
        let fd = self.free.pop_first().unwrap_or(self.table.len() as u32);
        if self.table.len() <= fd as usize {
            self.table.push(None);
        }
        let birth = self.probes.then_some(FdBirth { at, tid: self.main.id.pid, stack });
        self.table[fd as usize] =
            Some(things::descriptor(what, &self.name, fd, self.things, birth));
        fd
    }

    fn zombie(&mut self, at: Boottime) -> ProcessSample {
        self.pids += 1;
        let mut child = process(self.pids, at.0 / 10_000_000, &self.name, self.limit);
        child.ppid = self.main.id.pid;
        (child.zombie, child.threads, child.cmdline) = (true, 0, "".into());
        (child.exe, child.fds) = (None, FdTable::Full(Vec::new()));
        let (parent, comm) = (self.main.id, child.comm.clone());
        self.events.push(TaskEvent::Fork { at, parent, child: child.id, comm });
        self.events.push(TaskEvent::Exit { at, id: child.id, status: 0 });
        child
    }

    /// What the probes count of an opening, or of a closing.
    fn count(&mut self, life: &Life, opened: Boottime, closed: Option<Boottime>) {
        let flow = match life.what {
            What::Zombie => return,
            What::Thread => self.flows.threads.get_or_insert_default(),
            other => self.flows.fds.entry(things::kind(other)).or_default(),
        };
        let Some(closed) = closed else {
            flow.opened += 1;
            return;
        };
        flow.closed += 1;
        let lived = closed.since(opened);
        flow.lifetimes.sum_ns += lived.as_nanos() as u64;
        // Bucket `i` is below `2^i` microseconds.
        let bucket = (u128::BITS - lived.as_micros().leading_zeros()) as usize;
        let last = flow.lifetimes.buckets.len() - 1;
        flow.lifetimes.buckets[bucket.min(last)] += 1;
    }

    /// What the probes that are attached have counted: of threads those of tasks tell.
    fn counted(&self) -> UnitFlows {
        let mut flows = self.flows.clone();
        if !self.probes {
            flows.fds.clear();
        }
        flows
    }

    /// Events since they were last asked for.
    pub fn events(&mut self) -> Vec<TaskEvent> {
        std::mem::take(&mut self.events)
    }

    /// A census.
    pub fn look(&mut self, at: ClockPair) -> Observation {
        let openers = std::mem::take(&mut self.openers);
        let threads = || self.open.iter().filter(|o| matches!(o.place, Place::Thread));
        let mut main = self.main.clone();
        let own = (main.id.started(), main.threads);
        main.threads += threads().count() as u32;
        main.old_threads = Some(Detection::default().lengths().map(|length| {
            let old = threads().filter(|t| at.boot.since(t.opened) >= length).count() as u32;
            old + if at.boot.since(own.0) >= length { own.1 } else { 0 }
        }));
        main.fds = FdTable::Full(self.table.iter().flatten().cloned().collect());
        let zombies = self.open.iter().filter_map(|o| match &o.place {
            Place::Zombie(z) => Some((**z).clone()),
            _ => None,
        });
        let mut processes: Vec<_> = [init(), main].into_iter().chain(zombies).collect();
        processes.sort_by_key(|p| p.id.pid);
        Observation {
            began: at.boot - Duration::from_millis(20),
            at,
            depth: Depth::Whole,
            countable: true,
            processes,
            fd_probes: self.probes,
            task_probes: true,
            flows: Some(BTreeMap::from([(self.unit.clone(), self.counted())])),
            openers,
            stacks: (0..self.functions.len() as u32).map(|n| (n, vec![u64::from(n)])).collect(),
            pids_max: BTreeMap::new(),
            systemd: BTreeMap::new(),
            async_tasks: BTreeMap::new(),
            sources: Vec::new(),
            figures: SourceFigures::default(),
        }
    }
}

fn process(pid: u32, start_ticks: u64, name: &str, limit: u64) -> ProcessSample {
    ProcessSample {
        id: ProcessId { boot: BOOT, pid, start_ticks },
        ppid: 1,
        comm: name.get(..name.len().min(15)).unwrap_or(name).into(),
        exe: Some(format!("/usr/bin/{name}").as_str().into()),
        exe_file: None,
        cmdline: format!("/usr/bin/{name} --serve").as_str().into(),
        uid: Some(1000),
        cgroup: format!("/system.slice/{name}.service").as_str().into(),
        zombie: false,
        threads: 4,
        old_threads: None,
        max_fds: Some(limit),
        fds: FdTable::Full(Vec::new()),
    }
}

/// Pid 1.
fn init() -> ProcessSample {
    ProcessSample {
        ppid: 0,
        uid: Some(0),
        cgroup: "/init.scope".into(),
        threads: 1,
        ..process(1, 1, "systemd", 1024)
    }
}
