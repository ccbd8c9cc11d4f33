//! `leakwatch run`: one command and all it starts, until it has ended.
//!
//! [`child`] starts it, [`trace`] follows its processes, or [`sample`] where the kernel
//! allows no more, [`temporary`] looks at the directories of temporary files, [`findings`]
//! judges what was [`seen`], and [`report`], [`junit`] and [`sarif`] write, to its
//! [`destination`].

mod child;
mod destination;
mod findings;
mod growth;
mod junit;
mod pace;
mod proc;
mod report;
mod sample;
mod sarif;
mod seen;
mod temporary;
mod trace;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::failure::{Failure, say};
use super::flags::{ReportFormat, RunFlags};
use crate::text::printable;
use child::{Child, Ended};
use destination::Destination;
use findings::{Report, judge};
use sample::Sample;
use seen::{Left, Seen};
use temporary::Temporary;
use trace::Trace;

/// Status of a command that succeeded and leaked, under `--fail-on-leak`.
const LEAKED: u8 = 3;
/// Bytes of a baseline, at most.
const LARGEST: u64 = 64 << 20;
/// What is about to end after the command, as the other end of a pipe is, has so long.
const GRACE: Duration = Duration::from_millis(500);

/// Runs the command; the status is its own, or [`LEAKED`].
pub(super) fn run(flags: &RunFlags) -> Result<ExitCode, Failure> {
    own_proc()?;
    let baseline = flags.baseline.as_deref().map(read_baseline).transpose()?;
    // Before the command starts: what cannot be written is said at once.
    let open = |path| Destination::open(path, flags.baseline.as_deref());
    let destination = flags.report.as_deref().map(open).transpose()?;
    let temporary = Temporary::before();
    let child = Child::make(&flags.command).map_err(|e| cannot_run(flags, &e))?;
    let (started, begun) = (Timestamp::now(), Instant::now());
    let (ended, seen, left) = watch(&child, &temporary)?;
    let seconds = begun.elapsed().as_secs_f64();
    // From here on who wants leakwatch to end need not wait for it.
    child.unblock();
    if let Some(e) = child.refused() {
        say(&cannot_run(flags, &e).to_string());
        destination.into_iter().for_each(Destination::discard);
        // As shells and env(1) say it.
        let missing = e.kind() == io::ErrorKind::NotFound;
        return Ok(ExitCode::from(if missing { 127 } else { 126 }));
    }
    let mut report = Report {
        command: flags.command.iter().map(|a| printable(a.as_bytes())).collect(),
        status: ended.status(),
        started,
        seconds,
        processes: seen.processes,
        findings: judge(&seen, &left, &temporary.after(&seen.opened), flags.strict),
        known: 0,
        blind: seen.blind().into_iter().chain(temporary.blind()).collect(),
    };
    if let Some(baseline) = &baseline {
        report.without(baseline);
    }
    let text = match flags.format {
        ReportFormat::Text => report::text(&report),
        ReportFormat::Json => report::pretty(&report)?,
        ReportFormat::Junit => junit::junit(&report),
        ReportFormat::Sarif => sarif::sarif(&report)?,
    };
    let written = match destination {
        Some(destination) => destination.write(&text),
        None => match io::stderr().lock().write_all(text.as_bytes()) {
            // Who has closed it does not want it.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::Failed(format!("the report cannot be written to stderr: {e}")))
            }
            _ => Ok(()),
        },
    };
    match (ended, written) {
        (Ended::Exited(0), Err(failure)) => Err(failure),
        (Ended::Exited(0), Ok(())) if flags.fail_on_leak && report.leaked() => {
            Ok(ExitCode::from(LEAKED))
        }
        (ended, written) => {
            if let Err(failure) = written {
                say(&failure.to_string());
            }
            ended.follow();
            Ok(ExitCode::from(ended.status()))
        }
    }
}

/// From the first instruction of the command to its end and a little more.
fn watch(child: &Child, temporary: &Temporary) -> Result<(Ended, Seen, Vec<Left>), Failure> {
    match Trace::begin(child, temporary) {
        Ok(mut trace) => {
            child.release();
            let ended = trace.follow().map_err(Failure::failed)?;
            let (seen, left) = trace.settle(GRACE);
            Ok((ended, seen, left))
        }
        Err(e) => {
            say(&format!(
                "the command cannot be traced: {e}; so it is looked at from time to time only. What \
                 is needed is ptrace(2): in a container allow it by the seccomp profile or with \
                 `--cap-add SYS_PTRACE`, on a host see kernel.yama.ptrace_scope; what strace or a \
                 debugger follows cannot be traced once more"
            ));
            let mut sample = Sample::begin(child, temporary);
            child.release();
            let ended = sample.follow().map_err(Failure::failed)?;
            let (seen, left) = sample.settle(GRACE);
            Ok((ended, seen, left))
        }
    }
}

fn cannot_run(flags: &RunFlags, why: &io::Error) -> Failure {
    Failure::Failed(format!("{}: {why}", printable(flags.command[0].as_bytes())))
}

/// Else other processes would be judged, of the same numbers.
fn own_proc() -> Result<(), Failure> {
    let own = std::process::id().to_string();
    match fs::read_link("/proc/self") {
        Ok(link) if *link != *own => Err(Failure::Failed(
            "/proc is that of another pid namespace; mount this one's (`unshare --mount-proc`)"
                .to_owned(),
        )),
        // Without /proc it is said what is not seen.
        _ => Ok(()),
    }
}

fn read_baseline(path: &Path) -> Result<Report, Failure> {
    let refused = |why: &dyn std::fmt::Display| {
        Failure::Failed(format!(
            "{}: {why}; a baseline is a report that `leakwatch run --format json` has written",
            path.display()
        ))
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(|e| refused(&e))?;
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(|e| refused(&e))?;
    if text.len() as u64 > LARGEST {
        return Err(refused(&"it is larger than 64 MiB"));
    }
    serde_json::from_slice(&text).map_err(|e| refused(&e))
}
