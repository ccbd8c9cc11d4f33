//! Real programs, all at once under one recorder.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use leakwatch_common::{ProcessEntry, SLOT_OTHER};
use tempfile::TempDir;

use super::label::Label;
use crate::agent::{FAST, binary};
use crate::maps;
use crate::started::{Started, program, python};
use crate::wait::wait_until;

/// For so long after their start: the slowest leaker has leaked all by then, and as long
/// again has passed.
const LENGTH: Duration = Duration::from_secs(50);
/// From when the recorder knows a process: so long that some censuses have seen it.
const SETTLE: Duration = Duration::from_secs(2);

/// Records all of them; gives the trace.
///
/// # Errors
/// A program is missing, or the recorder fails.
pub fn record(cases: &[Label]) -> Result<Vec<u8>> {
    let dir = TempDir::with_prefix("leakwatch-corpus-")?;
    let mut config = FAST.replace("[watch]", "[watch]\nprobes = \"always\"");
    for case in cases {
        let name = &case.name;
        config.push_str(&format!("[[unit]]\nname = \"{name}\"\ncmdline = \"*--tag c-{name} *\"\n"));
        if !case.orphans.is_empty() {
            config.push_str(&format!("orphans = {:?}\n", case.orphans));
        }
    }
    let file = dir.path().join("leakwatch.toml");
    fs::write(&file, config)?;
    let trace = dir.path().join("corpus.trace");
    let mut command = Command::new(binary());
    command.arg("record").arg(&trace).arg("--config").arg(&file);
    let mut recorder = Started::new(&mut command);
    known(&recorder, std::process::id());
    let begun = Instant::now();
    let mut started = Vec::new();
    for case in cases {
        let place = dir.path().join(&case.name);
        fs::create_dir(&place)?;
        // Some want one that is there.
        fs::write(place.join("answer.dat"), "answer")?;
        started.push(start(case, &place.display().to_string())?);
    }
    for (case, program) in cases.iter().zip(&mut started) {
        if case.kill {
            program.ready(LENGTH);
            // It is to be known as the main process.
            known(&recorder, program.pid());
            program.kill();
        }
    }
    std::thread::sleep(LENGTH.saturating_sub(begun.elapsed()));
    recorder.signal(libc::SIGTERM);
    wait_until("the recorder to end", Duration::from_secs(60), || recorder.ended());
    fs::read(&trace).context("the recorder wrote no trace")
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

fn start(case: &Label, dir: &str) -> Result<Started> {
    let run: Vec<String> = case.run.iter().map(|word| word.replace("{dir}", dir)).collect();
    let Some((first, arguments)) = run.split_first() else { bail!("nothing to run") };
    let mut command = if first.ends_with(".py") { python(first) } else { program(first) };
    // Before the others, for the match rule wants something after it.
    command.args(["--tag", &format!("c-{}", case.name)]).args(arguments);
    let mut started = Started::new(command.args(["--end", "1"]));
    if let Some(word) = &case.tell {
        started.tell(word);
    }
    Ok(started)
}
