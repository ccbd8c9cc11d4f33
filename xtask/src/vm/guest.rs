//! The other side: this very program is the init of the VM. It
//! mounts what a Linux has mounted, runs the steps one after the other, says how
//! each ended, and powers off.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::IntoRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::counted;
use super::suites::{self, HOME};
use crate::shell::say;

/// What the kernel's command line says after `--`.
#[derive(Args, Debug)]
pub struct Options {
    /// Count instructions instead of running the suites
    #[arg(long)]
    bench: bool,
    /// One step of them
    #[arg(long)]
    only: Option<String>,
}

/// Begins each line that is meant for the host.
pub const MARK: &str = "@vm ";
/// How long one step may take; the host's limit is for what kills the kernel.
const STEP_LIMIT: Duration = Duration::from_secs(300);
/// What the suites' own limits are multiplied by. To load the programs takes an
/// emulated processor 6 s, and 20 s where the host has other work.
const PATIENCE: &str = "4";

/// What, type, where.
const MOUNTS: [(&str, &str, &str); 9] = [
    ("proc", "proc", "/proc"),
    ("sys", "sysfs", "/sys"),
    ("dev", "devtmpfs", "/dev"),
    ("shm", "tmpfs", "/dev/shm"),
    ("tmp", "tmpfs", "/tmp"),
    ("run", "tmpfs", "/run"),
    ("cgroup2", "cgroup2", "/sys/fs/cgroup"),
    ("bpf", "bpf", "/sys/fs/bpf"),
    ("tracefs", "tracefs", "/sys/kernel/tracing"),
];

/// Runs the steps as PID 1. Returns only when it is not that.
///
/// # Errors
/// It was started by hand.
pub fn run(options: &Options) -> Result<()> {
    if std::process::id() != 1 {
        bail!("this is the init of a VM: `cargo xtask vm` starts it");
    }
    if let Err(error) = prepare() {
        say(&format!("{MARK}broken {error:#}"));
    } else {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let up = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let up = up.split(' ').next().unwrap_or("?");
        say(&format!("{MARK}up {} {up}", kernel.trim()));
        if options.bench {
            counted::run();
        } else if let Err(error) = suites(options.only.as_deref()) {
            say(&format!("{MARK}broken {error:#}"));
        }
        say(&format!("{MARK}done"));
    }
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    Ok(())
}

fn suites(only: Option<&str>) -> Result<()> {
    for step in suites::steps(only)? {
        say(&format!("{MARK}begin {}", step.name));
        let begun = Instant::now();
        let outcome = run_step(&step.file(), step.arguments);
        let word = match outcome {
            Ok(0) => "ok".to_owned(),
            Ok(status) => format!("status-{status}"),
            Err(error) => format!("failed-{error:#}").replace(' ', "-"),
        };
        say(&format!("{MARK}end {} {word} {:.1}", step.name, begun.elapsed().as_secs_f64()));
    }
    Ok(())
}

fn prepare() -> Result<()> {
    for (what, kind, at) in MOUNTS {
        fs::create_dir_all(at).with_context(|| format!("cannot make {at}"))?;
        mount(what, kind, at).with_context(|| format!("cannot mount {kind} on {at}"))?;
    }
    // An initramfs without a console of its own leaves init without streams.
    for number in 0..3 {
        let console = fs::File::options().read(true).write(true).open("/dev/console")?;
        let opened = console.into_raw_fd();
        // SAFETY: both are numbers of this process, which has one thread.
        if opened != number && unsafe { libc::dup2(opened, number) } < 0 {
            bail!("no console: {}", io::Error::last_os_error());
        }
        if opened > 2 {
            // SAFETY: opened above and not needed any more.
            unsafe { libc::close(opened) };
        }
    }
    loopback_up().context("cannot bring the loopback up")?;
    // What a service manager would set; accuracy holds some thousands.
    let limit = libc::rlimit { rlim_cur: 65_536, rlim_max: 524_288 };
    // SAFETY: a valid struct that lives through the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } < 0 {
        bail!("cannot raise the limit of open files: {}", io::Error::last_os_error());
    }
    Ok(())
}

fn mount(what: &str, kind: &str, at: &str) -> Result<()> {
    let (what, kind, at) = (CString::new(what)?, CString::new(kind)?, CString::new(at)?);
    // SAFETY: C strings that live through the call; no data.
    let done =
        unsafe { libc::mount(what.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    if done < 0 {
        bail!("{}", io::Error::last_os_error());
    }
    Ok(())
}

/// SIOCSIFFLAGS with IFF_UP: all that `ip link set lo up` does.
fn loopback_up() -> io::Result<()> {
    // SAFETY: zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: no address is passed.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: the request lives through the call.
    let done = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) };
    let error = io::Error::last_os_error();
    // SAFETY: opened above.
    unsafe { libc::close(socket) };
    if done < 0 { Err(error) } else { Ok(()) }
}

/// The exit status of a step. Init is also who reaps orphans: meanwhile every
/// process that ends is taken in.
fn run_step(file: &str, arguments: &[&str]) -> Result<i32> {
    let home = format!("/{HOME}");
    let mut command = Command::new(format!("{home}/{file}"));
    command.args(arguments).current_dir("/tmp").stdin(Stdio::null()).env_clear();
    command.envs([("PATH", "/bin"), ("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("CI", "true")]);
    command.env("LEAKWATCH_BIN", format!("{home}/leakwatch"));
    command.env("RUST_TEST_THREADS", "1").env("LEAKWATCH_TEST_PATIENCE", PATIENCE);
    let child = command.spawn().with_context(|| format!("cannot start {file}"))?;
    let pid = child.id() as libc::pid_t;
    let begun = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: `status` lives through the call; the handle of std does not wait.
        let ended = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if ended == pid {
            let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
            return Ok(code.unwrap_or_else(|| 128 + libc::WTERMSIG(status)));
        }
        if begun.elapsed() > STEP_LIMIT {
            // SAFETY: everything but init, which is what a step is.
            unsafe { libc::kill(-1, libc::SIGKILL) };
            bail!("not done in {STEP_LIMIT:?}");
        }
        if ended <= 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
