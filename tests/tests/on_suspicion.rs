//! Probes on suspicion: none on a healthy host, there for a suspect, gone again,
//! and what they told stays.

use std::collections::BTreeSet;
use std::time::Duration;

use leakwatch::detection::verdict::{Frame, Leak, Role, State};
use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::component::{need_root, say};
use leakwatch_tests::procfs;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::{stays, wait_until};

const LIMIT: Duration = Duration::from_secs(40);
/// Some censuses and judgements.
const A_WHILE: Duration = Duration::from_secs(2);

/// Suspects are of this test alone: whatever leaks elsewhere on the host, another
/// suite's program say, is let pass.
fn config(test: &str, probes: &str, windows: u32) -> String {
    let fast = FAST
        .replace("[watch]", &format!("[watch]\nprobes = \"{probes}\""))
        .replace("windows = 4", &format!("windows = {windows}"));
    assert!(fast.contains(probes) && fast.contains(&format!("windows = {windows}")));
    let unit = |name: &str| {
        format!("[[unit]]\nname = \"~{name}\"\ncmdline = \"*--tag {test}-{name} *\"\n")
    };
    format!("{fast}{}{}[[ignore]]\nunit = \"[!~]*\"\n", unit("leaker"), unit("bystander"))
}

/// An agent, a program that will leak log handles from `go` until SIGHUP, and one
/// that opens as many and closes them.
struct Scene {
    leaker: Started,
    _bystander: Started,
    agent: Agent,
}

impl Scene {
    fn set(test: &str, probes: &str, windows: u32) -> Self {
        let agent = Plan::new(config(test, probes, windows)).start();
        let logger = |mode: &str, name: &str, more: &[&str]| {
            let log = agent.dir().join(format!("{name}.log")).display().to_string();
            let tag = format!("{test}-{name}");
            Started::new(
                program("rotating-logger")
                    .args(["--tag", &tag, "--mode", mode, "--log", &log])
                    .args(["--pace", "250"])
                    .args(more),
            )
        };
        let leaker = logger("until-hup", "leaker", &["--count", "1000", "--wait", "1"]);
        let mut bystander = logger("reopen", "bystander", &["--count", "4"]);
        bystander.ready(LIMIT);
        agent.census();
        Self { leaker, _bystander: bystander, agent }
    }

    fn attached(&self) -> BTreeSet<String> {
        procfs::bpf_attached(self.agent.pid())
    }

    /// What the agent says: fd probes, and stacks, work now.
    fn said(&self) -> (f64, f64) {
        let scrape = self.agent.metrics();
        let state = |source| {
            let states = scrape.sum("leakwatch_source_state", &[("source", source)]);
            states.unwrap_or_else(|| panic!("{source} has no state"))
        };
        (state("fd_probes"), state("stacks"))
    }

    /// Descriptors that probes saw a unit open; `None` where none looked.
    fn opened(&self, unit: &str) -> Option<f64> {
        self.agent.metrics().sum("leakwatch_unit_fds_opened_total", &[("unit", unit)])
    }

    fn leak(&self, of: &str) -> Option<Leak> {
        self.agent.leaks().into_iter().find(|l| *l.unit == *of)
    }

    /// Nothing but `idle` is attached, and the agent says so.
    fn is_idle(&self, idle: &BTreeSet<String>) -> Result<(), String> {
        let (attached, said) = (self.attached(), self.said());
        if attached != *idle || said != (0.0, 0.0) {
            return Err(format!("{attached:?} attached, {said:?} said"));
        }
        Ok(())
    }

    /// Waits until the leak is suspected, the probes are there and have seen who
    /// opens.
    fn is_found_out(&mut self, idle: &BTreeSet<String>) {
        self.leaker.tell("go");
        let came = wait_until("probes for the suspect", LIMIT, || {
            let came = self.attached().difference(idle).count();
            (came > 0 && self.said() == (1.0, 1.0)).then_some(came)
        });
        let suspect = self.leak("~leaker").expect("nobody else can be suspected");
        assert_ne!(suspect.state, State::Resolved, "{suspect:?}");
        wait_until("the suspect to be watched", LIMIT, || {
            self.opened("~leaker").filter(|opened| *opened > 0.0)
        });
        let opener = wait_until("the opener to be looked up", LIMIT, || {
            let looked_up = |o: &Vec<Frame>| o.iter().any(|f| f.role != Role::Unknown);
            self.leak("~leaker").map(|l| l.opener).filter(looked_up)
        });
        assert_eq!(self.opened("~bystander"), None, "and nobody else");
        let code = procfs::code_of(self.leaker.pid(), &opener[0]);
        let code = code.unwrap_or_else(|| panic!("{:?} is no code of the leaker", opener[0]));
        say(format_args!("{came} programs attached; the innermost frame is in {code}"));
    }

    /// Has the leaker close what it leaked; waits until the verdict is over.
    fn gives_back(&mut self) {
        self.leaker.signal(libc::SIGHUP);
        self.leaker.hear("clean", LIMIT);
        wait_until("the verdict to be over", LIMIT, || {
            self.leak("~leaker").filter(|l| l.state == State::Resolved)
        });
    }
}

#[test]
fn they_come_for_a_spell_and_what_they_told_outlasts_them() {
    if need_root().is_none() {
        return;
    }
    let mut scene = Scene::set("spell", "on-suspicion", 8);
    let idle = scene.attached();
    stays(A_WHILE, || scene.is_idle(&idle)).expect("nothing is attached on a healthy host");
    assert_eq!(scene.opened("~leaker"), None, "nobody counts");

    scene.is_found_out(&idle);
    // It leaks on; the host does not pay for that for ever.
    wait_until("the end of the spell", LIMIT, || scene.is_idle(&idle).ok());
    scene.agent.census();
    let told = scene.leak("~leaker").expect("it leaks on");
    assert_eq!(told.state, State::Confirmed, "{told:?}");
    assert!(!told.opener.is_empty(), "the opener is not forgotten: {told:?}");
    assert_eq!(scene.opened("~leaker"), None, "nobody counts any more");

    scene.gives_back();
    stays(A_WHILE, || scene.is_idle(&idle)).expect("nothing stays");
    let over = scene.leak("~leaker").expect("it is remembered");
    assert_eq!(over.opener, told.opener, "what is over says who it was");
}

#[test]
fn auto_keeps_what_is_nearly_free_and_else_lets_go_when_the_leak_is_over() {
    if need_root().is_none() {
        return;
    }
    // A spell of two minutes: what ends sooner ends with the suspicion.
    let mut scene = Scene::set("auto", "auto", 120);
    let first = scene.attached();
    let by = [("source", "fd_probes"), ("mechanism", "fentry")];
    if scene.agent.metrics().one("leakwatch_source_state", &by) == Some(1.0) {
        say(format_args!("fentry works here: the probes stay"));
        scene.leaker.tell("go");
        wait_until("the opener", LIMIT, || scene.leak("~leaker").filter(|l| !l.opener.is_empty()));
        assert!(scene.opened("~bystander") > Some(0.0), "all are watched");
        scene.gives_back();
        assert_eq!((scene.attached(), scene.said().0), (first, 1.0), "always");
        return;
    }
    stays(A_WHILE, || scene.is_idle(&first)).expect("nothing is attached on a healthy host");
    scene.is_found_out(&first);
    scene.gives_back();
    wait_until("the probes to go", LIMIT, || scene.is_idle(&first).ok());
    stays(A_WHILE, || scene.is_idle(&first)).expect("nothing stays");
}
