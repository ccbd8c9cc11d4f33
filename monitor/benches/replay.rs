//! How much faster than real time a trace is replayed at 10,000 descriptors: one
//! JSON line. `cargo bench --bench replay`
//!
//! An hour of censuses of a busy host: of its descriptors a tenth is written to and
//! a hundredth is closed and another opened between two censuses, processes come and
//! go, one service leaks.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use leakwatch::config::Config;
use leakwatch::pipeline::trace::{Format, Header, Reader, Teller, Writer, replay};
use leakwatch::source::model::{
    BootId, Depth, FdKind, FdSample, FdTable, KernelStr, Observation, ProcessId, ProcessSample,
    SourceFigures, TaskEvent,
};
use leakwatch::time::{Boottime, ClockPair};

const PROCESSES: u32 = 200;
const FDS: u32 = 50;
const LOOKS: u64 = 720;
const INTERVAL: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (trace, fds) = trace()?;
    let mut ratios = Vec::new();
    let mut confirmed = 0;
    let before = cpu();
    for _ in 0..ROUNDS {
        let mut out = Vec::new();
        let mut teller = Teller::new(&mut out, Format::Text);
        let (replayed, result) = replay(Reader::new(trace.as_slice())?, None, &mut teller);
        result?;
        confirmed = teller.confirmed();
        ratios.push(replayed.span.as_secs_f64() / replayed.took.as_secs_f64());
    }
    let cpu = (cpu() - before).as_secs_f64() * 1e3 / (ROUNDS as f64 * LOOKS as f64);
    ratios.sort_by(f64::total_cmp);
    let line = serde_json::json!({
        "bench": "replay",
        "descriptors": fds,
        "censuses": LOOKS,
        "bytes": trace.len(),
        "confirmed": confirmed,
        "cpu_ms_per_census": cpu,
        "times_real_time": ratios[ROUNDS / 2],
    });
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// Processor time of this process, which other work on the machine does not lengthen.
fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

/// The trace, and how many descriptors its last census has.
fn trace() -> Result<(Vec<u8>, u64), Box<dyn std::error::Error>> {
    let mut numbers = Numbers(1);
    let mut host: Vec<ProcessSample> = (0..PROCESSES).map(process).collect();
    let mut writer = Writer::new(Vec::new(), &Header::new(BootId(1), clock(0).wall))?;
    writer.config(&Config::default())?;
    for look in 0..LOOKS {
        for p in &mut host {
            step(p, look, &mut numbers);
        }
        let at = clock(look);
        let short = (host[0].id, process(PROCESSES + look as u32).id);
        let comm = KernelStr::from("sh");
        let fork = TaskEvent::Fork { at: at.boot, parent: short.0, child: short.1, comm };
        let exit = TaskEvent::Exit { at: at.boot, id: short.1, status: 0 };
        writer.tasks(&[fork, exit])?;
        writer.look(&observation(at, &host), at)?;
    }
    let fds = host.iter().filter_map(|p| p.fds.len()).map(u64::from).sum();
    Ok((writer.end("the bench is over")?.0, fds))
}

/// What happens in a process between two censuses.
fn step(p: &mut ProcessSample, look: u64, numbers: &mut Numbers) {
    let pid = p.id.pid;
    let FdTable::Full(fds) = &mut p.fds else { return };
    for f in fds.iter_mut() {
        match numbers.below(100) {
            0 if f.fd < 3 + FDS => *f = descriptor(pid, f.fd, numbers.below(1 << 40)),
            1..=10 if f.fd < 3 + FDS => (f.position, f.size) = (f.position + 100, f.size + 100),
            _ => {}
        }
    }
    if pid == 100 && look.is_multiple_of(6) {
        let fd = fds.len() as u32 + 3;
        fds.push(FdSample {
            path: format!("/srv/app/job-{look}.log").as_str().into(),
            ..descriptor(pid, fd, 1 << 41 | look)
        });
    }
}

fn process(n: u32) -> ProcessSample {
    let pid = 100 + n;
    ProcessSample {
        id: ProcessId { boot: BootId(1), pid, start_ticks: u64::from(n) },
        ppid: 1,
        comm: "app".into(),
        exe: Some("/usr/bin/app".into()),
        exe_file: None,
        cmdline: format!("/usr/bin/app --number {n}").as_str().into(),
        uid: Some(0),
        cgroup: format!("/system.slice/app-{}.service", n / 4).as_str().into(),
        zombie: false,
        threads: 4,
        old_threads: None,
        max_fds: Some(1024),
        fds: FdTable::Full((3..3 + FDS).map(|fd| descriptor(pid, fd, fd.into())).collect()),
    }
}

/// A file, a socket or a pipe.
fn descriptor(pid: u32, fd: u32, salt: u64) -> FdSample {
    let file = u64::from(pid) << 48 | salt;
    let (kind, path) = match fd % 4 {
        0 => (FdKind::Socket, format!("socket:[{salt}]")),
        1 => (FdKind::Pipe, format!("pipe:[{salt}]")),
        2 => (FdKind::Regular, format!("/var/lib/app/{pid}/data-{salt}.db")),
        _ => (FdKind::Regular, format!("/var/log/app/{pid}-{fd}.log")),
    };
    FdSample {
        fd,
        file,
        kind,
        device: 8 << 20,
        inode: salt,
        flags: 0o2001,
        nlink: 1,
        position: 0,
        size: 4096,
        disk_bytes: 4096,
        path: path.as_str().into(),
        socket: None,
        birth: None,
    }
}

fn observation(at: ClockPair, host: &[ProcessSample]) -> Observation {
    Observation {
        began: at.boot - Duration::from_millis(20),
        at,
        depth: Depth::Whole,
        countable: true,
        processes: host.to_vec(),
        fd_probes: false,
        task_probes: true,
        flows: Some(BTreeMap::new()),
        openers: Vec::new(),
        stacks: BTreeMap::new(),
        pids_max: BTreeMap::new(),
        systemd: BTreeMap::new(),
        async_tasks: BTreeMap::new(),
        sources: Vec::new(),
        figures: SourceFigures::default(),
    }
}

fn clock(look: u64) -> ClockPair {
    let since = INTERVAL * (look as u32 + 1);
    ClockPair { boot: Boottime(0) + since, wall: jiff::Timestamp::UNIX_EPOCH + since }
}

/// xorshift64*: the same numbers on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) % end
    }
}
