//! Writes entries as lines.

use std::collections::BTreeMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::descriptor::{self, Descriptor};
use super::entry::Entry;
use super::header::Header;
use super::known::{Known, Sight};
use super::line::{About, Beside, Glimpse, Line, Look, OpenerLine, Process, Table, Task};
use super::lines::LONGEST;
use super::patch::{ENTRIES, Patch};
use crate::config::{self, Config};
use crate::source::model::{FdTable, KernelStr, Observation, ProcessSample, TaskEvent};
use crate::time::{Boottime, ClockPair};

/// Where a line is cut, bytes; one descriptor is at most about 30 KiB.
const PART: usize = 1 << 20;
/// Task events of one line.
const EVENTS: usize = 1000;
/// Numbers that are free again, of one line.
const CLOSED: usize = 100_000;

/// A trace cannot be written on.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk is full, say.
    #[error("cannot write the trace: {0}")]
    Io(#[from] io::Error),
    /// There is more than a trace can tell of.
    #[error("cannot write the trace: {0}")]
    TooMuch(String),
}

/// Writes a trace.
///
/// Each call writes what it is given down to the operating system, so that of an
/// agent that is killed at most the last entry is torn.
pub struct Writer<W: Write> {
    to: GzEncoder<Counted<W>>,
    known: Known,
    line: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a trace.
    ///
    /// # Errors
    /// `to` cannot be written.
    pub fn new(to: W, header: &Header) -> Result<Self, WriteError> {
        let to = GzEncoder::new(Counted { to, bytes: 0 }, Compression::new(4));
        let mut new = Self { to, known: Known::of(header.boot), line: Vec::new() };
        new.put(&header.line())?;
        new.to.flush()?;
        Ok(new)
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.to.get_ref().bytes
    }

