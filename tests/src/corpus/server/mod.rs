//! Real servers: each in a directory of its own, on loopback or a Unix socket, ended
//! with all that it started.

pub mod nginx;
mod postgres;
mod redis;
mod scripted;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::label::{Judged, Label};
use crate::procfs;
use crate::started::Started;
use crate::wait::{SOON, patience};

/// A port that was free may be taken by somebody else before the server has it.
const TRIES: u32 = 5;

/// How a server is started.
struct Plan {
    command: Command,
    /// Where it will listen; what it says itself where this is empty.
    address: String,
    /// The signal that ends it with its children.
    stop: i32,
    /// Whether it answers at an address.
    answers: fn(&str) -> bool,
}

/// Words that a label may begin `server` with, and the programs they stand for. Besides,
/// a file of `tests/python` or `tests/node`.
const KINDS: [(&str, &[&str]); 3] =
    [("nginx", &["nginx"]), ("redis", &["redis-server"]), ("postgres", &["postgres", "initdb"])];

/// Whether a label may name it.
pub fn known(word: &str) -> bool {
    KINDS.iter().any(|(kind, _)| *kind == word) || scripted::is(word)
}

/// A program that these cases start and this machine lacks.
pub fn missing(cases: &[Label]) -> Option<&'static str> {
    let words = cases.iter().filter_map(|c| c.server.first());
    let programs = words.flat_map(|word| match KINDS.iter().find(|(kind, _)| kind == word) {
        Some((_, programs)) => *programs,
        None => scripted::needs(word),
    });
    programs.copied().find(|name| find(name).is_err())
}

/// The command lines of the case's unit, as a glob.
pub fn rule(case: &Label, dir: &Path) -> String {
    let dir = dir.display();
    match (case.judged, case.server.first().map(String::as_str)) {
        // These keep their arguments, or show them in their titles.
        (Some(Judged::Server), Some("nginx")) => format!("*nginx* -p {dir}/ *"),
        (Some(Judged::Server), Some("redis")) => format!("*redis-server {dir}/redis.conf*"),
        (Some(Judged::Server), Some("postgres")) => format!("*postgres -D {dir}/data *"),
        _ => format!("*--tag {} *", tag(case)),
    }
}

/// What the programs of this clone are told apart by.
pub fn tag(case: &Label) -> String {
    format!("c-{}", case.name)
}

/// Writes what the case's server wants to find. `shared` is one directory for all.
///
/// # Errors
/// It cannot be written.
pub fn prepare(case: &Label, dir: &Path, shared: &Path) -> Result<()> {
    match case.server.first().map(String::as_str) {
        Some("nginx") => nginx::prepare(dir),
        Some("postgres") => postgres::prepare(dir, shared),
        _ => Ok(()),
    }
}

/// A running server; ended when dropped, and its children with it.
pub struct Server {
    process: Started,
    address: String,
    stop: i32,
}

impl Server {
    /// Starts that of the case, and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not.
    pub fn start(case: &Label, dir: &Path) -> Result<Self> {
        let mut said = String::new();
        for _ in 0..TRIES {
            let plan = match case.server.first().map(String::as_str) {
                Some("nginx") => nginx::plan(dir),
                Some("redis") => redis::plan(case, dir),
                Some("postgres") => postgres::plan(dir),
                _ => scripted::plan(case, dir),
            }?;
            let errors = dir.join("server.txt");
            let started = Self::launch(plan, case.limit, &errors)?;
            if let Some(server) = started {
                return Ok(server);
            }
            said = fs::read_to_string(&errors).unwrap_or_default();
        }
        bail!("the server of {} ends at once: {said}", case.name)
    }

    /// `None` where it ends before it answers.
    fn launch(mut plan: Plan, limit: u64, errors: &Path) -> Result<Option<Self>> {
        plan.command.stderr(File::create(errors)?);
        bound(&mut plan.command, limit);
        follow_to_the_grave(&mut plan.command, plan.stop);
        let process = Started::new(&mut plan.command);
        let mut server = Self { process, address: plan.address, stop: plan.stop };
        if server.address.is_empty() {
            server.address = server.process.hear("ready", SOON);
        }
        let begun = Instant::now();
        while !(plan.answers)(&server.address) {
            if server.process.ended().is_some() {
                return Ok(None);
            }
            if begun.elapsed() > SOON * 3 * patience() {
                let said = fs::read_to_string(errors).unwrap_or_default();
                bail!("{} does not answer: {said}", server.process.name());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(server))
    }

    /// Where it listens: `unix:PATH` or `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let children: Vec<OwnedFd> = procfs::children_of(self.pid())
            .into_iter()
            .filter_map(|pid| pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok())
            .collect();
        if self.process.ended().is_none() {
            self.process.signal(self.stop);
            let begun = Instant::now();
            while self.process.ended().is_none() && begun.elapsed() < SOON * patience() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.process.kill();
        // They have ended by now, unless the server had no time for it.
        for child in children {
            let _ = pidfd_send_signal(&child, Signal::KILL);
        }
    }
}

/// Both limits, for some servers raise the soft one to the hard one.
pub fn bound(command: &mut Command, limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: one system call, whose argument lives as long as the closure.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
}

/// Has the kernel end it if this thread ends, however it does: see prctl(2).
fn follow_to_the_grave(command: &mut Command, signal: i32) {
    // SAFETY: one system call, without an address.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, signal) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
}

/// A program on the search path, in `sbin`, or where Debian keeps those of PostgreSQL.
fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|e| e.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .chain(versions.into_iter().rev())
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is missing: `cargo xtask setup` installs it"))
}
