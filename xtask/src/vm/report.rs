//! What the console of a machine says about the kernel.

use std::time::Duration;

use serde_json::Value;

use super::guest::MARK;
use super::machine::Console;

/// How one step ended.
#[derive(Clone, Debug, PartialEq)]
pub struct StepResult {
    /// Its name.
    pub name: String,
    /// It passed.
    pub ok: bool,
    /// `ok`, or the status.
    pub word: String,
    /// Seconds.
    pub seconds: f64,
    /// What it printed.
    pub said: String,
}

/// One kernel's outcome.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `6.12.118+deb13-cloud-amd64`; empty where it did not come up.
    pub release: String,
    /// Seconds until init ran, by the guest's clock.
    pub up_seconds: f64,
    /// Steps in the order they ran.
    pub steps: Vec<StepResult>,
    /// So many were to run.
    pub wanted: usize,
    /// What is wrong with the boot itself.
    pub trouble: Option<String>,
    /// All of it.
    pub took: Duration,
}

impl Outcome {
    /// Reads a console. An emulator exits with 0 when the guest panics, so only
    /// the last mark counts.
    pub fn read(console: &Console, wanted: usize) -> Self {
        let mut outcome = Self {
            release: String::new(),
            up_seconds: 0.0,
            steps: Vec::new(),
            wanted,
            trouble: None,
            took: console.took,
        };
        let (mut done, mut said) = (false, String::new());
        for line in console.text.lines() {
            // Firmware leaves what it likes before the first line of ours.
            let Some((_, mark)) = line.split_once(MARK) else {
                said.push_str(line);
                said.push('\n');
                continue;
            };
            let words: Vec<&str> = mark.split(' ').collect();
            match words.as_slice() {
                ["up", release, seconds] => {
                    outcome.release = (*release).to_owned();
                    outcome.up_seconds = seconds.parse().unwrap_or(0.0);
                }
                ["begin", _] => said.clear(),
                ["end", name, word, seconds] => outcome.steps.push(StepResult {
                    name: (*name).to_owned(),
                    ok: *word == "ok",
                    word: (*word).to_owned(),
                    seconds: seconds.parse().unwrap_or(0.0),
                    said: std::mem::take(&mut said),
                }),
                ["done"] => done = true,
                _ => outcome.trouble = Some(mark.to_owned()),
            }
        }
        if outcome.trouble.is_none() && !done {
            let how = if console.timed_out { "did not end in time" } else { "ended too early" };
            let last = outcome.steps.last().map_or("its start", |step| step.name.as_str());
            outcome.trouble = Some(format!("the machine {how}, after {last}"));
        }
        outcome
    }

    /// Everything ran and passed.
    pub fn passed(&self) -> bool {
        self.trouble.is_none()
            && self.steps.len() == self.wanted
            && self.steps.iter().all(|step| step.ok)
    }

    /// The result of one step.
    pub fn step(&self, name: &str) -> Option<&StepResult> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// What `doctor --json` said in there.
    pub fn doctor(&self) -> Option<Value> {
        let said = &self.step("doctor")?.said;
        serde_json::from_str(said.get(said.find('{')?..=said.rfind('}')?)?).ok()
    }

    /// What a suite could not try on this kernel, in its own words.
    pub fn refused(&self) -> Vec<String> {
        let lines = self.steps.iter().flat_map(|step| step.said.lines());
        lines.filter_map(|line| Some(line.split_once("SKIPPED: ")?.1.to_owned())).collect()
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::suites::STEPS;

    fn read(text: &str, timed_out: bool) -> Outcome {
        let (took, file) = (Duration::from_secs(1), "x".into());
        let console = Console { text: text.to_owned(), timed_out, took, file };
        Outcome::read(&console, STEPS.len())
    }

    fn whole() -> String {
        let mut text = "BIOS\x1b@vm up 6.1.0-1 3.21\n".to_owned();
        for step in &STEPS {
            text +=
                &format!("@vm begin {0}\nSKIPPED: {0} is refused\n@vm end {0} ok 1.5\n", step.name);
        }
        text + "@vm done\n[ 9.0] reboot: Power down\n"
    }

    #[test]
    fn a_machine_that_did_everything_passed() {
        let outcome = read(&whole(), false);
        assert!(outcome.passed(), "{outcome:?}");
        assert_eq!((outcome.release.as_str(), outcome.up_seconds), ("6.1.0-1", 3.21));
        assert_eq!(outcome.refused().len(), STEPS.len());
    }

    #[test]
    fn a_panic_a_hang_a_failure_and_a_missing_step_do_not_pass() {
        let panic = whole().replace("@vm done", "Kernel panic - not syncing");
        assert!(read(&panic, false).trouble.is_some_and(|t| t.contains("too early")));
        assert!(read("", true).trouble.is_some_and(|t| t.contains("in time, after its start")));
        let failed = whole().replace("end storm ok", "end storm status-101");
        assert!(!read(&failed, false).passed());
        let short: Vec<String> =
            whole().lines().filter(|l| !l.contains("storm")).map(str::to_owned).collect();
        assert!(!read(&short.join("\n"), false).passed());
        assert!(read("@vm broken cannot mount", false).trouble.is_some());
    }

    #[test]
    fn doctor_is_read_between_kernel_messages() {
        let text = "@vm begin doctor\n[ 1.0] x\n{\n \"kernel\": \"6.1\"}\n@vm end doctor ok 1.0\n";
        assert_eq!(read(text, false).doctor().expect("JSON")["kernel"], "6.1");
    }
}
