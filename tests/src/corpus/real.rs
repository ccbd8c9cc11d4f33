//! Real programs, and real servers with what talks to them, all at once under one recorder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use leakwatch_common::{ProcessEntry, SLOT_OTHER};
use tempfile::TempDir;

use super::label::{Judged, Label};
use super::server::{self, Server};
use crate::agent::{FAST, binary};
use crate::maps;
use crate::started::{Started, program, python};
use crate::wait::wait_until;

/// For so long after their start: the slowest leaker has leaked all by then, and as long
/// again has passed.
const LENGTH: Duration = Duration::from_secs(50);
/// The same where all talk to servers: the slowest leaks for 20 s.
const LENGTH_OF_SERVERS: Duration = Duration::from_secs(40);
/// From when the last client of a server has done its work, however slow the machine is.
const AFTERWARDS: Duration = Duration::from_secs(10);
/// From when the recorder knows a process: so long that some censuses have seen it.
const SETTLE: Duration = Duration::from_secs(2);

/// Records all of them; gives the trace.
///
/// # Errors
/// A program is missing, or the recorder fails.
pub fn record(cases: &[Label]) -> Result<Vec<u8>> {
    let top = TempDir::with_prefix("leakwatch-corpus-")?;
    // PostgreSQL is somebody else, and wants to pass.
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o711))?;
    let places = places(cases, top.path())?;
    let file = top.path().join("leakwatch.toml");
    fs::write(&file, config(cases, &places))?;
    let trace = top.path().join("corpus.trace");
    let mut command = Command::new(binary());
    command.arg("record").arg(&trace).arg("--config").arg(&file);
    let mut recorder = Started::new(&mut command);
    known(&recorder, std::process::id());
    let begun = Instant::now();
    // Ended last: clients complain of a server that has gone.
    let mut servers = Vec::new();
    let mut started = Vec::new();
    for (case, place) in cases.iter().zip(&places) {
        let server = (!case.server.is_empty()).then(|| Server::start(case, place)).transpose()?;
        started.push(start(case, place, server.as_ref())?);
        servers.push(server);
    }
    for (case, program) in cases.iter().zip(&mut started) {
        if case.kill {
            program.ready(LENGTH);
            // It is to be known as the main process.
            known(&recorder, program.pid());
            program.kill();
        }
    }
    let mut end = begun + LENGTH;
    if servers.iter().all(Option::is_some) {
        // Each is ready after its last leak, which on a busy machine may be late.
        started.iter_mut().for_each(|client| client.ready(3 * LENGTH));
        end = (begun + LENGTH_OF_SERVERS).max(Instant::now() + AFTERWARDS);
    }
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    for (case, client) in cases.iter().zip(&mut started) {
        if !case.kill && client.ended().is_some() {
            bail!("{}: its program has ended before its time", case.name);
        }
    }
    recorder.signal(libc::SIGTERM);
    wait_until("the recorder to end", Duration::from_secs(60), || recorder.ended());
    fs::read(&trace).context("the recorder wrote no trace")
}

/// A directory for each, with what its server wants to find.
fn places(cases: &[Label], top: &Path) -> Result<Vec<PathBuf>> {
    let mut places = Vec::new();
    for case in cases {
        let place = top.join(&case.name);
        fs::create_dir(&place)?;
        // Some want one that is there.
        fs::write(place.join("answer.dat"), "answer")?;
        server::prepare(case, &place, top)?;
        places.push(place);
    }
    Ok(places)
}

/// Windows of a second, and a match rule for each. Programs of the tests leak a dozen of
/// what they leak; with servers enough comes together for a share as it is by default.
fn config(cases: &[Label], places: &[PathBuf]) -> String {
    let mut config = FAST.replace("[watch]", "[watch]\nprobes = \"always\"");
    if cases.iter().all(|case| !case.server.is_empty()) {
        config = config.replace("min_share = 0\n", "");
    }
    for (case, place) in cases.iter().zip(places) {
        let (name, rule) = (&case.name, server::rule(case, place));
        config.push_str(&format!("[[unit]]\nname = \"{name}\"\ncmdline = \"{rule}\"\n"));
        if let Some(runtime) = &case.tasks {
            config.push_str(&format!("tasks = {runtime:?}\n"));
        }
        if !case.orphans.is_empty() {
            config.push_str(&format!("orphans = {:?}\n", case.orphans));
        }
    }
    config
}

/// Waits until the recorder has seen a process, and on. A child has its parent's slot
/// until then.
fn known(recorder: &Started, pid: u32) {
    let slot = |pid: u32| {
        let entry = maps::value::<u32, ProcessEntry>(recorder.pid(), "PROCESSES", &pid);
        entry.map_or(SLOT_OTHER, |e| e.slot)
    };
    let parents = if pid == std::process::id() { SLOT_OTHER } else { slot(std::process::id()) };
    wait_until("the recorder to know a process", Duration::from_secs(60), || {
        let own = slot(pid);
        (own != SLOT_OTHER && own != parents).then_some(())
    });
    std::thread::sleep(SETTLE);
}

fn start(case: &Label, place: &Path, server: Option<&Server>) -> Result<Started> {
    let dir = place.display().to_string();
    let word = |word: &String| {
        let word = word.replace("{dir}", &dir);
        let Some(server) = server else { return word };
        word.replace("{server}", server.address()).replace("{pid}", &server.pid().to_string())
    };
    let run: Vec<String> = case.run.iter().map(word).collect();
    let Some((first, arguments)) = run.split_first() else { bail!("nothing to run") };
    let mut command = if first.ends_with(".py") { python(first) } else { program(first) };
    if server.is_some() {
        server::bound(&mut command, case.limit);
    }
    if case.judged != Some(Judged::Server) {
        // Before the others, for the match rule wants something after it.
        command.args(["--tag", &server::tag(case)]);
    }
    let mut started = Started::new(command.args(arguments).args(["--end", "1"]));
    if let Some(word) = &case.tell {
        started.tell(word);
    }
    Ok(started)
}
