//! Counts the async tasks of Rust programs that use tokio, from outside.
//!
//! A task has a `Header`, whose address names it, and in there the address of a table of
//! functions that each type of future has of its own. Two functions of tokio are probed:
//! the one that puts a new task into its runtime's list, and the one by which a task ends,
//! be it complete, aborted or in panic. The kernel counts both by process and table; which
//! future a table is of, is told by the symbols of the program, that a confined process reads
//! ([`program`]). What has completed is no task any more, although its memory stays while
//! somebody keeps its `JoinHandle`.

mod calls;
pub(crate) mod names;
mod naming;
mod probes;
pub mod program;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use aya::programs::uprobe::UProbeLink;
use leakwatch_common::{AsyncCounts, AsyncTypeKey};

use self::naming::Process;
use self::probes::{Births, Probes};
use self::program::TaskProgram;
use super::bpf::WANTED;
use super::costs::Runs;
use super::model::{ProcessId, ProcessTasks, SourceState, TaskEvent};
use super::privilege::Privileges;
use super::sizes::Sizes;
use super::symbols::pin::{FileKey, key, regular};
use super::symbols::reader;
use crate::config::model::{Config, TaskRuntime};
use crate::text;
use crate::time::Boottime;

/// Programs at most.
const MAX_PROGRAMS: usize = 64;
/// So long the probes stay in a program that nobody runs: it may be restarting.
const IDLE: Duration = Duration::from_secs(60);
/// Between two looks for tasks of processes that have ended.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Behind the agent: the census is not to wait for it.
const NICER: i32 = 10;

/// What is known of a program.
enum State {
    /// Its symbols are to be read.
    Waiting(File),
    /// They are being read.
    Reading,
    /// Its tasks are counted.
    Probed {
        tasks: TaskProgram,
        /// Held for their drop, which detaches.
        links: Vec<UProbeLink>,
    },
    /// They cannot be; why.
    Blind(String),
}

/// A program that some process runs.
struct Program {
    path: String,
    state: State,
    used: Instant,
}

type Read = (FileKey, File, Result<TaskProgram, String>);

/// The counting.
pub struct AsyncTasks {
    units: BTreeSet<String>,
    sizes: Sizes,
    probes: Option<Probes>,
    refused: Option<String>,
    /// Why no programs can be loaded at all.
    without: Option<String>,
    programs: HashMap<FileKey, Program>,
    processes: HashMap<ProcessId, Process>,
    reading: Option<Receiver<Read>>,
    gone: HashSet<u32>,
    execs: HashMap<u32, Boottime>,
    /// Tasks that went with the program that their process ran before.
    void: HashMap<AsyncTypeKey, u64>,
    swept: Instant,
    lost_before: u64,
}

impl AsyncTasks {
    /// Nothing probed yet; nor ever, if BPF cannot be had at all (`without` says why).
    pub fn new(config: &Config, sizes: &Sizes, without: Option<String>) -> Self {
        let mut new = Self {
            units: BTreeSet::new(),
            sizes: sizes.clone(),
            probes: None,
            refused: None,
            without,
            programs: HashMap::new(),
            processes: HashMap::new(),
            reading: None,
            gone: HashSet::new(),
            execs: HashMap::new(),
            void: HashMap::new(),
            swept: Instant::now(),
            lost_before: 0,
        };
        new.reconfigure(config);
        new
    }

    /// Takes another config.
    pub fn reconfigure(&mut self, config: &Config) {
        let asking = config.units.iter().filter(|u| u.tasks == Some(TaskRuntime::Tokio));
        self.units = asking.map(|u| u.name.clone()).collect();
        self.refused = None;
        if self.units.is_empty() {
            self.processes.clear();
            self.programs.clear();
            self.unload();
        } else {
            // At once, so that a refusal is known.
            self.load();
        }
    }

    fn load(&mut self) {
        if self.probes.is_some() || self.refused.is_some() {
            return;
        }
        if let Some(why) = &self.without {
            self.refused = Some(why.clone());
            return;
        }
        match Probes::load(&self.sizes) {
            Ok(probes) => self.probes = Some(probes),
            Err(e) => {
                let why = Privileges::of_self().refusal("the probes of async tasks", &*e, &WANTED);
                tracing::warn!(reason = %why, "async tasks cannot be counted");
                self.refused = Some(why);
            }
        }
    }

    fn unload(&mut self) {
        if let Some(probes) = self.probes.take() {
            self.lost_before += probes.lost();
        }
        self.gone.clear();
        self.execs.clear();
        self.void.clear();
    }

