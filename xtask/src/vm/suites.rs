//! What runs inside a VM: what `cargo xtask test` has built already, with this
//! machine's C library; for aarch64 the same, cross-built and static. There is no shell
//! in there, and no Python.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::arch::Arch;
use crate::cross;
use crate::shell;
use crate::test::SELECTION;

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
/// the host, as does the crowd of `placing`: 530 processes, which take an emulated
/// processor two minutes and show nothing of the kernel. Every other test of these
/// suites runs.
pub static STEPS: [Step; 10] = [
    Step { name: "doctor", program: Some("leakwatch"), arguments: &["doctor", "--json"] },
    suite("harness", &["--skip", "prometheus_runs", "--skip", "leakers_hold"]),
    suite("privileges", &["as_root"]),
    suite("lifetimes", &[]),
    suite("detach", &[]),
    suite("accuracy", &[]),
    suite("storm", &[]),
    suite("placing", &["a_newcomer"]),
    suite("sampled_stacks", &[]),
    suite("on_suspicion", &[]),
];

/// What takes an emulated processor too long to be one of them.
static ON_DEMAND: [Step; 1] = [suite("tasks", &["a_forgotten_loop"])];

/// Every step there is.
pub fn all() -> impl Iterator<Item = &'static Step> {
    STEPS.iter().chain(&ON_DEMAND)
}

/// Those that run: all of the kernel suite, or the one that was asked for.
///
/// # Errors
/// There is none of this name.
pub fn steps(only: Option<&str>) -> Result<Vec<&'static Step>> {
    let Some(only) = only else { return Ok(STEPS.iter().collect()) };
    let found: Vec<&Step> = all().filter(|step| step.name == only).collect();
    if found.is_empty() {
        let names: Vec<&str> = all().map(|step| step.name).collect();
        bail!("there is no step {only:?}; it is one of {}", names.join(", "));
    }
    Ok(found)
}

/// The test programs beside them.
const PROGRAMS: [&str; 11] = [
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
    WITH_SYMBOLS,
];

/// The one whose functions are looked for by name.
pub const WITH_SYMBOLS: &str = "tokio-server";

/// Files for the guest: name in [`HOME`] and path here.
pub type Programs = BTreeMap<String, PathBuf>;

/// The agent, the programs, the suites and the init, with overflow checks and debug
/// assertions as everywhere in the tests.
///
/// # Errors
/// The compiler's.
pub fn build(arch: Arch) -> Result<Programs> {
    let names = all().filter(|step| step.program.is_none()).map(|step| step.name);
    let suites: Vec<&str> = names.flat_map(|name| ["--test", name]).collect();
    let mut found = Programs::new();
    compile(cargo(arch, &["test", "--no-run"])?.args(SELECTION).args(suites), &mut found)?;
    compile(cargo(arch, &["build", "--bins"])?.args(SELECTION), &mut found)?;
    let wanted = all().map(Step::file).chain(PROGRAMS.map(str::to_owned));
    choose(&found, wanted.chain(["xtask".to_owned()]))
}

/// The agent and the init, as users get the agent: where instructions are counted.
///
/// # Errors
/// The compiler's.
pub fn build_to_count() -> Result<Programs> {
    let mut found = Programs::new();
    let mut build = cargo(Arch::X86, &["build", "--locked", "--release"])?;
    compile(build.args(["-p", "leakwatch", "-p", "xtask"]), &mut found)?;
    choose(&found, ["leakwatch", "xtask"].map(str::to_owned))
}

fn choose(found: &Programs, wanted: impl IntoIterator<Item = String>) -> Result<Programs> {
    let one = |name: String| {
        let path = found.get(&name).with_context(|| format!("cargo has not built {name}"))?;
        Ok((name, path.clone()))
    };
    wanted.into_iter().map(one).collect()
}

/// The shared libraries of these programs, each at the path where the dynamic linker
/// looks for it. Those for aarch64 have none.
///
/// # Errors
/// One is missing, or `ldd` is.
pub fn libraries(arch: Arch, programs: &Programs) -> Result<BTreeSet<PathBuf>> {
    if arch == Arch::Arm {
        return Ok(BTreeSet::new());
    }
    let mut ldd = shell::command("ldd");
    let said = shell::capture(ldd.args(programs.values())).context("the VMs need `ldd`")?;
    let words = said.lines().flat_map(str::split_ascii_whitespace);
    // NAME => PATH (ADDRESS), or PATH (ADDRESS) for the linker itself; the programs'
    // own names end in a colon.
    let paths = words.filter(|word| word.starts_with('/') && !word.ends_with(':'));
    Ok(paths.map(PathBuf::from).collect())
}

/// The name of a suite's file in the guest: `storm` is also that of a program.
fn suite_file(name: &str) -> String {
    format!("suite-{name}")
}

fn cargo(arch: Arch, words: &[&str]) -> Result<Command> {
    let mut cargo = match arch {
        Arch::X86 => shell::cargo(words),
        Arch::Arm => cross::cargo(words)?,
    };
    cargo.args(["--message-format", "json-render-diagnostics"]);
    Ok(cargo)
}

/// Runs cargo and notes which executables it made.
fn compile(cargo: &mut Command, found: &mut Programs) -> Result<()> {
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the build failed: see above");
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
