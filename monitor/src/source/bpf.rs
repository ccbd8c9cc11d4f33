//! Owns the BPF object: loads what the host allows, attaches, detaches.
//!
//! The programs are three groups that fail apart: the census, the task probes
//! and the fd probes. A refusal of one is a reason kept for `doctor`, not an
//! error.

use std::borrow::Cow;
use std::error::Error;

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf, StackTraceMap};
use aya::programs::links::LinkError;
use aya::programs::tp_btf::BtfTracePointLink;
use aya::programs::{BtfTracePoint, Iter, Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use leakwatch_common::{Birth, BirthKey, Flow, Offsets, ProcessEntry, Role};

use super::btf::BtfError;
use super::privilege::Capability;
use super::{btf, offsets, roles};

/// Replaces the embedded object, for a rebuilt one under test.
pub const OBJECT_VARIABLE: &str = "LEAKWATCH_BPF_OBJECT";

/// Capabilities that loading takes (Linux 5.8).
pub const WANTED: [Capability; 2] = [Capability::Bpf, Capability::Perfmon];

static PREBUILT: &[u8] =
    aya::include_bytes_aligned!("../../../monitor-ebpf/prebuilt/leakwatch.bpf.o");

const CENSUS: &str = "census";
const TASKS: [(&str, &str); 3] = [
    ("task_fork", "sched_process_fork"),
    ("task_exec", "sched_process_exec"),
    ("task_exit", "sched_process_exit"),
];
const FDS: [(&str, &str); 2] = [("fd_enter", "sys_enter"), ("fd_exit", "sys_exit")];

/// How the programs are to behave from the first instruction on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Births for every process, not only for those named.
    pub watch_all: bool,
    /// A stack with every birth.
    pub stacks_all: bool,
}

