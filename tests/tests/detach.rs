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

/// What it made and holds throughout, by kind: a pass of the census over one process is
/// by a link of its own, which may be gone before the kernel is asked for it.
fn made(agent: &Agent) -> Vec<(Kind, BTreeSet<u32>)> {
    agent.census();
    let held = || Kind::ALL.map(|kind| held_by(agent.pid(), kind));
    let (before, listed, after) = (held(), Kind::ALL.map(loaded), held());
    let mut made = Vec::new();
    for (i, kind) in Kind::ALL.into_iter().enumerate() {
        let ids: BTreeSet<u32> = before[i].intersection(&after[i]).copied().collect();
        assert!(ids.len() >= 3, "it works with several of each: {kind:?} {ids:?}");
        let missing: Vec<_> = ids.difference(&listed[i]).copied().collect();
        assert!(missing.is_empty(), "the kernel does not list {kind:?} {missing:?}");
        made.push((kind, ids));
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
