//! The corpus' real servers: what leakwatch makes of each case that is not kept aside.
//!
//! They are started, driven and recorded all at once. What the machine does besides is
//! never the same, so a case on record may come right; none that is not may go wrong.

use leakwatch_tests::component::{need, need_root, say};
use leakwatch_tests::corpus::judge::judge;
use leakwatch_tests::corpus::label;
use leakwatch_tests::corpus::score::{Row, row};
use leakwatch_tests::corpus::{real, server};
use leakwatch_tests::procfs;
use leakwatch_tests::wait::{SOON, wait_until};

/// Cases that are not kept aside.
const CASES: usize = 14;

/// Leaks that are not found yet: see `docs/corpus.md`.
const MISSED: [&str; 0] = [];

/// Cases with a verdict that is not right: see there.
const WRONG: [&str; 0] = [];

/// Judges them; nothing of them is left.
fn outcomes() -> Option<Vec<Row>> {
    let mut cases = label::load("servers").expect("sound labels");
    cases.retain(|c| !c.held_out);
    assert_eq!(cases.len(), CASES);
    need_root()?;
    let found = server::missing(&cases).map_or(Ok(()), Err);
    need(&format!("the program {}", found.err().unwrap_or_default()), found.ok())?;
    // Whoever loses its parent becomes a child of this process.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("allowed to all");
    let trace = real::record(&cases).expect("servers, clients and the recorder do their work");
    let left = || procfs::children_of(std::process::id()).into_iter().any(procfs::alive);
    // The recorder's reader of symbols ends by itself, and a little later.
    wait_until("the end of all that was started", SOON, || (!left()).then_some(()));
    let said = judge(&trace).expect("what was just recorded can be read");
    for case in &cases {
        assert!(said.seen.contains_key(&case.unit()), "{} was never seen", case.name);
    }
    Some(cases.into_iter().map(|case| row(case, &said, None)).collect())
}

#[test]
fn no_verdict_on_a_server_or_client_is_wrong_but_those_on_record() {
    let Some(outcomes) = outcomes() else { return };
    let mut unknown = Vec::new();
    for (case, [ours, ..]) in &outcomes {
        if let Some(named) = ours.found.as_ref().and_then(|f| f.opener) {
            let word = if named { "named" } else { "not named" };
            say(format_args!("the opener of {} is {word}", case.name));
        }
        let checks = [
            ("missed", ours.leaky && ours.found.is_none(), MISSED.contains(&case.name.as_str())),
            ("wrong", ours.wrong.is_some(), WRONG.contains(&case.name.as_str())),
        ];
        for (what, so, on_record) in checks {
            if so && !on_record {
                unknown.push(format!("{} is {what}: {ours:?}", case.name));
            } else if on_record && !so {
                say(format_args!("{} is on record as {what}, and is not", case.name));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}
