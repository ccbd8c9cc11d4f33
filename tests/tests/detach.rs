//! What the agent leaves behind in the kernel: nothing.

use std::collections::BTreeSet;

use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::bpf::{Kind, held_by, loaded, pinned};
use leakwatch_tests::component::need_root;
use leakwatch_tests::wait::{SOON, wait_until};

/// Probes attached, stacks taken: all the agent has.
fn start() -> Agent {
    let watch = "[watch]\nprobes = \"always\"\nstacks = \"always\"";
    Plan::new(FAST.replace("[watch]", watch)).start()
}

/// What it made, by kind. Links of programs count as soon as they are held.
fn made(agent: &Agent) -> Vec<(Kind, BTreeSet<u32>)> {
    agent.census();
    let made: Vec<_> = Kind::ALL.map(|kind| (kind, held_by(agent.pid(), kind))).into();
    for (kind, ids) in &made {
        assert!(ids.len() >= 3, "it works with several of each {kind:?}: {made:?}");
        let missing: Vec<_> = ids.difference(&loaded(*kind)).copied().collect();
        assert!(missing.is_empty(), "the kernel does not list {kind:?} {missing:?}");
    }
    made
}

/// The kernel frees a little later than the last reference goes.
fn all_gone(made: &[(Kind, BTreeSet<u32>)]) {
    for (kind, ids) in made {
        wait_until(&format!("the end of each {kind:?} among {ids:?}"), SOON, || {
            loaded(*kind).is_disjoint(ids).then_some(())
        });
    }
}

#[test]
fn a_stopped_agent_leaves_no_program_link_map_or_pin() {
    if need_root().is_none() {
        return;
    }
    let before = pinned();
    let mut agent = start();
    let made = made(&agent);
    let (status, _) = agent.stop();
    assert!(status.success(), "{status}\n{}", agent.log());
    all_gone(&made);
    let new: Vec<_> = pinned().difference(&before).cloned().collect();
    assert!(new.is_empty(), "pinned and left: {new:?}");
}

#[test]
fn a_killed_agent_leaves_nothing_either() {
    if need_root().is_none() {
        return;
    }
    let mut agent = start();
    let made = made(&agent);
    agent.signal(libc::SIGKILL);
    wait_until("the agent to be dead", SOON, || agent.ended());
    all_gone(&made);
}
