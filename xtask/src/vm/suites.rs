//! What runs inside a VM, and its static build: there is no C library in there,
//! no shell, no Python.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{self, say};
use crate::workspace;

/// Where everything lies in the guest.
pub const HOME: &str = "t";

/// One step in the guest.
pub struct Step {
    /// Its name in the table.
    pub name: &'static str,
    /// The program, unless it is the suite of that name.
    program: Option<&'static str>,
    /// Its arguments.
    pub arguments: &'static [&'static str],
}

impl Step {
    /// Its file in [`HOME`].
    pub fn file(&self) -> String {
        self.program.map_or_else(|| suite_file(self.name), str::to_owned)
    }
}

const fn suite(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, program: None, arguments }
}

/// The kernel suite. What needs Debian's Python, Prometheus or setpriv stays on
/// the host; every other test of these suites runs.
pub const STEPS: [Step; 7] = [
    Step { name: "doctor", program: Some("leakwatch"), arguments: &["doctor", "--json"] },
    suite("harness", &["--skip", "prometheus_runs", "--skip", "leakers_hold"]),
    suite("privileges", &["as_root"]),
    suite("lifetimes", &[]),
    suite("detach", &[]),
    suite("accuracy", &[]),
    suite("storm", &[]),
];

/// The test programs beside them.
const PROGRAMS: [&str; 10] = [
    "agent-runner",
    "children",
    "file-burst",
    "manager",
    "rest",
    "rotating-logger",
    "spans",
    "storm",
    "syscalls",
    "threads",
];

/// Debug assertions and overflow checks as everywhere in the tests; a little
/// optimisation, for an emulated processor is slow; no debug information, which
/// would be most of the initramfs.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_DEV_DEBUG", "0"),
    ("CARGO_PROFILE_DEV_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_DEV_INCREMENTAL", "false"),
];
/// `--target`, or the flags would hold for build scripts and macros, too.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Files for the guest: name in [`HOME`] and path here.
pub type Programs = BTreeMap<String, PathBuf>;

/// Builds agent, programs, suites and the init.
///
/// # Errors
/// The compiler's.
pub fn build() -> Result<Programs> {
    say("vm: building static programs");
    let names = STEPS.iter().filter(|step| step.program.is_none()).map(|step| step.name);
    let suites: Vec<&str> = names.flat_map(|name| ["--test", name]).collect();
    let mut found = Programs::new();
    // The tests bring the programs of their own package along.
    compile(cargo(["test", "--no-run"]).args(suites), &mut found)?;
    compile(cargo(["build"]).args(["--bins"]), &mut found)?;
    let wanted = STEPS.iter().map(Step::file).chain(PROGRAMS.map(str::to_owned));
    wanted
        .chain(["xtask".to_owned()])
        .map(|name| {
            let path = found.get(&name).with_context(|| format!("cargo has not built {name}"))?;
            Ok((name, path.clone()))
        })
        .collect()
}

/// The name of a suite's file in the guest: `storm` is also that of a program.
fn suite_file(name: &str) -> String {
    format!("suite-{name}")
}

fn cargo<const N: usize>(words: [&str; N]) -> Command {
    let mut cargo = shell::cargo(words);
    cargo.args(["--locked", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    // One selection for both calls, or features and with them crates would differ.
    cargo.args(["-p", "leakwatch", "-p", "leakwatch-tests", "-p", "xtask"]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").envs(PROFILE);
    cargo.env("CARGO_TARGET_DIR", workspace::target().join("vm/build"));
    cargo
}

/// Runs cargo and notes which executables it made.
fn compile(cargo: &mut Command, found: &mut Programs) -> Result<()> {
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the static build failed: see above");
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let (Some(path), Some(name)) =
            (message["executable"].as_str(), message["target"]["name"].as_str())
        else {
            continue;
        };
        let is_suite = message["target"]["kind"][0] == "test";
        // A program's own unit tests are an executable of its name, too.
        if !is_suite && message["profile"]["test"] == true {
            continue;
        }
        let key = if is_suite { suite_file(name) } else { name.to_owned() };
        found.insert(key, PathBuf::from(path));
    }
    Ok(())
}
