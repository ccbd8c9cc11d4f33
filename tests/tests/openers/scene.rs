//! An agent and the leakers that it watches.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use leakwatch::detection::verdict::{Frame, Leak, Role};
use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::install::settle;
use leakwatch_tests::started::{Started, python};
use leakwatch_tests::wait::wait_until;

pub const LIMIT: Duration = Duration::from_secs(60);
/// Milliseconds between two leaks.
const PACE: &str = "250";

pub struct Scene {
    started: Vec<(String, Option<Started>)>,
    waiting: Vec<usize>,
    agent: Agent,
}

impl Scene {
    pub fn set() -> Self {
        Self::set_under(&[])
    }

    /// The agent under another program, such as `env VARIABLE=value`.
    pub fn set_under(wrapper: &[&str]) -> Self {
        // Stacks of suspects alone: those of all fill the map where much is compiled.
        let mut config = FAST.replace("[watch]", "[watch]\nprobes = \"always\"");
        // One unit per program of this suite, by the directory that it lies in.
        for name in NAMES {
            config.push_str(&format!(
                "[[unit]]\nname = \"~{name}\"\ncmdline = \"*/{name} [lcj]* {PACE}\"\n"
            ));
        }
        config.push_str("[[unit]]\nname = \"~perf\"\ncmdline = \"*--tag ~perf *\"\n");
        config.push_str("[[unit]]\nname = \"~python\"\ncmdline = \"*--tag ~python *\"\n");
        config.push_str("[[ignore]]\nunit = \"[!~]*\"\n");
        let plan = Plan::new(config);
        let plan = if wrapper.is_empty() { plan } else { plan.under(wrapper) };
        let agent = plan.start();
        Self { started: Vec::new(), waiting: Vec::new(), agent }
    }

    pub fn dir(&self) -> PathBuf {
        self.agent.dir().to_owned()
    }

    pub fn url(&self) -> String {
        self.agent.url()
    }

    /// Starts a leaker, which waits for the word.
    pub fn start(&mut self, name: &str, path: PathBuf) -> usize {
        self.start_mode(name, path, "leak")
    }

    pub fn start_mode(&mut self, name: &str, path: PathBuf, mode: &str) -> usize {
        settle(&path);
        self.start_command(name, Command::new(path).args([mode, PACE]))
    }

    pub fn start_command(&mut self, name: &str, command: &mut Command) -> usize {
        let mut started = Started::new(command);
        started.ready(LIMIT);
        self.keep(name, started)
    }

    /// Which it is, its pid, and where the code is that it made.
    pub fn start_jit(&mut self, name: &str, path: PathBuf) -> (usize, u32, String) {
        settle(&path);
        let mut started = Started::new(Command::new(path).args(["jit", PACE]));
        let made = started.hear("jit ", LIMIT);
        started.ready(LIMIT);
        let pid = started.pid();
        (self.keep(name, started), pid, made)
    }

    pub fn start_python(&mut self, arguments: &[&str]) {
        let started = Started::new(python("deployer.py").args(arguments));
        self.started.push(("python".to_owned(), Some(started)));
    }

    fn keep(&mut self, name: &str, started: Started) -> usize {
        assert!(NAMES.contains(&name) || name == "perf", "{name} has no unit");
        self.started.push((name.to_owned(), Some(started)));
        self.waiting.push(self.started.len() - 1);
        self.started.len() - 1
    }

    /// Has one begin.
    pub fn go(&mut self, which: usize) {
        self.waiting.retain(|w| *w != which);
        self.started[which].1.as_mut().expect("it runs").tell("go");
    }

    /// Has all begin that have not yet.
    pub fn go_all(&mut self) {
        for which in std::mem::take(&mut self.waiting) {
            self.started[which].1.as_mut().expect("it runs").tell("go");
        }
    }

    pub fn kill(&mut self, name: &str) {
        for (_, started) in self.started.iter_mut().filter(|(n, _)| n == name) {
            started.take().expect("it runs").kill();
        }
    }

    /// The verdict on one.
    pub fn leak(&self, name: &str) -> Option<Leak> {
        let unit = format!("~{name}");
        self.agent.leaks().into_iter().find(|l| *l.unit == *unit)
    }

    /// The verdict on one, once its stack has been looked up.
    pub fn looked_up(&self, name: &str) -> Leak {
        let leak = wait_until(&format!("the stack of {name} to be looked up"), LIMIT, || {
            let known = |l: &Leak| l.opener.iter().any(|f| f.role != Role::Unknown);
            self.leak(name).filter(|l| known(l) || l.opener_note.is_some())
        });
        assert!(leak.opener.iter().any(|f| f.role != Role::Unknown), "{leak:#?}");
        leak
    }

    /// Sum of a metric of the agent.
    pub fn lost(&self, source: &str) -> Option<f64> {
        self.agent.metrics().one("leakwatch_events_lost_total", &[("source", source)])
    }

    pub fn log(&self) -> String {
        self.agent.log()
    }
}

const NAMES: [&str; 25] = [
    "roomless",
    "cfilarge",
    "cfinoise",
    "cfiindex",
    "cfiendless",
    "forgets",
    "nolines",
    "bomb",
    "library",
    "plain",
    "innocent",
    "stripped",
    "linked",
    "deleted",
    "replaced",
    "hidden",
    "short",
    "mapped",
    "foreign",
    "unmapped",
    "endless",
    "large",
    "garbage",
    "truncated",
    "beside",
];

/// The frame that is named.
#[track_caller]
pub fn opener(leak: &Leak) -> &Frame {
    let mut named = leak.opener.iter().filter(|f| f.role == Role::Opener);
    let frame = named.next().unwrap_or_else(|| panic!("nobody is named: {leak:#?}"));
    assert!(named.next().is_none(), "two are named: {leak:#?}");
    frame
}

/// The frames of the program itself.
pub fn of_program(leak: &Leak) -> Vec<&Frame> {
    let is = |f: &&Frame| matches!(f.role, Role::Opener | Role::Program);
    leak.opener.iter().filter(is).collect()
}
