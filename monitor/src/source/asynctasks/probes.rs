//! The uprobes and their maps: an object of its own, loaded where a unit asks for it.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsRawFd;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::programs::uprobe::{UProbeLink, UProbeScope};
use aya::programs::{UProbe, uprobe::UProbeAttachLocation};
use leakwatch_common::{AsyncCounts, AsyncTask, AsyncTaskKey, AsyncTypeKey, Loss};

use super::program::TaskProgram;
use crate::source::costs::Runs;
use crate::source::object::{BpfError, loaded_object, program, statistics};
use crate::source::sizes::Sizes;
use crate::source::verifier::program_error;

/// By which a task is seen to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Births {
    /// It is put into its runtime's list: once.
    Bind,
    /// It is polled: as often as it is.
    Poll,
}

impl Births {
    /// What the program allows: the compiler may have dissolved the function that
    /// puts tasks into a list.
    pub fn of(program: &TaskProgram) -> Self {
        if program.bind.is_empty() { Self::Poll } else { Self::Bind }
    }

    /// A word for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "spawn",
            Self::Poll => "poll",
        }
    }
}

/// Maps of the object that these programs do not use: as small as may be.
const OTHERS: [(&str, u32); 8] = [
    ("BIRTHS", 1),
    ("NEAR", 1),
    ("PROCESSES", 1),
    ("FLOWS", 1),
    ("STACKS", 1),
    ("TASKS", 4096),
    ("PATHS", 1),
    ("CHOSEN", 1),
];

/// The programs, loaded.
pub struct Probes {
    ebpf: Ebpf,
    tasks: HashMap<MapData, AsyncTaskKey, AsyncTask>,
    counts: HashMap<MapData, AsyncTypeKey, AsyncCounts>,
    losses: PerCpuArray<MapData, u64>,
}

const BIND: &str = "tokio_bind";
const POLL: &str = "tokio_poll";
const COMPLETE: &str = "tokio_complete";

impl Probes {
    /// Loads them; attached to nothing yet.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn load(sizes: &Sizes) -> Result<Self, Box<dyn Error>> {
        let own = sizes.iter().filter(|(map, _)| *map == "TOKIO_TASKS").copied();
        let sizes: Sizes = OTHERS.into_iter().chain(own).collect();
        let mut ebpf = loaded_object(&sizes)?;
        let mut take = |name: &'static str| ebpf.take_map(name).ok_or(BpfError::Missing(name));
        let tasks = HashMap::try_from(take("TOKIO_TASKS")?)?;
        let counts = HashMap::try_from(take("TOKIO_COUNTS")?)?;
        let losses = PerCpuArray::try_from(take("LOSSES")?)?;
        for name in [BIND, POLL, COMPLETE] {
            let p: &mut UProbe = program(&mut ebpf, name)?;
            p.load().map_err(|e| program_error(name, e))?;
        }
        Ok(Self { ebpf, tasks, counts, losses })
    }

    /// Puts probes into a program, for all that run it. They stay until the links are dropped.
    ///
    /// # Errors
    /// The kernel's refusal; then none is there.
    pub fn attach(
        &mut self,
        file: &File,
        of: &TaskProgram,
    ) -> Result<Vec<UProbeLink>, Box<dyn Error>> {
        // The very file, whatever has its name by now and wherever it is mounted.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let births = match Births::of(of) {
            Births::Bind => (BIND, &of.bind),
            Births::Poll => (POLL, &of.poll),
        };
        let mut links = Vec::new();
        // Ends first, so that none is missed.
        for (name, offsets) in [(COMPLETE, &of.complete), births] {
            for offset in offsets {
                let p: &mut UProbe = program(&mut self.ebpf, name)?;
                let at = UProbeAttachLocation::AbsoluteOffset(*offset);
                let id = p.attach(at, &path, UProbeScope::AllProcesses)?;
                links.push(p.take_link(id)?);
            }
        }
        Ok(links)
    }

    /// All counters.
    pub fn counts(&self) -> Vec<(AsyncTypeKey, AsyncCounts)> {
        self.counts.iter().filter_map(Result::ok).collect()
    }

    /// All tasks that have begun and not ended: milliseconds, where there are thousands.
    pub fn tasks(&self) -> Vec<(AsyncTaskKey, AsyncTask)> {
        self.tasks.iter().filter_map(Result::ok).collect()
    }

    /// Forgets tasks.
    pub fn forget_tasks(&mut self, keys: &[AsyncTaskKey]) {
        for key in keys {
            // Its end may have been first.
            let _ = self.tasks.remove(key);
        }
    }

    /// Forgets counters of a process that has ended.
    pub fn forget_counts(&mut self, keys: &[AsyncTypeKey]) {
        for key in keys {
            let _ = self.counts.remove(key);
        }
    }

    /// Tasks that found no room.
    pub fn lost(&self) -> u64 {
        let per_cpu = self.losses.get(&(Loss::AsyncTasks as u32), 0);
        per_cpu.map_or(0, |n| n.iter().sum())
    }

    /// What the kernel says of each program.
    pub fn run_statistics(&self) -> Vec<(String, Runs)> {
        statistics(&self.ebpf)
    }
}