    /// Any entry.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), WriteError> {
        match entry {
            Entry::Config(config) => self.config(config),
            Entry::Users(names) => self.users(names),
            Entry::Look(seen, judged) => self.look(seen, *judged),
            Entry::Tasks(events) => self.tasks(events),
            Entry::Glimpse(seen, at) => self.glimpse(seen, *at),
            Entry::Judge(at) => self.judge(*at),
        }
    }

    /// The config from here on. What it would have cleanup do is left out.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn config(&mut self, config: &Config) -> Result<(), WriteError> {
        let config = Config { cleanup: Vec::new(), ..config.clone() };
        self.told(&Line::Config(config::to_toml(&config)))
    }

    /// Names of user ids from here on.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn users(&mut self, names: &BTreeMap<u32, KernelStr>) -> Result<(), WriteError> {
        self.told(&Line::Users(names.clone()))
    }

    /// Task events.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn tasks(&mut self, events: &[TaskEvent]) -> Result<(), WriteError> {
        if events.is_empty() {
            return Ok(());
        }
        for events in events.chunks(EVENTS) {
            self.put(&Line::Tasks(events.iter().map(Task::of).collect()))?;
        }
        Ok(self.to.flush()?)
    }

    /// Processes that were asked after.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn glimpse(&mut self, seen: &[ProcessSample], at: Boottime) -> Result<(), WriteError> {
        let of = |p: &ProcessSample| Process {
            pid: p.id.pid,
            start: p.id.start_ticks,
            about: Some(About::of(p)),
            threads: Some(p.threads),
            ..Process::default()
        };
        if seen.is_empty() {
            return Ok(());
        }
        for seen in seen.chunks(ENTRIES) {
            self.put(&Line::Glimpse(Glimpse { at, of: seen.iter().map(of).collect() }))?;
        }
        Ok(self.to.flush()?)
    }

    /// The verdicts were brought up to date.
    ///
    /// # Errors
    /// That cannot be written.
    pub fn judge(&mut self, at: ClockPair) -> Result<(), WriteError> {
        self.told(&Line::Judge(at))
    }

    /// A census. Its processes must be sorted, each of them once, and their
    /// descriptors by number.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn look(&mut self, seen: &Observation, judged: ClockPair) -> Result<(), WriteError> {
        for p in &seen.processes {
            self.process(p)?;
        }
        // Both are sorted.
        let mut there = seen.processes.iter().map(|p| (p.id.pid, p.id.start_ticks)).peekable();
        let mut gone = Vec::new();
        for id in self.known.processes.keys() {
            while there.next_if(|t| t < id).is_some() {}
            if there.peek() != Some(id) {
                gone.push(*id);
            }
        }
        for (pid, start) in gone {
            self.tell(Process { pid, start, gone: true, ..Process::default() })?;
        }
        self.beside(seen)?;
        for opener in &seen.openers {
            self.put(&Line::Opener(OpenerLine::of(opener)))?;
        }
        let Observation { began, at, depth, countable, fd_probes, task_probes, .. } = seen;
        let Observation { flows, sources, figures, .. } = seen;
        let look = Look {
            began: *began,
            at: *at,
            judged,
            depth: *depth,
            countable: *countable,
            fd_probes: *fd_probes,
            task_probes: *task_probes,
            flows: flows.is_some(),
            sources: (*sources != self.known.sources).then(|| sources.clone()),
            figures: figures.clone(),
        };
        self.known.sources.clone_from(sources);
        self.told(&Line::Look(look))
    }

    /// Ends the trace; gives back what it was written to, and its size in bytes.
    ///
    /// # Errors
    /// That cannot be written.
    pub fn end(mut self, why: &str) -> Result<(W, u64), WriteError> {
        self.put(&Line::End(why.to_owned()))?;
        let Counted { mut to, bytes } = self.to.finish()?;
        to.flush()?;
        Ok((to, bytes))
    }

    fn process(&mut self, p: &ProcessSample) -> Result<(), WriteError> {
        let (pid, start) = (p.id.pid, p.id.start_ticks);
        let kept = self.known.processes.get(&(pid, start));
        let about = About::of(p);
        let head = Process {
            pid,
            start,
            about: (kept.map(|k| &k.about) != Some(&about)).then_some(about),
            threads: (kept.map_or(0, |k| k.threads) != p.threads).then_some(p.threads),
            old_threads: (kept.and_then(|k| k.old_threads) != p.old_threads)
                .then(|| p.old_threads.map(Vec::from).unwrap_or_default()),
            ..Process::default()
        };
        let sight = kept.map(|k| k.sight);
        let fds = match &p.fds {
            FdTable::Same(n) => (sight != Some(Sight::Same(*n))).then_some(Table::Same(*n)),
            FdTable::Count(n) => (sight != Some(Sight::Count(*n))).then_some(Table::Count(*n)),
            FdTable::Denied => (sight != Some(Sight::Denied)).then_some(Table::Denied),
            FdTable::Full(now) => {
                let before = kept.map_or(&[][..], |k| &k.table);
                let (set, closed) = descriptor::between(before, now);
                let other = !set.is_empty() || !closed.is_empty() || sight != Some(Sight::Full);
                if set.len() > 1 || closed.len() > CLOSED {
                    return self.long(head, set, &closed);
                }
                other.then_some(Table::Full { set, closed })
            }
        };
        let counted = head.threads.is_some() || head.old_threads.is_some();
        if head.about.is_some() || counted || fds.is_some() {
            self.tell(Process { fds, ..head })?;
        }
        Ok(())
    }

    /// A process of whose descriptors many differ, cut into lines.
    fn long(
        &mut self,
        head: Process,
        set: Vec<Descriptor>,
        closed: &[u32],
    ) -> Result<(), WriteError> {
        let (pid, start) = (head.pid, head.start);
        let mut head = Some(head);
        let mut part = |writer: &mut Self, set, closed| {
            let head = head.take();
            let head = head.unwrap_or_else(|| Process { pid, start, ..Process::default() });
            writer.tell(Process { fds: Some(Table::Full { set, closed }), ..head })
        };
        for closed in closed.chunks(CLOSED) {
            part(self, Vec::new(), closed.to_vec())?;
        }
        let (mut some, mut bytes) = (Vec::new(), 0);
        for told in set {
            bytes += told.length();
            some.push(told);
            if bytes > PART {
                part(self, std::mem::take(&mut some), Vec::new())?;
                bytes = 0;
            }
        }
        if some.is_empty() { Ok(()) } else { part(self, some, Vec::new()) }
    }

    fn tell(&mut self, process: Process) -> Result<(), WriteError> {
        let line = Line::Process(process);
        self.put(&line)?;
        let Line::Process(process) = line else { return Ok(()) };
        self.known.process(process).map_err(WriteError::TooMuch)
    }

    fn beside(&mut self, seen: &Observation) -> Result<(), WriteError> {
        let none = BTreeMap::new();
        let flows = seen.flows.as_ref().unwrap_or(&none);
        let flows = Patch::between(&self.known.flows, flows);
        let parts = flows.into_iter().map(|flows| Beside { flows, ..Beside::default() });
        let mut lines: Vec<Beside> = parts.collect();
        let stacks = Patch::between(&self.known.stacks, &seen.stacks);
        lines.extend(stacks.into_iter().map(|stacks| Beside { stacks, ..Beside::default() }));
        let pids_max = Patch::between(&self.known.pids_max, &seen.pids_max);
        lines.extend(pids_max.into_iter().map(|pids_max| Beside { pids_max, ..Beside::default() }));
        let systemd = Patch::between(&self.known.systemd, &seen.systemd);
        lines.extend(systemd.into_iter().map(|systemd| Beside { systemd, ..Beside::default() }));
        let tasks = Patch::between(&self.known.async_tasks, &seen.async_tasks);
        let tasks = tasks.into_iter();
        lines.extend(tasks.map(|async_tasks| Beside { async_tasks, ..Beside::default() }));
        for beside in lines {
            let line = Line::Beside(beside);
            self.put(&line)?;
            let Line::Beside(beside) = line else { return Ok(()) };
            self.known.beside(beside).map_err(WriteError::TooMuch)?;
        }
        Ok(())
    }

    /// An entry that is one line.
    fn told(&mut self, line: &Line) -> Result<(), WriteError> {
        self.put(line)?;
        Ok(self.to.flush()?)
    }

    fn put(&mut self, line: &impl Serialize) -> Result<(), WriteError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line).map_err(io::Error::from)?;
        if self.line.len() > LONGEST {
            return Err(WriteError::TooMuch("an entry is longer than a reader takes".to_owned()));
        }
        self.line.push(b'\n');
        Ok(self.to.write_all(&self.line)?)
    }
}

/// Counts what goes through.
struct Counted<W> {
    to: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
