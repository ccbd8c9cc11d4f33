//! What the lines so far make known of the machine: the same for who writes them
//! and who reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::descriptor;
use super::line::{About, Beside, Id, Look, Process, Table};
use super::weight::{MOST, Weigh};
use crate::source::model::{
    BootId, FdSample, FdTable, KernelStr, Observation, ProcessId, SourceState, SystemdUnit,
    UnitFlows,
};

/// A process.
#[derive(Debug)]
pub(super) struct Kept {
    pub about: About,
    pub threads: u32,
    pub sight: Sight,
    /// As last seen in full.
    pub table: Vec<FdSample>,
    /// Of the table.
    weight: usize,
}

impl Kept {
    fn new(about: About) -> Self {
        Self { about, threads: 0, sight: Sight::Denied, table: Vec::new(), weight: 0 }
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
#[derive(Debug, Default)]
pub(super) struct Known {
    pub boot: BootId,
    pub processes: BTreeMap<Id, Kept>,
    pub flows: BTreeMap<Arc<str>, UnitFlows>,
    pub stacks: BTreeMap<u32, Vec<u64>>,
    pub pids_max: BTreeMap<KernelStr, u64>,
    pub systemd: BTreeMap<KernelStr, Arc<SystemdUnit>>,
    pub sources: Vec<SourceState>,
    weight: usize,
}

impl Known {
    /// Nothing yet, of this life of a machine.
    pub fn of(boot: BootId) -> Self {
        Self { boot, ..Self::default() }
    }

    /// Takes in a process.
    ///
    /// # Errors
    /// What the line relies on was never told, or there is too much.
    pub fn process(&mut self, line: Process) -> Result<(), String> {
        let Process { pid, start, gone, about, threads, fds } = line;
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
        let Beside { flows, stacks, pids_max, systemd } = line;
        flows.apply(&mut self.flows, &mut self.weight);
        stacks.apply(&mut self.stacks, &mut self.weight);
        pids_max.apply(&mut self.pids_max, &mut self.weight);
        systemd.apply(&mut self.systemd, &mut self.weight);
        self.bounded()
    }

    fn bounded(&self) -> Result<(), String> {
        if self.weight > MOST {
            return Err(format!(
                "it tells of more at once than {} can hold",
                crate::text::bytes(MOST as u64)
            ));
        }
        Ok(())
    }

    /// The look that `line` makes whole.
    pub fn look(&mut self, line: Look) -> Observation {
        if let Some(sources) = line.sources {
            self.sources = sources;
        }
        let boot = self.boot;
        let sample = |((pid, start_ticks), kept): (&Id, &Kept)| {
            let id = ProcessId { boot, pid: *pid, start_ticks: *start_ticks };
            let fds = match kept.sight {
                Sight::Full => FdTable::Full(kept.table.clone()),
                Sight::Same(n) => FdTable::Same(n),
                Sight::Count(n) => FdTable::Count(n),
                Sight::Denied => FdTable::Denied,
            };
            kept.about.clone().sample(id, kept.threads, fds)
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
            pids_max: self.pids_max.clone(),
            systemd: self.systemd.clone(),
            sources: self.sources.clone(),
            figures: line.figures,
        }
    }
}