    /// Takes note of events: the tasks of a program end with it.
    pub fn note(&mut self, events: &[TaskEvent]) {
        for event in events {
            match event {
                TaskEvent::Exec { at, id, .. } => {
                    if let Some(process) = self.processes.get_mut(id) {
                        *process = Process::default();
                        self.execs.insert(id.pid, *at);
                    }
                }
                TaskEvent::Exit { id, .. } => {
                    if self.processes.remove(id).is_some() {
                        self.gone.insert(id.pid);
                    }
                }
                TaskEvent::Fork { .. } => {}
            }
        }
    }

    /// Whose processes are; with `all`, there are no others.
    pub fn want(&mut self, units: &[(ProcessId, Arc<str>)], all: bool) {
        if self.units.is_empty() {
            return;
        }
        let mut wanted: HashSet<ProcessId> = HashSet::new();
        for (id, _) in units.iter().filter(|(_, unit)| self.units.contains(&**unit)) {
            wanted.insert(*id);
            self.processes.entry(*id).or_default();
        }
        if all {
            self.processes.retain(|id, _| wanted.contains(id));
        }
        self.advance();
    }

    /// Does what is to be done next for each program.
    fn advance(&mut self) {
        if self.units.is_empty() || self.probes.is_none() {
            return;
        }
        for (id, process) in &mut self.processes {
            if process.program.is_none() && process.blind.is_none() {
                find(*id, process, &mut self.programs);
            }
            if let Some(program) = process.program.and_then(|key| self.programs.get_mut(&key)) {
                program.used = Instant::now();
            }
        }
        self.take_read();
        self.programs.retain(|_, p| p.used.elapsed() < IDLE || matches!(p.state, State::Reading));
        if self.reading.is_none() {
            self.read_next();
        }
    }

    fn read_next(&mut self) {
        let waits = |p: &Program| matches!(p.state, State::Waiting(_));
        let next = self.programs.iter_mut().find(|(_, p)| waits(p));
        let Some((key, program)) = next else { return };
        let State::Waiting(file) = std::mem::replace(&mut program.state, State::Reading) else {
            return;
        };
        let (key, (outbox, inbox)) = (*key, channel());
        let started = std::thread::Builder::new().name("task-symbols".into()).spawn(move || {
            let agent = rustix::process::getpriority_process(Some(rustix::process::getpid()));
            let nice = (agent.unwrap_or(0) + NICER).min(19);
            let _ = rustix::process::setpriority_process(None, nice);
            let read = reader::read_tasks(&file).map_err(|e| match e {
                reader::ReadError::Bad(why) => why,
                other => other.to_string(),
            });
            let _ = outbox.send((key, file, read));
        });
        match started {
            Ok(_) => self.reading = Some(inbox),
            Err(e) => program.state = State::Blind(format!("no thread to read it: {e}")),
        }
    }

