//! Two processes that want the same places in the array of births: each has its counts and
//! lifetimes, and what finds no place is in the hash.

use std::process::Command;
use std::time::{Duration, Instant};

use leakwatch_common::{Birth, BirthKey, NearBirth};
use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::component::need_root;
use leakwatch_tests::maps;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::{patience, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const COUNT: u32 = 40;
/// As close as this, so that half of what they open falls together.
const CLOSE: u32 = COUNT / 2;

/// Holds [`COUNT`] eventfds when it has been told to.
fn holder(agent: &Agent, name: &str) -> Started {
    let dir = agent.dir().display().to_string();
    let count = COUNT.to_string();
    let arguments = ["--in", "eventfd2", "--out", "close", "--dir", &dir, "--tag", name];
    let mut holder = Started::new(program("syscalls").args(arguments).args(["--count", &count]));
    holder.ready(LIMIT);
    holder
}

/// Numbers that both have places for start so far apart.
fn distance(a: u32, b: u32) -> u32 {
    let place = |tgid| BirthKey { tgid, fd: 0 }.place();
    let ahead = place(a).wrapping_sub(place(b)) & (leakwatch_common::NEAR_PLACES - 1);
    ahead.min(leakwatch_common::NEAR_PLACES - ahead)
}

#[test]
fn processes_that_want_the_same_places_are_counted_each() {
    if need_root().is_none() {
        return;
    }
    let mut config = FAST.replace("[watch]", "[watch]\nprobes = \"always\"");
    for name in ["t-place-first", "t-place-second"] {
        config.push_str(&format!(
            "[[unit]]\nname = \"{name}\"\ncmdline = \"*/syscalls *--tag {name} *\"\n"
        ));
    }
    let agent = Plan::new(config).start();
    let mut first = holder(&agent, "t-place-first");
    // Process numbers are given out one after the other, and of some thousands one falls so.
    let begun = Instant::now();
    let mut second = loop {
        assert!(begun.elapsed() < LIMIT * patience(), "no process falls beside {}", first.pid());
        let mut child = Command::new("true").spawn().expect("`true` starts");
        child.wait().expect("it ends");
        if distance(first.pid(), child.id() + 1) < CLOSE {
            let found = holder(&agent, "t-place-second");
            if distance(first.pid(), found.pid()) < CLOSE {
                break found;
            }
        }
    };
    agent.census();
    for holder in [&mut first, &mut second] {
        holder.tell("acquire");
        wait_until("it to have opened them", LIMIT, || holder.heard());
    }
    agent.census();
    counts(&agent, [COUNT, 0]);

    // Who comes first has the place, and the other is in the hash.
    let places = |pid: u32| {
        let mine = |place: &NearBirth| place.birth.at_ns != 0 && place.key as u32 == pid;
        maps::array::<NearBirth>(agent.pid(), "NEAR").into_iter().filter(mine).count()
    };
    let far = |pid: u32| {
        let key = |fd| BirthKey { tgid: pid, fd };
        let at = |fd| maps::value::<BirthKey, Birth>(agent.pid(), "BIRTHS", &key(fd));
        (0..COUNT + 20).filter_map(at).filter(|birth| birth.at_ns != 0).count()
    };
    let mut all_far = 0;
    for pid in [first.pid(), second.pid()] {
        let (near, far) = (places(pid), far(pid));
        // Who wants the array, must be able to dispute: nobody is in there on arm64.
        assert_eq!(near > 0, cfg!(target_arch = "x86_64"), "{near} and {far}");
        assert!(near + far >= COUNT as usize, "{near} and {far}");
        all_far += far;
    }
    assert!(all_far >= (COUNT - CLOSE) as usize, "only {all_far} found no place");

    for holder in [&mut first, &mut second] {
        holder.tell("release");
        wait_until("it to have closed them", LIMIT, || holder.heard());
    }
    agent.census();
    counts(&agent, [COUNT, COUNT]);
    let pids = [first.pid(), second.pid()];
    drop((first, second));
    wait_until("their places to be free", LIMIT, || {
        let taken = |place: &NearBirth| pids.contains(&(place.key as u32));
        (!maps::array::<NearBirth>(agent.pid(), "NEAR").iter().any(taken)).then_some(())
    });
}

/// Both units have opened and closed so many, and the lifetimes of the closed are known.
#[track_caller]
fn counts(agent: &Agent, want: [u32; 2]) {
    let metrics = agent.metrics();
    for unit in ["t-place-first", "t-place-second"] {
        let of = |name: &str| metrics.sum(name, &[("unit", unit), ("kind", "eventfd")]);
        let [opened, closed] = want.map(f64::from);
        assert_eq!(of("leakwatch_unit_fds_opened_total"), Some(opened), "{unit}");
        assert_eq!(of("leakwatch_unit_fds_closed_total").unwrap_or(0.0), closed, "{unit}");
        let known = of("leakwatch_unit_fd_lifetime_seconds_count").unwrap_or(0.0);
        assert_eq!(known, closed, "{unit}");
    }
}
