//! What the lines so far make known of the machine: the same for who writes them
//! and who reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::descriptor;
use super::line::{About, Beside, Id, Look, OpenerLine, Process, Table};
use super::weight::{MOST, Weigh};
use crate::config::model::LEVELS;
use crate::source::model::{
    BootId, FdSample, FdTable, KernelStr, Observation, Opener, ProcessId, ProcessSample,
    ProcessTasks, SourceState, SystemdUnit, UnitFlows,
};
use crate::text;

/// A process.
#[derive(Debug)]
pub(super) struct Kept {
    pub about: About,
    pub threads: u32,
    pub old_threads: Option<[u32; LEVELS]>,
    pub sight: Sight,
    /// As last seen in full.
    pub table: Vec<FdSample>,
    /// Of the table.
    weight: usize,
}

impl Kept {
    fn new(about: About) -> Self {
        let (threads, old_threads) = (0, None);
        Self { about, threads, old_threads, sight: Sight::Denied, table: Vec::new(), weight: 0 }
    }

    fn weight(&self) -> usize {
        let About { comm, exe, cmdline, cgroup, .. } = &self.about;
        let texts = [Some(comm), exe.as_ref(), Some(cmdline), Some(cgroup)];
        let texts: usize = texts.into_iter().flatten().map(Weigh::weight).sum();
        size_of::<Self>() + texts + self.weight
    }
}

/// How its descriptors were seen in the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Full,
    Same(u32),
    Count(u32),
    Denied,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Known {
    pub boot: BootId,
    pub processes: BTreeMap<Id, Kept>,
    pub flows: BTreeMap<Arc<str>, UnitFlows>,
    pub stacks: BTreeMap<u32, Vec<u64>>,
    pub pids_max: BTreeMap<KernelStr, u64>,
    pub systemd: BTreeMap<KernelStr, Arc<SystemdUnit>>,
    pub async_tasks: BTreeMap<u32, ProcessTasks>,
    pub sources: Vec<SourceState>,
    /// Of the next look.
    openers: Vec<Arc<Opener>>,
    weight: usize,
    /// What that may be.
    most: usize,
}

impl Known {
    /// Nothing yet, of this life of a machine.
    pub fn of(boot: BootId) -> Self {
        Self {
            boot,
            processes: BTreeMap::new(),
            flows: BTreeMap::new(),
            stacks: BTreeMap::new(),
            pids_max: BTreeMap::new(),
            systemd: BTreeMap::new(),
            async_tasks: BTreeMap::new(),
            sources: Vec::new(),
            openers: Vec::new(),
            weight: 0,
            most: MOST,
        }
    }

    /// Takes in a process.
    ///
    /// # Errors
    /// What the line relies on was never told, or there is too much.
    pub fn process(&mut self, line: Process) -> Result<(), String> {
        let Process { pid, start, gone, about, threads, old_threads, fds } = line;
        let mut kept = match (self.processes.remove(&(pid, start)), about) {
            (Some(kept), about) => {
                self.weight = self.weight.saturating_sub(kept.weight());
                Kept { about: about.unwrap_or(kept.about), ..kept }
            }
            (None, Some(about)) => Kept::new(about),
            (None, None) if gone => return Ok(()),
            (None, None) => return Err(format!("process {pid} has not been told of before")),
        };
        if gone {
            return Ok(());
        }
        kept.threads = threads.unwrap_or(kept.threads);
        // Of a version with fewer lengths, or more, they say nothing.
        kept.old_threads = old_threads.map_or(kept.old_threads, |old| old.try_into().ok());
        kept.sight = match fds {
            None => kept.sight,
            Some(Table::Same(n)) => Sight::Same(n),
            Some(Table::Count(n)) => Sight::Count(n),
            Some(Table::Denied) => Sight::Denied,
            Some(Table::Full { set, closed }) => {
                descriptor::apply(&mut kept.table, set, &closed, &mut kept.weight)
                    .map_err(|why| format!("process {pid}: {why}"))?;
                Sight::Full
            }
        };
        self.weight += kept.weight();
        self.processes.insert((pid, start), kept);
        self.bounded()
    }

    /// Takes in what is told beside processes.
    ///
    /// # Errors
    /// There is too much.
    pub fn beside(&mut self, line: Beside) -> Result<(), String> {
        let Beside { flows, stacks, pids_max, systemd, async_tasks } = line;
        flows.apply(&mut self.flows, &mut self.weight);
        stacks.apply(&mut self.stacks, &mut self.weight);
        pids_max.apply(&mut self.pids_max, &mut self.weight);
        systemd.apply(&mut self.systemd, &mut self.weight);
        async_tasks.apply(&mut self.async_tasks, &mut self.weight);
        self.bounded()
    }

