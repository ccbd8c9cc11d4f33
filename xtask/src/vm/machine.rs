//! One boot: qemu with software emulation under a hard limit of time.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::arch::Arch;
use super::kernel::Kernel;
use crate::shell::{self, say};
use crate::workspace;

/// What a machine said and how it ended.
pub struct Console {
    /// Everything, with plain line ends.
    pub text: String,
    /// The limit came first.
    pub timed_out: bool,
    /// How long it ran.
    pub took: Duration,
    /// Where the text is kept.
    pub file: PathBuf,
}

/// How a machine runs.
pub struct Shape<'a> {
    /// What it is.
    pub arch: Arch,
    /// `-accel` and what else the emulator wants to be told.
    pub emulation: &'a [&'a str],
    /// Words for init.
    pub words: &'a [&'a str],
    /// Of the file that keeps the console.
    pub suffix: &'a str,
}

/// Two processors, run by two threads: races are races.
pub const PARALLEL: [&str; 4] = ["-accel", "tcg,thread=multi", "-smp", "2"];

/// One processor whose clock advances by a nanosecond per instruction: figures
/// repeat however busy the host is.
pub const COUNTED: [&str; 6] =
    ["-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,sleep=off"];

/// At a time at most: each keeps about one processor busy.
const AT_A_TIME: usize = 2;

/// Boots all of `kernels` and gives what `read` makes of each console, in their order.
///
/// # Errors
/// qemu cannot be started.
pub fn each<T: Send>(
    kernels: Vec<Kernel>,
    initramfs: &Path,
    shape: &Shape,
    read: impl Fn(&Kernel, &Console) -> T + Sync,
) -> Result<Vec<T>> {
    let count = kernels.len();
    let waiting = Mutex::new(kernels.into_iter().enumerate());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<Vec<(usize, T)>> {
        let mut done = Vec::new();
        while let Some((at, kernel)) = next() {
            say(&format!("vm: {} ({}) boots", kernel.line, kernel.package));
            let console = boot(&kernel, initramfs, shape)?;
            say(&format!("vm: {} took {:.1} s", kernel.line, console.took.as_secs_f64()));
            done.push((at, read(&kernel, &console)));
        }
        Ok(done)
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut all = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..processors.clamp(1, AT_A_TIME)).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::with_capacity(count);
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a thread of this program panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, read)| read).collect())
}

/// Boots `kernel` with `initramfs` and waits for its end.
fn boot(kernel: &Kernel, initramfs: &Path, shape: &Shape) -> Result<Console> {
    let logs = workspace::target().join("vm/logs");
    fs::create_dir_all(&logs)?;
    let file = logs.join(format!("{}{}.log", kernel.line, shape.suffix));
    let (console, words) = (shape.arch.console(), shape.words.join(" "));
    let append = format!("console={console} panic=-1 quiet mitigations=off -- {words}");
    let mut qemu = Command::new(shell::need(shape.arch.emulator())?);
    qemu.args(shape.emulation).args(shape.arch.machine());
    qemu.args(["-m", "1G", "-nographic", "-no-reboot", "-nodefaults"]);
    qemu.args(["-serial", "stdio", "-kernel"]).arg(&kernel.image);
    qemu.arg("-initrd").arg(initramfs).args(["-append", &append]);
    qemu.stdin(Stdio::null()).stdout(File::create(&file)?);
    qemu.stderr(File::options().append(true).open(&file)?);
    // SAFETY: no addresses are passed.
    let end_with_us = || match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: prctl is async-signal-safe. An interrupted run must not leave an
    // emulator behind that nobody limits. The thread that starts it waits for it.
    unsafe { qemu.pre_exec(end_with_us) };
    let begun = Instant::now();
    let mut child = Running(qemu.spawn().context("cannot start qemu")?);
    let timed_out = loop {
        if child.0.try_wait()?.is_some() {
            break false;
        }
        if begun.elapsed() > shape.arch.limit() {
            break true;
        }
        thread::sleep(Duration::from_millis(50));
    };
    drop(child);
    let mut bytes = Vec::new();
    File::open(&file)?.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    File::create(&file)?.write_all(text.as_bytes())?;
    Ok(Console { text, timed_out, took: begun.elapsed(), file })
}

/// Killed when dropped: whatever goes wrong here, no emulator is left behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
