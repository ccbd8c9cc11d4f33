//! Turns the addresses of stacks into functions, files and lines.
//!
//! A stack is looked up when it is first seen of a process that is under suspicion,
//! because later the process may be gone; its opener comes with a later look. A
//! look takes hold of the files that its addresses are of ([`pin`]) and leaves the rest to
//! a thread of its own, which does not exist before the first such stack. It has each
//! file read by a confined process ([`confined`]), for what is in them is the work of
//! whoever runs them. Counts never depend on any of it.

pub mod answer;
pub(crate) mod cfi;
pub mod confined;
mod debug;
mod follow;
mod followed;
mod language;
pub(crate) mod maps;
mod notes;
pub(crate) mod perfmap;
pub(crate) mod pin;
pub(crate) mod reader;
pub(crate) mod roles;
mod skipped;
#[cfg(test)]
mod tests;
pub(crate) mod trail;
mod worker;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::copies::Copy;
use super::frame::{Frame, Opener, OpenerKey};
use super::model::{FdBirth, ProcessId, ProcessSample, TaskEvent, UNWOUND};
use crate::time::Boottime;
use followed::{Followed, MAX_WAITING};
use pin::Pinned;
use worker::{Beat, Done, Work};

/// Stacks that wait at most; those past it are asked for again at the next look.
const QUEUE: usize = 64;
/// Of one look, what may go for holding on to files.
const PATIENCE: Duration = Duration::from_millis(50);
/// A file is given up after 30 s, and its debug file, and both once more without what
/// debuggers want: a thread that does not get on for longer waits for a file system
/// that does not answer.
const STUCK: Duration = Duration::from_secs(300);
/// So many of those, and no more stack is looked up.
const MAX_STUCK: u32 = 3;
/// Execs remembered at most; past it those of the processes that were seen stay.
const MAX_EXECS: usize = 8_192;

/// A stack to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Whose.
    pub process: ProcessId,
    /// Its number.
    pub stack: u32,
    /// Return addresses, innermost first.
    pub addresses: Vec<u64>,
}

impl Job {
    /// The opener, when it cannot be said who that is.
    fn unknown(&self, why: String) -> Opener {
        let frames = self.addresses.iter().map(|a| Frame::raw(*a)).collect();
        Opener { process: self.process, stack: self.stack, frames, note: Some(why) }
    }
}

/// What was opened from one stack and is open.
#[derive(Clone, Copy, Debug)]
struct Opened {
    /// When the youngest was.
    youngest: Boottime,
    /// So many.
    held: u32,
}

/// The thread, once there is one.
struct Running {
    jobs: SyncSender<Work>,
    done: Receiver<Done>,
    beat: Beat,
}

/// A handle on the thread; dropping it ends the thread.
#[derive(Default)]
pub struct Symbols {
    running: Option<Running>,
    /// By process, the stacks of its descriptors.
    seen: HashMap<ProcessId, BTreeMap<u32, Opened>>,
    asked: HashSet<OpenerKey>,
    /// Sent to the thread, which has not answered yet.
    waiting: HashMap<OpenerKey, Job>,
    /// Threads that were given up.
    stuck: u32,
    pressing: HashSet<ProcessId>,
    execs: HashMap<ProcessId, Boottime>,
    ready: Vec<Arc<Opener>>,
    followed: Followed,
    lost: u64,
}

impl Symbols {
    /// Takes note of events: what was opened before an exec is of another program.
    pub fn note(&mut self, events: &[TaskEvent]) {
        for event in events {
            match event {
                TaskEvent::Exec { at, id, .. } => {
                    self.execs.insert(*id, *at);
                }
                TaskEvent::Exit { id, .. } => {
                    self.execs.remove(id);
                }
                TaskEvent::Fork { .. } => {}
            }
        }
        if self.execs.len() > MAX_EXECS {
            self.execs.retain(|id, _| self.seen.contains_key(id));
        }
    }

    /// What a look has seen of a process.
    pub fn see(&mut self, id: ProcessId, births: impl Iterator<Item = FdBirth>) {
        let mut stacks: BTreeMap<u32, Opened> = BTreeMap::new();
        for birth in births {
            let Some(stack) = birth.stack else { continue };
            let opened = stacks.entry(stack).or_insert(Opened { youngest: birth.at, held: 0 });
            opened.youngest = birth.at.max(opened.youngest);
            opened.held += 1;
        }
        if stacks.is_empty() {
            self.seen.remove(&id);
        } else {
            self.seen.insert(id, stacks);
        }
    }

