//! Other tools that watch openings and closes, to stand beside the agent.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use crate::shell;

/// Opens and closes per process, as a user would count them by hand.
const COUNTING: &str = "tracepoint:syscalls:sys_enter_open, tracepoint:syscalls:sys_enter_openat, \
     tracepoint:syscalls:sys_enter_dup { @opened[pid] = count(); } \
     tracepoint:syscalls:sys_enter_close { @closed[pid] = count(); }";

/// What a user would write to get what the probes give: how long descriptors live, and
/// which are still open. It sees no io_uring, no SCM_RIGHTS, no exec and no exit.
const PAIRING: &str = "tracepoint:syscalls:sys_exit_open, tracepoint:syscalls:sys_exit_openat, \
     tracepoint:syscalls:sys_exit_openat2, tracepoint:syscalls:sys_exit_creat, \
     tracepoint:syscalls:sys_exit_dup, tracepoint:syscalls:sys_exit_dup2, \
     tracepoint:syscalls:sys_exit_dup3, tracepoint:syscalls:sys_exit_socket, \
     tracepoint:syscalls:sys_exit_accept, tracepoint:syscalls:sys_exit_accept4 \
     /args->ret >= 0/ { @born[pid, args->ret] = nsecs; } \
     tracepoint:syscalls:sys_enter_close /@born[pid, args->fd]/ { \
     @lifetime[comm] = hist(nsecs - @born[pid, args->fd]); delete(@born[pid, args->fd]); }";

/// Says when all probes are in place.
const UP: &str = " interval:s:1 { printf(\"up\\n\"); }";

/// Both tools look for their tracepoints in tracefs. They see it in a mount namespace of
/// their own, so that nothing stays mounted.
const WITH_TRACEFS: &str = "test -d /sys/kernel/tracing/events || \
     mount -t tracefs tracefs /sys/kernel/tracing || exit 1; exec \"$@\"";

/// From its start until it traces, at most.
const ATTACHED_WITHIN: Duration = Duration::from_secs(20);

/// A running tool; it ends with this value.
pub struct Tool {
    child: Child,
    output: Output,
}

/// What must stay open while a tool runs.
enum Output {
    /// bpftrace must not meet a closed pipe when it prints its maps
    Pipe(BufReader<ChildStdout>),
    /// A line for each opening, as when a user keeps them
    File { _kept: NamedTempFile },
}

impl Tool {
    /// bpftrace that counts opens and closes per process.
    ///
    /// # Errors
    /// When it is missing or does not attach.
    pub fn counting() -> Result<Self> {
        Self::bpftrace(COUNTING)
    }

    /// bpftrace that keeps the lifetimes of descriptors.
    ///
    /// # Errors
    /// As above.
    pub fn pairing() -> Result<Self> {
        Self::bpftrace(PAIRING)
    }

    fn bpftrace(script: &str) -> Result<Self> {
        let mut child = with_tracefs(&shell::need("bpftrace")?)?
            .args(["-B", "line", "-e", &format!("{script}{UP}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start bpftrace")?;
        let stdout = child.stdout.take().context("bpftrace has no stdout")?;
        let mut tool = Self { child, output: Output::Pipe(BufReader::new(stdout)) };
        let Output::Pipe(stdout) = &mut tool.output else { return Ok(tool) };
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line)? == 0 {
                bail!("bpftrace ended: {}", said(&mut tool.child));
            }
            if line.trim() == "up" {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        Ok(tool)
    }

    /// opensnoop: a line for each opening of the host.
    ///
    /// # Errors
    /// When it is missing or sees no opening within a while.
    pub fn opensnoop() -> Result<Self> {
        let program = opensnoop().context("opensnoop is missing: install libbpf-tools")?;
        let kept = NamedTempFile::new().context("cannot make a file for its lines")?;
        let child = with_tracefs(&program)?
            .stdout(kept.reopen()?)
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start opensnoop")?;
        let path = kept.path().to_owned();
        let mut tool = Self { child, output: Output::File { _kept: kept } };
        let asked = Instant::now();
        // It says no word when it is ready, and keeps lines back until some KiB are full.
        while !sees(&path)? {
            if tool.child.try_wait()?.is_some() {
                bail!("opensnoop ended: {}", said(&mut tool.child));
            }
            if asked.elapsed() > ATTACHED_WITHIN {
                bail!("opensnoop saw no opening within {ATTACHED_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(tool)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one of libbpf-tools, else bcc's of the same name.
pub fn opensnoop() -> Option<PathBuf> {
    shell::which("opensnoop").or_else(|| shell::which("opensnoop-bpfcc"))
}

/// Opens what nobody else would, some KiB of lines, and looks for it.
fn sees(lines: &Path) -> Result<bool> {
    const SIGN: &str = "/nonexistent/leakwatch-bench-asks-whether-this-is-seen";
    for _ in 0..64 {
        let _ = fs::File::open(SIGN);
    }
    let lines = fs::read(lines).context("cannot read the lines of opensnoop")?;
    Ok(String::from_utf8_lossy(&lines).contains(SIGN))
}

/// A program that finds tracefs, and dies with the bench.
fn with_tracefs(program: &Path) -> Result<Command> {
    let mut command = Command::new(shell::need("setpriv")?);
    command.args(["--pdeathsig", "KILL"]).arg(shell::need("unshare")?);
    command.args(["--mount", "--", "sh", "-c", WITH_TRACEFS, "sh"]).arg(program);
    command.stdin(Stdio::null());
    Ok(command)
}

/// The complaint of one that has ended.
fn said(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
    }
    // bpftrace warns of the limit of locked memory, which recent kernels ignore.
    let lines = text.lines().filter(|line| !line.contains("RLIMIT_MEMLOCK"));
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}
