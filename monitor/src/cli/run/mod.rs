//! `leakwatch run`: one command and all it starts, until it has ended.
//!
//! [`child`] starts it in a [`group`] of its own, [`trace`] follows its processes, or
//! [`sample`] where the kernel allows no more ([`course`] is what both do), [`openers`] asks
//! the probes who opened what they hold, [`starters`] has the [`stack`] of who started what
//! lives on, [`temporary`] looks at the directories of temporary
//! files, [`findings`] judges what was [`seen`], and [`report`], [`junit`] and [`sarif`]
//! write, to its [`destination`].

mod child;
mod course;
mod destination;
mod findings;
mod group;
mod growth;
mod junit;
mod openers;
mod pace;
mod proc;
mod report;
mod sample;
mod sarif;
mod seen;
mod stack;
mod starters;
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
use super::output;
use crate::text::printable;
use child::{Child, Ended};
use course::Follow;
use destination::Destination;
use findings::{Report, Scope, judge};
use group::Group;
use openers::{Openers, Sites};
use sample::Sample;
use seen::{Left, Seen};
use starters::{Started, Starters};
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
    let openers = if flags.no_probes {
        Err("they were not wanted (--no-probes)".to_owned())
    } else {
        Openers::attach(flags.strict)
    };
    let child = Child::make(&flags.command).map_err(|e| cannot_run(flags, &e))?;
    let (started, begun) = (Timestamp::now(), Instant::now());
    let watched = watch(openers, &child, &temporary, flags.strict)?;
    let Watched { ended, seen, left, sites, started: starters, scope } = watched;
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
        scope,
        processes: seen.processes,
        findings: judge(
            &seen,
            &left,
            &temporary.after(&seen.opened),
            &sites,
            &starters,
            flags.strict,
        ),
        known: 0,
        blind: seen.blind().into_iter().chain(temporary.blind()).collect(),
    };
    if let Some(baseline) = &baseline {
        report.without(baseline);
    }
    let text = match flags.format {
        ReportFormat::Text => {
            let width = destination.is_none().then(output::width_of_stderr).flatten();
            report::text(&report, width)
        }
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

/// What watching the command has shown.
struct Watched {
    ended: Ended,
    seen: Seen,
    left: Vec<Left>,
    sites: Sites,
    started: Started,
    scope: Scope,
}

/// From the first instruction of the command to its end and a little more.
fn watch(
    openers: Result<Openers, String>,
    child: &Child,
    temporary: &Temporary,
    strict: bool,
) -> Result<Watched, Failure> {
    let group = Group::make(child.pid);
    let apart = group.as_ref().ok();
    let mut traced = None;
    let (ended, mut seen, mut left, openers, starters) = match Trace::begin(
        child, temporary, strict,
    ) {
        Ok(mut trace) => {
            trace.with(openers);
            child.release();
            let ended = trace.follow().map_err(Failure::failed)?;
            trace.wait(GRACE, apart);
            let (seen, left, openers, starters) = trace.end();
            traced = Some(trace);
            (ended, seen, left, openers, starters)
        }
        Err(e) => {
            say(&format!(
                "the command cannot be traced: {e}; so it is looked at from time to time only. What \
                 is needed is ptrace(2): in a container allow it by the seccomp profile or with \
                 `--cap-add SYS_PTRACE`, on a host see kernel.yama.ptrace_scope; what strace or a \
                 debugger follows cannot be traced once more"
            ));
            // Their stacks are looked up while the process is stopped at its end.
            drop(openers);
            let mut sample = Sample::begin(child, temporary);
            child.release();
            let ended = sample.follow().map_err(Failure::failed)?;
            sample.wait(GRACE, apart);
            let (seen, left) = sample.end();
            (ended, seen, left, None, Starters::default())
        }
    };
    let scope = match group {
        Ok(group) => {
            // Of no descent that was seen, and there all the same.
            let known: Vec<u32> = left.iter().map(|l| l.pid).collect();
            let members = group.members().into_iter();
            left.extend(members.map(Left::of).filter(|l| !known.contains(&l.pid)));
            seen.without.extend(group.remove().err());
            Scope::Cgroup
        }
        Err(why) => {
            seen.without.push(format!(
                "processes that the command had another one start, without a cgroup of their own \
                 they are known by descent: {why}"
            ));
            Scope::Descent
        }
    };
    left.sort_unstable_by_key(|l| l.pid);
    let mut meanwhile = || {
        // An error says that nobody is left.
        let _ = traced.as_mut().map(Follow::drain);
    };
    let sites = openers.map(|openers| openers.sites(&mut meanwhile)).unwrap_or_default();
    let started = starters.started(meanwhile);
    seen.without.extend(sites.blind.iter().chain(&started.blind).cloned());
    Ok(Watched { ended, seen, left, sites, started, scope })
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
