//! Owns the BPF object: loads what the host allows, attaches, detaches.
//!
//! The programs are three groups that fail apart: the census, the task probes
//! and the fd probes. A refusal of one is a reason kept for `doctor`, not an
//! error.

mod births;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf, StackTraceMap};
use aya::programs::fentry::FEntryLink;
use aya::programs::links::LinkError;
use aya::programs::tp_btf::BtfTracePointLink;
use aya::programs::{BtfTracePoint, FEntry, Iter, Program};
use aya::{Btf, Ebpf};
use leakwatch_common::{Flow, Offsets, PATH_EPOCHS, ProcessEntry, Settings};

use self::births::Births;
use super::costs::Runs;
use super::fdprobes::FdProbes;
use super::object::{load_walking, program, statistics};
use super::privilege::{Capability, errno};
use super::sizes::Sizes;
use super::verifier::program_error;
use super::{btf, offsets, pass};

pub use super::object::BpfError;
pub use super::object::OBJECT_VARIABLE;

/// Capabilities that loading takes (Linux 5.8).
pub const WANTED: [Capability; 2] = [Capability::Bpf, Capability::Perfmon];

/// With paths; and without, where `bpf_d_path` is not for iterators.
const CENSUS: [&str; 2] = ["census", "census_pathless"];
const PROCESSES: &str = "processes";
const TASKS: [(&str, &str); 3] = [
    ("task_fork", "sched_process_fork"),
    ("task_exec", "sched_process_exec"),
    ("task_exit", "sched_process_exit"),
];

/// Maps of programs that are loaded by themselves ([`super::asynctasks`]).
const ELSEWHERE: [(&str, u32); 2] = [("TOKIO_TASKS", 1), ("TOKIO_COUNTS", 1)];

/// Numbers of a range or message that are followed where only what is open is asked for. The
/// self-test tries one.
const WALK_FOR_OPEN: u32 = 1;

/// Keeps a program attached until it is dropped.
#[expect(dead_code, reason = "held for its drop")]
enum FdLink {
    Table(FEntryLink),
    Syscall(BtfTracePointLink),
}

/// A loaded object.
pub struct Bpf {
    ebpf: Ebpf,
    btf: Btf,
    /// Acquisitions not released.
    pub births: Births,
    /// What the programs know of processes.
    pub processes: HashMap<MapData, u32, ProcessEntry>,
    /// Counters per (slot, kind).
    pub flows: PerCpuArray<MapData, Flow>,
    /// Loss counters.
    pub losses: PerCpuArray<MapData, u64>,
    /// Stacks by id.
    pub stacks: StackTraceMap<MapData>,
    /// Pieces of stacks.
    pub copies: RingBuf<MapData>,
    /// What the unwinder wants of the registers that come with them.
    pub registers: offsets::Saved,
    settings: Array<MapData, Settings>,
    chosen: Array<MapData, u64>,
    said: Settings,
    passes: usize,
    census: &'static str,
    /// Kernel functions that there are, of those that fd probes attach to.
    functions: BTreeSet<String>,
    fd_probes: Option<FdProbes>,
    fd_links: Vec<FdLink>,
}

impl Bpf {
    /// Loads the object with its maps; no program yet.
    ///
    /// # Errors
    /// See [`BpfError`]; `EPERM` without CAP_BPF.
    pub fn load(sizes: &Sizes) -> Result<Self, BpfError> {
        Self::load_walking(sizes, u32::MAX)
    }

    /// As [`Self::load`], for who asks for the births of open descriptors alone: those that
    /// a `close_range` of several numbers has released stay, and of several that one message
    /// brings only the first have one. The kernel's verifier is done with the probe on
    /// system calls in a twentieth of the time.
    ///
    /// # Errors
    /// See [`Self::load`].
    pub fn load_for_open(sizes: &Sizes) -> Result<Self, BpfError> {
        Self::load_walking(sizes, WALK_FOR_OPEN)
    }

    fn load_walking(sizes: &Sizes, walk: u32) -> Result<Self, BpfError> {
        let types = btf::Btf::of_running_kernel()?;
        let offsets: Offsets = offsets::resolve(&types)?;
        let wanted = |name: &str| FdProbes::all().any(|p| p.functions().any(|f| f == name));
        let functions = types.functions(wanted);
        let registers = offsets::saved(&types)?;
        drop(types);
        let btf = Btf::from_sys_fs()?;
        let own = sizes.iter().filter(|(map, _)| !map.starts_with("TOKIO_")).copied();
        let sizes: Sizes = own.chain(ELSEWHERE).collect();
        let mut ebpf = load_walking(&btf, &offsets, &sizes, walk)?;
        let mut take = |name: &'static str| ebpf.take_map(name).ok_or(BpfError::Missing(name));
        let settings = Array::try_from(take("SETTINGS")?)?;
        let chosen = Array::try_from(take("CHOSEN")?)?;
        let Map::Array(near) = take("NEAR")? else { return Err(BpfError::Missing("NEAR")) };
        let births = Births::new(near, HashMap::try_from(take("BIRTHS")?)?)?;
        let processes = HashMap::try_from(take("PROCESSES")?)?;
        let flows = PerCpuArray::try_from(take("FLOWS")?)?;
        let losses = PerCpuArray::try_from(take("LOSSES")?)?;
        let stacks = StackTraceMap::try_from(take("STACKS")?)?;
        let copies = RingBuf::try_from(take("COPIES")?)?;
        Ok(Self {
            ebpf,
            btf,
            births,
            processes,
            flows,
            losses,
            stacks,
            copies,
            registers,
            settings,
            chosen,
            said: Settings::default(),
            passes: 0,
            census: CENSUS[0],
            functions,
            fd_probes: None,
            fd_links: Vec::new(),
        })
    }