    /// Forgets those that are not there any more.
    pub fn keep(&mut self, living: &[ProcessSample]) {
        if self.seen.is_empty() && self.asked.is_empty() && self.followed.is_empty() {
            return;
        }
        let living: HashSet<ProcessId> = living.iter().map(|p| p.id).collect();
        self.seen.retain(|id, _| living.contains(id));
        self.asked.retain(|(id, _)| living.contains(id));
        self.followed.keep(&living);
    }

    /// Has copied stacks unwound, those first of which nothing is known yet and that most
    /// of what is open came from; `stack` gives the addresses of one by frame pointers.
    pub fn follow_all(
        &mut self,
        mut copies: Vec<(ProcessId, Copy)>,
        stack: impl Fn(u32) -> Option<Vec<u64>>,
    ) {
        let held = |process: &ProcessId, copy: &Copy| {
            let stacks = self.seen.get(process)?;
            stacks.get(&copy.stack?).map(|opened| opened.held)
        };
        copies.sort_by_key(|(process, copy)| {
            let tries = self.followed.tries(*process, copy.stack);
            (tries, Reverse(held(process, copy)))
        });
        for (process, copy) in copies {
            self.follow_one(process, copy, &stack);
        }
    }

    /// Has a copied stack unwound; `stack` gives the addresses of one by frame pointers.
    /// Whether its opener is going to be known by that.
    pub fn follow_one(
        &mut self,
        process: ProcessId,
        copy: Copy,
        stack: impl Fn(u32) -> Option<Vec<u64>>,
    ) -> bool {
        let by_pointers = copy.stack.and_then(stack).unwrap_or_default();
        self.follow(process, copy, by_pointers)
    }

    /// Has a copied stack unwound of which nothing else is known. Whether its opener is
    /// going to be.
    pub fn unwind(&mut self, process: ProcessId, copy: Copy) -> bool {
        self.follow(process, copy, Vec::new())
    }

    /// Another copy can be taken in.
    pub fn has_room(&self) -> bool {
        self.followed.waiting() < MAX_WAITING
    }

    /// Has one unwound, where that can tell more than the addresses that frame
    /// pointers have told of it.
    fn follow(&mut self, process: ProcessId, copy: Copy, by_pointers: Vec<u64>) -> bool {
        let before_exec = self.execs.get(&process).is_some_and(|exec| copy.at < *exec);
        if before_exec || self.stuck > MAX_STUCK || !self.followed.wants(process, copy.stack) {
            return false;
        }
        let job = Job { process, stack: copy.stack.unwrap_or(UNWOUND), addresses: by_pointers };
        let words = copy.words.iter().chain(copy.registers.iter().map(|(_, value)| value));
        // Who has ended, or may not be read, is told of by the frame pointers' stack.
        let Ok(pinned) = pin::pin_code(&job, words.copied().collect()) else { return false };
        let sent = self
            .running()
            .is_some_and(|running| running.jobs.try_send(Work::Follow(pinned, copy)).is_ok());
        if sent {
            self.followed.sent();
        }
        sent
    }

    /// Says of descriptors from which unwound stack they were opened, as far as is known.
    pub fn refine(&self, processes: &mut [ProcessSample]) {
        self.followed.refine(processes);
    }

    /// From which unwound stack something was opened, as far as is known.
    pub fn unwound(&self, process: ProcessId, fd: u32, at: Boottime) -> Option<u32> {
        self.followed.number(process, fd, at)
    }

    /// The addresses of an unwound stack.
    pub fn followed(&self, id: u32) -> Option<Vec<u64>> {
        self.followed.addresses(id)
    }

    /// These processes are under suspicion: their stacks are worth the work.
    pub fn press(&mut self, pressing: HashSet<ProcessId>) {
        self.pressing = pressing;
    }

