//! SIGTERM, SIGINT, SIGHUP.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use leakwatch_tests::agent::{FAST, Plan};
use leakwatch_tests::bpf;
use leakwatch_tests::component::need_root;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::wait_until;

use crate::LIMIT;

#[test]
fn sigterm_stops_it_within_two_seconds_and_leaves_nothing_behind() {
    if need_root().is_none() {
        return;
    }
    let fast = FAST.replace("[watch]", "[watch]\nprobes = \"always\"");
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut agent = Plan::new(fast.clone()).start();
        agent.census();
        let programs = bpf::held_by(agent.pid(), bpf::Kind::Program);
        assert!(programs.len() >= 3, "it probes with several programs: {programs:?}");
        let begun = Instant::now();
        agent.signal(signal);
        let status = wait_until("the agent to stop", LIMIT, || agent.ended());
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
        assert!(status.success(), "{status}\n{}", agent.log());
        wait_until("its programs to be gone from the kernel", Duration::from_secs(5), || {
            bpf::loaded(bpf::Kind::Program).is_disjoint(&programs).then_some(())
        });
        assert!(TcpListener::bind(agent.address).is_ok(), "the port is free");
    }
}

#[test]
fn sighup_reloads_a_good_config_and_keeps_the_old_one_over_a_bad_one() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(FAST).start();
    let mut target = Started::new(program("connections").args(["--tag", "t-reload"]));
    target.ready(LIMIT);
    let reloaded = || agent.metrics().one("leakwatch_config_last_reload_successful", &[]);
    assert_eq!(reloaded(), Some(1.0));
    assert!(agent.unit("reloaded").is_none());

    let unit =
        |name: &str| format!("[[unit]]\nname = \"{name}\"\ncmdline = \"*--tag t-reload*\"\n");
    fs::write(agent.config(), format!("{FAST}{}", unit("reloaded"))).expect("it is ours");
    agent.signal(libc::SIGHUP);
    wait_until("the new unit", LIMIT, || agent.unit("reloaded"));
    assert_eq!(reloaded(), Some(1.0));

    fs::write(agent.config(), format!("{}\nnmae = 1\n", unit("again"))).expect("it is ours");
    agent.signal(libc::SIGHUP);
    wait_until("the bad config to be noticed", LIMIT, || reloaded().filter(|v| *v == 0.0));
    assert!(agent.unit("reloaded").is_some() && agent.unit("again").is_none());
    let log = agent.log();
    assert!(log.contains("nmae") && log.contains("name"), "the log says why: {log}");

    fs::write(agent.config(), format!("{FAST}{}", unit("again"))).expect("it is ours");
    agent.signal(libc::SIGHUP);
    wait_until("the next unit", LIMIT, || agent.unit("again"));
    assert_eq!(reloaded(), Some(1.0));
}
