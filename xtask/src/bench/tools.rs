//! Other tools that count opens and closes, to stand beside the agent.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Opens and closes per process, as a user would count them by hand. The interval
/// says when all probes are in place.
const SCRIPT: &str = "tracepoint:syscalls:sys_enter_open, tracepoint:syscalls:sys_enter_openat, \
     tracepoint:syscalls:sys_enter_dup { @opened[pid] = count(); } \
     tracepoint:syscalls:sys_enter_close { @closed[pid] = count(); } \
     interval:s:1 { printf(\"up\\n\"); }";

/// A running bpftrace; it ends with this value.
pub struct Bpftrace {
    child: Child,
    // bpftrace must not meet a closed pipe when it prints its maps.
    _stdout: BufReader<ChildStdout>,
}

impl Bpftrace {
    /// Starts it and waits until its probes are in place. It sees tracefs in a
    /// mount namespace of its own: nothing stays mounted.
    ///
    /// # Errors
    /// When it is missing or does not attach.
    pub fn start() -> Result<Self> {
        let bpftrace = shell::need("bpftrace")?;
        let mut child = Command::new(shell::need("unshare")?)
            .args(["--mount", "--", "sh", "-c"])
            .arg(
                "test -d /sys/kernel/tracing/events || \
                 mount -t tracefs tracefs /sys/kernel/tracing || exit 1; \
                 exec \"$0\" -B line -e \"$1\"",
            )
            .arg(bpftrace)
            .arg(SCRIPT)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start bpftrace")?;
        let stdout = child.stdout.take().context("bpftrace has no stdout")?;
        let mut stdout = BufReader::new(stdout);
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line)? == 0 {
                let output = child.wait_with_output()?;
                bail!("bpftrace ended: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            if line.trim() == "up" {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        Ok(Self { child, _stdout: stdout })
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