/// What went wrong before any program could be tried.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// No type information, or an unknown kernel.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// aya's own reading of the type information.
    #[error("kernel type information: {0}")]
    AyaBtf(#[from] aya::BtfError),
    /// The object was refused: usually the maps, for want of privilege.
    #[error("loading the BPF object")]
    Load(#[from] aya::EbpfError),
    /// `LEAKWATCH_BPF_OBJECT` cannot be read.
    #[error("reading the BPF object {path}")]
    Object {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The object is not the one this agent was built with.
    #[error("the BPF object has no {0}: it is not of this version of leakwatch")]
    Missing(&'static str),
    /// A map could not be used.
    #[error("a BPF map")]
    Map(#[from] aya::maps::MapError),
}

/// A loaded object.
pub struct Bpf {
    ebpf: Ebpf,
    btf: Btf,
    /// Acquisitions not released.
    pub births: HashMap<MapData, BirthKey, Birth>,
    /// What the programs know of processes.
    pub processes: HashMap<MapData, u32, ProcessEntry>,
    /// Counters per (slot, kind).
    pub flows: PerCpuArray<MapData, Flow>,
    /// Loss counters.
    pub losses: PerCpuArray<MapData, u64>,
    /// Stacks by id.
    pub stacks: StackTraceMap<MapData>,
    fd_links: Vec<BtfTracePointLink>,
    /// Programs find a map by its descriptor when they are loaded, so it stays open.
    _roles: Array<MapData, Role>,
}

/// Adds the errno to aya's error where that hides it.
fn program_error(name: &str, e: ProgramError) -> Box<dyn Error> {
    if let ProgramError::LoadError { verifier_log, .. } = &e {
        // The last lines say what the verifier did not accept.
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n");
        if !tail.is_empty() {
            tracing::debug!(%name, verifier = %tail, "BPF program refused");
        }
    }
    Box::new(e)
}

impl Bpf {
    /// Loads the object with its maps; no program yet.
    ///
    /// # Errors
    /// See [`BpfError`]; `EPERM` without CAP_BPF.
    pub fn load(behaviour: Behaviour) -> Result<Self, BpfError> {
        let offsets: Offsets = offsets::resolve(&btf::Btf::of_running_kernel()?)?;
        let object = match std::env::var(OBJECT_VARIABLE) {
            Ok(path) => Cow::Owned(
                std::fs::read(&path).map_err(|source| BpfError::Object { path, source })?,
            ),
            Err(_) => Cow::Borrowed(PREBUILT),
        };
        let btf = Btf::from_sys_fs()?;
        let (watch_all, stacks_all) =
            (u8::from(behaviour.watch_all), u8::from(behaviour.stacks_all));
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("OFFSETS", &offsets, true)
            .override_global("WATCH_ALL", &watch_all, true)
            .override_global("STACKS_ALL", &stacks_all, true)
            .load(&object)?;
        let mut take = |name: &'static str| ebpf.take_map(name).ok_or(BpfError::Missing(name));
        let mut role_map: Array<MapData, Role> = Array::try_from(take("ROLES")?)?;
        for (number, role) in roles::table() {
            role_map.set(number, role, 0)?;
        }
        let births = HashMap::try_from(take("BIRTHS")?)?;
        let processes = HashMap::try_from(take("PROCESSES")?)?;
        let flows = PerCpuArray::try_from(take("FLOWS")?)?;
        let losses = PerCpuArray::try_from(take("LOSSES")?)?;
        let stacks = StackTraceMap::try_from(take("STACKS")?)?;
        Ok(Self {
            ebpf,
            btf,
            births,
            processes,
            flows,
            losses,
            stacks,
            fd_links: Vec::new(),
            _roles: role_map,
        })
    }

    /// The queue of task events; once.
    ///
    /// # Errors
    /// It was taken before, or is not a ring buffer.
    pub fn task_ring(&mut self) -> Result<RingBuf<MapData>, BpfError> {
        let map = self.ebpf.take_map("TASKS").ok_or(BpfError::Missing("TASKS"))?;
        Ok(RingBuf::try_from(map)?)
    }

    /// The log records of the programs.
    pub fn logger(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        aya_log::EbpfLogger::init(&mut self.ebpf).ok()
    }

    /// Loads the census program and makes its iterator.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open_census(&mut self) -> Result<(), Box<dyn Error>> {
        let btf = &self.btf;
        let iter: &mut Iter = program(&mut self.ebpf, CENSUS)?;
        iter.load("task_file", btf).map_err(|e| program_error(CENSUS, e))
    }

    /// A new pass over all open descriptors. Each needs a link of its own.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn census_pass(&mut self) -> Result<std::fs::File, Box<dyn Error>> {
        let iter: &mut Iter = program(&mut self.ebpf, CENSUS)?;
        let id = iter.attach()?;
        let link = iter.take_link(id)?;
        link.into_file().map_err(|e: LinkError| e.into())
    }

    /// Loads and attaches the task probes, for good.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_tasks(&mut self) -> Result<(), Box<dyn Error>> {
        for (name, event) in TASKS {
            let btf = &self.btf;
            let p: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
            p.load(event, btf).map_err(|e| program_error(name, e))?;
        }
        for (name, _) in TASKS {
            let p: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
            p.attach()?;
        }
        Ok(())
    }

    /// Loads the fd probes without attaching them.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn load_fds(&mut self) -> Result<(), Box<dyn Error>> {
        for (name, event) in FDS {
            let btf = &self.btf;
            let p: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
            p.load(event, btf).map_err(|e| program_error(name, e))?;
        }
        Ok(())
    }

    /// Attaches the fd probes, releases first, so that none is missed.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_fds(&mut self) -> Result<(), Box<dyn Error>> {
        if self.fds_attached() {
            return Ok(());
        }
        let mut links = Vec::with_capacity(FDS.len());
        for (name, _) in FDS {
            let p: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
            let id = p.attach()?;
            links.push(p.take_link(id)?);
        }
        self.fd_links = links;
        Ok(())
    }

    /// Detaches the fd probes and forgets their births, whose releases would
    /// go unseen.
    pub fn detach_fds(&mut self) {
        // Dropping a link detaches; the verified program stays ready.
        self.fd_links.clear();
        let keys: Vec<BirthKey> = self.births.keys().filter_map(Result::ok).collect();
        for key in keys {
            let _ = self.births.remove(&key);
        }
    }

    /// The fd probes are attached.
    pub fn fds_attached(&self) -> bool {
        !self.fd_links.is_empty()
    }

    /// Run time and runs per program, as the kernel counts them while its
    /// statistics are on.
    pub fn run_statistics(&self) -> Vec<(String, f64, u64)> {
        self.ebpf
            .programs()
            .filter_map(|(name, p)| {
                let info = p.info().ok()?;
                let runs = info.run_count();
                (runs > 0).then(|| (name.to_string(), info.run_time().as_secs_f64(), runs))
            })
            .collect()
    }
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, BpfError>
where
    &'a mut T: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(name).and_then(|p| p.try_into().ok()).ok_or(BpfError::Missing(name))
}