    /// Tells the programs something that holds for all processes.
    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.said;
        change(&mut settings);
        // A write to a map that is open and large enough cannot fail.
        if settings != self.said && self.settings.set(0, settings, 0).is_ok() {
            self.said = settings;
        }
    }

    /// A word about a process has changed: what births remember of theirs is void.
    pub fn new_word(&mut self) {
        self.set(|s| s.generation = s.generation.wrapping_add(1));
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

    /// Loads the census program.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open_census(&mut self) -> Result<(), Box<dyn Error>> {
        let mut refused = None;
        for name in CENSUS {
            let btf = &self.btf;
            let iter: &mut Iter = program(&mut self.ebpf, name)?;
            match iter.load("task_file", btf) {
                Ok(()) => {
                    self.census = name;
                    return Ok(());
                }
                Err(e) => refused = refused.or(Some(program_error(name, e))),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// The iterator makes paths itself.
    pub fn census_names(&self) -> bool {
        self.census == CENSUS[0]
    }

    /// A new pass over all open descriptors. Each needs a link of its own.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn census_pass(&mut self) -> Result<std::fs::File, Box<dyn Error>> {
        let iter: &mut Iter = program(&mut self.ebpf, self.census)?;
        let id = iter.attach()?;
        let link = iter.take_link(id)?;
        link.into_file().map_err(|e: LinkError| e.into())
    }

    /// Loads the program that lists processes.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open_processes(&mut self) -> Result<(), Box<dyn Error>> {
        let btf = &self.btf;
        let iter: &mut Iter = program(&mut self.ebpf, PROCESSES)?;
        iter.load("task", btf).map_err(|e| program_error(PROCESSES, e))
    }

    /// A pass over all processes.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn process_pass(&mut self) -> Result<std::fs::File, Box<dyn Error>> {
        let iter: &mut Iter = program(&mut self.ebpf, PROCESSES)?;
        let id = iter.attach()?;
        let link = iter.take_link(id)?;
        link.into_file().map_err(|e: LinkError| e.into())
    }

    /// While `read` runs, the census is of these processes alone, with all paths.
    ///
    /// # Errors
    /// The kernel's refusal, or that of `read`.
    pub fn choosing<T>(
        &mut self,
        pids: &[u32],
        read: impl FnOnce(&mut Self) -> Result<T, Box<dyn Error>>,
    ) -> Result<T, Box<dyn Error>> {
        let mut words: BTreeMap<u32, u64> = BTreeMap::new();
        for pid in pids {
            *words.entry(pid / 64).or_default() |= 1 << (pid % 64);
        }
        for (index, word) in &words {
            self.chosen.set(*index, word, 0)?;
        }
        self.set(|s| s.chosen = 1);
        let result = read(self);
        self.set(|s| s.chosen = 0);
        for index in words.keys() {
            self.chosen.set(*index, 0, 0)?;
        }
        result
    }

    /// A pass over the open descriptors of one process.
    ///
    /// # Errors
    /// See [`pass::over`].
    pub fn pass_over(&mut self, pid: u32) -> io::Result<std::fs::File> {
        let iter: &mut Iter = program(&mut self.ebpf, self.census).map_err(io::Error::other)?;
        let loaded = iter.fd().map_err(io::Error::other)?;
        pass::over(loaded.as_fd(), pid)
    }

    /// The next group of paths is to be sent anew.
    pub fn next_path_epoch(&mut self) {
        let group = self.passes % PATH_EPOCHS;
        self.passes = self.passes.wrapping_add(1);
        self.set(|s| s.path_epochs[group] = s.path_epochs[group].wrapping_add(1));
    }

    /// All paths are to be sent anew.
    pub fn forget_paths(&mut self) {
        self.set(|s| s.path_epochs.iter_mut().for_each(|e| *e = e.wrapping_add(1)));
    }

    /// Loads and attaches the task probes, for good.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_tasks(&mut self) -> Result<(), Box<dyn Error>> {
        self.attach(&TASKS)
    }

    /// Of the task probes that of forks alone: what is known of a process that ends is for
    /// the caller to remove from the maps.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attach_forks(&mut self) -> Result<(), Box<dyn Error>> {
        self.attach(&TASKS[..1])
    }

    fn attach(&mut self, probes: &[(&'static str, &str)]) -> Result<(), Box<dyn Error>> {
        for (name, event) in probes {
            let btf = &self.btf;
            let p: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
            p.load(event, btf).map_err(|e| program_error(name, e))?;
        }
        for (name, _) in probes {
            let p: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
            p.attach()?;
        }
        Ok(())
    }

    /// The sets of fd probes whose functions the running kernel has, best first.
    pub fn fd_probes_there(&self) -> Vec<FdProbes> {
        FdProbes::all().filter(|p| p.functions().all(|f| self.functions.contains(f))).collect()
    }

    /// Loads a set of fd probes without attaching them, in the place of another.
    ///
    /// # Errors
    /// The kernel's refusal; then no set is loaded.
    pub fn load_fds(&mut self, probes: FdProbes) -> Result<(), Box<dyn Error>> {
        self.unload_fds();
        for (name, to) in probes.programs() {
            let btf = &self.btf;
            let loaded = match probes {
                FdProbes::Table { .. } => program::<FEntry>(&mut self.ebpf, name)?.load(to, btf),
                FdProbes::Syscall => program::<BtfTracePoint>(&mut self.ebpf, name)?.load(to, btf),
            };
            // So that an error leaves nothing loaded.
            self.fd_probes = Some(probes);
            if let Err(e) = loaded {
                let e = program_error(name, e);
                self.unload_fds();
                return Err(e);
            }
        }
        Ok(())
    }

    fn unload_fds(&mut self) {
        self.detach_fds();
        let Some(probes) = self.fd_probes.take() else { return };
        for (name, _) in probes.programs() {
            // Fails where it was not loaded, which is as well.
            let _ = match probes {
                FdProbes::Table { .. } => {
                    program::<FEntry>(&mut self.ebpf, name).map(|p| drop(p.unload()))
                }
                FdProbes::Syscall => {
                    program::<BtfTracePoint>(&mut self.ebpf, name).map(|p| drop(p.unload()))
                }
            };
        }
    }

    /// Attaches the fd probes that are loaded, releases first, so that none is missed.
    ///
    /// # Errors
    /// The kernel's refusal; then none is attached.
    pub fn attach_fds(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(probes) = self.fd_probes.filter(|_| !self.fds_attached()) else { return Ok(()) };
        match self.link_fds(probes) {
            // Before Linux 5.13 a tracing program attaches once in its life.
            Err(e) if errno(&*e) == Some(libc::ENOENT) => {
                self.load_fds(probes)?;
                self.link_fds(probes)?;
            }
            linked => linked?,
        }
        self.set(|s| s.births = 1);
        Ok(())
    }

    fn link_fds(&mut self, probes: FdProbes) -> Result<(), Box<dyn Error>> {
        let mut links = Vec::new();
        for (name, _) in probes.programs() {
            links.push(match probes {
                FdProbes::Table { .. } => {
                    let p: &mut FEntry = program(&mut self.ebpf, name)?;
                    let id = p.attach()?;
                    FdLink::Table(p.take_link(id)?)
                }
                FdProbes::Syscall => {
                    let p: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
                    let id = p.attach()?;
                    FdLink::Syscall(p.take_link(id)?)
                }
            });
        }
        self.fd_links = links;
        Ok(())
    }

    /// Detaches the fd probes and forgets their births, whose releases would
    /// go unseen.
    pub fn detach_fds(&mut self) {
        if !self.fds_attached() {
            return;
        }
        // Dropping a link detaches; the verified program stays ready.
        self.fd_links.clear();
        self.set(|s| s.births = 0);
        self.births.clear();
    }

    /// The set of fd probes that is loaded.
    pub fn fd_probes(&self) -> Option<FdProbes> {
        self.fd_probes
    }

    /// The fd probes are attached.
    pub fn fds_attached(&self) -> bool {
        !self.fd_links.is_empty()
    }

    /// What the kernel says of each program that is loaded.
    pub fn run_statistics(&self) -> Vec<(String, Runs)> {
        statistics(&self.ebpf)
    }

    /// How often the kernel did not run a program because it was at work on that
    /// CPU already and had been preempted; `None` before Linux 5.12, which keeps no
    /// such counter (`recursion_misses` of `struct bpf_prog_info`).
    pub fn recursion_misses(&self) -> Option<u64> {
        let misses = |(_, program): (&str, &Program)| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let line = text.lines().find_map(|l| l.strip_prefix("recursion_misses:"))?;
            line.trim().parse::<u64>().ok()
        };
        self.ebpf.programs().filter_map(misses).reduce(u64::saturating_add)
    }
}