    /// Puts probes into the program that was read.
    fn take_read(&mut self) {
        let Some(inbox) = &self.reading else { return };
        let read = match inbox.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(read) => Some(read),
            Err(TryRecvError::Disconnected) => None,
        };
        self.reading = None;
        let Some((key, file, read)) = read else {
            let reading = self.programs.values_mut().filter(|p| matches!(p.state, State::Reading));
            reading.for_each(|p| p.state = State::Blind("reading it failed".to_owned()));
            return;
        };
        let Some(program) = self.programs.get_mut(&key) else { return };
        let begun = Instant::now();
        let probed = read.and_then(|tasks| {
            let probes = self.probes.as_mut().ok_or_else(|| "the probes are gone".to_owned())?;
            let attached = probes.attach(&file, &tasks);
            let refused = |e: Box<dyn std::error::Error>| {
                Privileges::of_self().refusal("attaching uprobes", &*e, &WANTED)
            };
            Ok(State::Probed { links: attached.map_err(refused)?, tasks })
        });
        program.state = match probed {
            Ok(State::Probed { tasks, links }) => {
                tracing::info!(
                    program = %program.path,
                    probes = links.len(),
                    types = tasks.poll.len(),
                    begins_with = Births::of(&tasks).as_str(),
                    took_ms = begun.elapsed().as_millis() as u64,
                    "async tasks are counted"
                );
                State::Probed { tasks, links }
            }
            Ok(other) => other,
            Err(why) => {
                tracing::warn!(program = %program.path, "async tasks are not counted: {why}");
                State::Blind(why)
            }
        };
    }

    /// What is known of the tasks of each process that lives, by pid.
    pub fn read(&mut self, living: &HashSet<ProcessId>) -> BTreeMap<u32, ProcessTasks> {
        self.advance();
        let mut counted: HashMap<u32, Vec<(u64, AsyncCounts)>> = HashMap::new();
        for (key, mut counts) in self.probes.as_ref().map(Probes::counts).unwrap_or_default() {
            counts.ended += self.void.get(&key).copied().unwrap_or(0);
            counted.entry(key.tgid).or_default().push((key.vtable, counts));
        }
        let pids: HashSet<u32> = living.iter().map(|id| id.pid).collect();
        self.gone.extend(counted.keys().filter(|pid| !pids.contains(pid)));
        self.sweep();
        let mut told = BTreeMap::new();
        for (id, process) in self.processes.iter_mut().filter(|(id, _)| living.contains(id)) {
            let program = process.program.and_then(|key| self.programs.get(&key));
            let tasks = match program.map(|p| (&p.path, &p.state)) {
                Some((_, State::Probed { tasks, .. })) => {
                    let counts = counted.remove(&id.pid).unwrap_or_default();
                    let kinds = process.kinds(id.pid, &counts, tasks);
                    ProcessTasks { kinds, blind: None }
                }
                Some((path, State::Blind(why))) => {
                    let why = format!("async tasks of {path} are not counted: {why}");
                    ProcessTasks { kinds: BTreeMap::new(), blind: Some(why) }
                }
                Some(_) => continue,
                None => {
                    let why = process.blind.clone().or_else(|| self.refused.clone());
                    let Some(why) = why else { continue };
                    ProcessTasks { kinds: BTreeMap::new(), blind: Some(why) }
                }
            };
            told.insert(id.pid, tasks);
        }
        told
    }

    /// Forgets tasks of programs that have ended.
    fn sweep(&mut self) {
        let Some(probes) = &mut self.probes else { return };
        let due = !self.gone.is_empty() && self.swept.elapsed() >= SWEEP_EVERY;
        if !due && self.execs.is_empty() {
            return;
        }
        let mut forget = Vec::new();
        for (key, task) in probes.tasks() {
            let of_before = self.execs.get(&key.tgid).is_some_and(|exec| task.at_ns < exec.0);
            if of_before {
                let kind = AsyncTypeKey { tgid: key.tgid, pad: 0, vtable: task.vtable };
                *self.void.entry(kind).or_default() += 1;
            }
            if of_before || (due && self.gone.contains(&key.tgid)) {
                forget.push(key);
            }
        }
        probes.forget_tasks(&forget);
        self.execs.clear();
        if due {
            let keys = probes.counts().into_iter().map(|(key, _)| key);
            let keys: Vec<_> = keys.filter(|key| self.gone.contains(&key.tgid)).collect();
            probes.forget_counts(&keys);
            self.void.retain(|key, _| !self.gone.contains(&key.tgid));
            self.gone.clear();
            self.swept = Instant::now();
        }
    }

    /// Tasks that found no room.
    pub fn lost(&self) -> u64 {
        self.lost_before + self.probes.as_ref().map_or(0, Probes::lost)
    }

    /// What the kernel says of the programs, while they are loaded.
    pub fn run_statistics(&self) -> Vec<(String, Runs)> {
        self.probes.as_ref().map_or(Vec::new(), Probes::run_statistics)
    }

    /// The state of this source, where a unit asks for it.
    pub fn state(&self) -> Option<SourceState> {
        if self.units.is_empty() {
            return None;
        }
        let counts = |p: &Program| matches!(p.state, State::Probed { .. });
        let active = self.programs.values().any(counts);
        let blind = self.programs.values().filter_map(|p| match &p.state {
            State::Blind(why) => Some(format!("{}: {why}", p.path)),
            _ => None,
        });
        let mut reasons: Vec<String> = self.refused.iter().cloned().chain(blind).collect();
        reasons.sort();
        reasons.truncate(4);
        let waits = reasons.is_empty() && !active;
        if waits {
            reasons.push("no process of a unit with tasks = \"tokio\" runs".to_owned());
        }
        Some(SourceState {
            source: "async_tasks".into(),
            mechanism: "uprobe".into(),
            active,
            standby: waits,
            reason: reasons.join("; "),
        })
    }
}

/// Finds the program that a process runs.
fn find(id: ProcessId, process: &mut Process, programs: &mut HashMap<FileKey, Program>) {
    let link = format!("/proc/{}/exe", id.pid);
    let opened = File::open(&link).and_then(|file| Ok((key(&regular(&file)?), file)));
    let (key, file) = match opened {
        Ok(opened) => opened,
        // It has just ended, most often: one that lives is asked again.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
        Err(e) => {
            process.blind = Some(format!("its program cannot be read: {link}: {e}"));
            return;
        }
    };
    if programs.len() >= MAX_PROGRAMS && !programs.contains_key(&key) {
        process.blind = Some(format!("more than {MAX_PROGRAMS} programs are not probed"));
        return;
    }
    process.program = Some(key);
    programs.entry(key).or_insert_with(|| {
        let path = std::fs::read_link(&link).unwrap_or_else(|_| link.into());
        let path = text::printable(path.as_os_str().as_encoded_bytes());
        Program { path, state: State::Waiting(file), used: Instant::now() }
    });
}