    /// Takes in a stack that was looked up.
    ///
    /// # Errors
    /// There is too much.
    pub fn opener(&mut self, line: OpenerLine) -> Result<(), String> {
        let opener = line.opener(self.boot);
        self.weight += opener.weight();
        self.openers.push(Arc::new(opener));
        self.bounded()
    }

    fn bounded(&self) -> Result<(), String> {
        if self.weight > self.most {
            return Err(format!(
                "it tells of more at once than {} can hold",
                text::bytes(self.most as u64)
            ));
        }
        Ok(())
    }

    /// The look that `line` makes whole.
    pub fn look(&mut self, line: Look) -> Observation {
        if let Some(sources) = line.sources {
            self.sources = sources;
        }
        let openers = std::mem::take(&mut self.openers);
        self.weight -= openers.iter().map(|o| o.weight()).sum::<usize>();
        let boot = self.boot;
        let sample = |((pid, start_ticks), kept): (&Id, &Kept)| {
            let id = ProcessId { boot, pid: *pid, start_ticks: *start_ticks };
            let fds = match kept.sight {
                Sight::Full => FdTable::Full(kept.table.clone()),
                Sight::Same(n) => FdTable::Same(n),
                Sight::Count(n) => FdTable::Count(n),
                Sight::Denied => FdTable::Denied,
            };
            let sample = kept.about.clone().sample(id, kept.threads, fds);
            ProcessSample { old_threads: kept.old_threads, ..sample }
        };
        Observation {
            began: line.began,
            at: line.at,
            depth: line.depth,
            countable: line.countable,
            processes: self.processes.iter().map(sample).collect(),
            fd_probes: line.fd_probes,
            task_probes: line.task_probes,
            flows: line.flows.then(|| self.flows.clone()),
            stacks: self.stacks.clone(),
            openers,
            pids_max: self.pids_max.clone(),
            systemd: self.systemd.clone(),
            async_tasks: self.async_tasks.clone(),
            sources: self.sources.clone(),
            figures: line.figures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::descriptor::Descriptor;
    use super::super::patch::Patch;
    use super::*;

    fn process(pid: u32, fds: std::ops::Range<u32>) -> Process {
        let about = About::of(&ProcessSample {
            id: ProcessId { boot: BootId(1), pid, start_ticks: 1 },
            ppid: 1,
            comm: "x".into(),
            exe: None,
            exe_file: None,
            cmdline: "x".into(),
            uid: None,
            cgroup: "/".into(),
            zombie: false,
            threads: 1,
            old_threads: None,
            max_fds: None,
            fds: FdTable::Denied,
        });
        let new = |fd| Descriptor::between(None, &descriptor::blank(fd));
        let fds = Table::Full { set: fds.map(new).collect(), closed: Vec::new() };
        Process { pid, start: 1, about: Some(about), fds: Some(fds), ..Process::default() }
    }

    #[test]
    fn there_is_a_bound_on_all_that_is_told_at_once_and_none_on_what_has_gone() {
        let mut known = Known { most: 100_000, ..Known::of(BootId(1)) };
        for pid in 0..1000 {
            known.process(process(pid, 0..100)).unwrap();
            // Again, and other ones: what they replace weighs no more.
            known.process(process(pid, 0..100)).unwrap();
            known.process(Process { pid, start: 1, gone: true, ..Process::default() }).unwrap();
        }
        assert_eq!((known.weight, known.processes.len()), (0, 0));
        let stacks = |n: u32| Patch {
            set: (0..n).map(|id| (id, vec![7; 100])).collect(),
            gone: (1000..1010).collect(),
        };
        for _ in 0..100 {
            known.beside(Beside { stacks: stacks(50), ..Beside::default() }).unwrap();
        }
        let over = known.beside(Beside { stacks: stacks(200), ..Beside::default() });
        assert!(over.unwrap_err().contains("more at once than 97.7 KiB"));
        let mut known = Known { most: 100_000, ..Known::of(BootId(1)) };
        let fed = (0..1000).take_while(|pid| known.process(process(*pid, 0..100)).is_ok()).count();
        assert!((1..50).contains(&fed), "{fed}");
    }
}