    /// Asks for the stacks that are worth it and were not asked for yet; `stack`
    /// gives the addresses of one.
    pub fn ask(&mut self, stack: impl Fn(u32) -> Option<Vec<u64>>) {
        let mut wanted: Vec<(OpenerKey, Opened)> = self
            .pressing
            .iter()
            .filter_map(|id| Some((id, self.seen.get(id)?)))
            .flat_map(|(id, stacks)| stacks.iter().map(|(stack, opened)| ((*id, *stack), *opened)))
            .filter(|(key, _)| !self.asked.contains(key))
            .collect();
        // Where much is opened and closed again, what leaks is what there is most of.
        wanted.sort_by_key(|(key, opened)| (Reverse(opened.held), *key));
        let begun = Instant::now();
        for ((process, id), opened) in wanted {
            // What is not asked for now is at the next look.
            if begun.elapsed() > PATIENCE {
                return;
            }
            let Some(addresses) = stack(id).filter(|a| !a.is_empty()) else { continue };
            let job = Job { process, stack: id, addresses };
            if self.execs.get(&process).is_some_and(|exec| opened.youngest < *exec) {
                self.give_up(&job, "it was opened before the process executed its present program");
            } else if self.stuck > MAX_STUCK {
                self.give_up(
                    &job,
                    "it is not looked up: reading files of earlier ones never ended",
                );
            } else if self.waiting.len() >= QUEUE {
                self.lost += 1;
            } else {
                match pin::pin(&job) {
                    Ok(pinned) => self.send(job, pinned),
                    Err(why) => self.give_up(&job, &why),
                }
            }
        }
    }

    fn give_up(&mut self, job: &Job, why: &str) {
        let opener = job.unknown(why.to_owned());
        self.asked.insert(opener.key());
        self.ready.push(Arc::new(opener));
    }

    /// The thread, which begins now if there is none; nothing where it cannot.
    fn running(&mut self) -> Option<&Running> {
        if self.running.is_none() {
            match start() {
                Ok(running) => self.running = Some(running),
                Err(e) => tracing::warn!("stacks cannot be looked up: no thread: {e}"),
            }
        }
        let idle = self.waiting.is_empty() && self.followed.waiting() == 0;
        // It had nothing to do until now.
        self.running.as_ref().inspect(|running| {
            if idle {
                running.beat.now();
            }
        })
    }

    fn send(&mut self, job: Job, pinned: Pinned) {
        let Some(running) = self.running() else {
            self.lost += 1;
            return;
        };
        let key = (job.process, job.stack);
        match running.jobs.try_send(Work::Name(pinned)) {
            Ok(()) => {
                self.asked.insert(key);
                self.waiting.insert(key, job);
            }
            Err(TrySendError::Full(_)) => self.lost += 1,
            Err(TrySendError::Disconnected(_)) => {
                // It panicked, which its thread has logged; the next one starts anew.
                self.lost += 1;
                self.abandon("looking it up failed; the log says why");
            }
        }
    }

    /// What has been looked up since the last time.
    pub fn take(&mut self) -> Vec<Arc<Opener>> {
        if let Some(running) = &self.running {
            for done in running.done.try_iter() {
                let opener = match done {
                    Done::Named(opener) => Some(opener),
                    Done::Followed(result) => self.followed.take(result),
                };
                let Some(opener) = opener else { continue };
                self.waiting.remove(&opener.key());
                self.asked.insert(opener.key());
                self.ready.push(Arc::new(opener));
            }
            let idle = self.waiting.is_empty() && self.followed.waiting() == 0;
            if !idle && running.beat.age() > STUCK {
                self.stuck += 1;
                tracing::warn!("a symbol file keeps its reader waiting for ever; it is given up");
                self.abandon("reading its files never ends: the file system does not answer");
            }
        }
        std::mem::take(&mut self.ready)
    }

    /// Leaves the thread to itself, and what waits for it unknown.
    fn abandon(&mut self, why: &str) {
        self.running = None;
        self.followed.abandon();
        for (_, job) in std::mem::take(&mut self.waiting) {
            self.give_up(&job, why);
        }
    }

    /// Stacks that are being looked up, or unwound.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.followed.waiting()
    }

    /// How often a stack had to wait for a later look because so many were waiting.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

fn start() -> std::io::Result<Running> {
    let (jobs, inbox) = sync_channel(QUEUE + MAX_WAITING);
    let (outbox, done) = std::sync::mpsc::channel();
    let beat = Beat::default();
    beat.now();
    let beats = beat.clone();
    std::thread::Builder::new()
        .name("symbols".into())
        .spawn(move || worker::run(&inbox, &outbox, &beats))?;
    Ok(Running { jobs, done, beat })
}
