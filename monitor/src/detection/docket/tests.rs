use super::*;
use crate::attribution::unit::UnitKind;
use crate::ledger::testing::World;
use crate::source::model::{FdBirth, Frame, Opener, Role};

const APP: (&str, UnitKind) = ("app.service", UnitKind::Service);

fn leaky() -> (World, u32) {
    let mut w = World::new();
    let p = w.spawn(APP, 1, "/usr/bin/app");
    w.looks(20);
    for _ in 0..40 {
        w.open(p, "/srv/app/data.db");
        w.look();
    }
    (w, p)
}

#[test]
fn a_verdict_goes_forward_and_is_counted_once() {
    let (mut w, p) = leaky();
    let states: Vec<_> = w.changes.iter().map(|c| (c.from, c.to)).collect();
    let forward = [(None, State::Suspected), (Some(State::Suspected), State::Confirmed)];
    assert_eq!(states, forward);
    let key = (Arc::from(APP.0), Resource::Fd, Rule::RisingFloor);
    assert_eq!(w.docket.confirmed_total().get(&key), Some(&1));
    assert_eq!(w.docket.suspects(), BTreeSet::from([Arc::from(APP.0)]));
    let id = w.only().id;
    assert!(id.len() == 12 && id.bytes().all(|c| c.is_ascii_hexdigit()), "{id}");
    w.exit(p);
    w.look();
    let leak = w.docket.leaks().remove(0);
    assert_eq!((leak.id.as_str(), leak.state), (id.as_str(), State::Resolved));
    let last = leak.evidence.last().unwrap();
    assert!(last.contains("the invocation ended at 2023-"), "{last}");
    assert!(last.contains("its descriptors went with it"), "{last}");
    assert!(w.docket.suspects().is_empty() && w.docket.members(&id).is_empty());
}

/// Why the newest verdict that is over is over.
fn why(w: &World) -> String {
    let over = w.docket.leaks().into_iter().find(|l| l.state == State::Resolved).unwrap();
    over.evidence.last().unwrap().clone()
}

#[test]
fn what_has_stayed_is_a_pool_and_what_has_fallen_is_gone() {
    let (mut w, _) = leaky();
    w.looks(8 * 6);
    assert!(w.open_leaks().is_empty());
    let said = why(&w);
    assert!(said.starts_with("resolved: grew to 40 and has stayed there for "), "{said}");
    assert!(said.contains(" windows of 30 s: a pool, or a cache that is full, "), "{said}");

    let (mut w, p) = leaky();
    w.fds(p).truncate(4);
    w.look();
    let said = why(&w);
    assert!(said.starts_with("resolved: fell from 3"), "{said}");
    assert!(said.contains(" to 4: given back, or a load that has passed, "), "{said}");

    // It cannot be said of what has neither stayed nor fallen.
    let (mut w, p) = leaky();
    w.fds(p).truncate(25);
    w.looks(6 * 6);
    assert!(why(&w).contains("has been given back or grows no more"), "{}", why(&w));
}

#[test]
fn threads_that_have_stayed_are_a_pool() {
    let mut w = World::new();
    let p = w.spawn(APP, 1, "/usr/bin/app");
    w.looks(20);
    for _ in 0..40 {
        w.process(p).threads += 1;
        w.look();
    }
    assert_eq!(w.only().resource, Resource::Thread);
    w.looks(8 * 6);
    assert!(why(&w).starts_with("resolved: grew to 41 and has stayed there for "), "{}", why(&w));
}

#[test]
fn the_same_inputs_give_the_same_verdicts() {
    let ((a, _), (b, _)) = (leaky(), leaky());
    assert_eq!(a.changes, b.changes);
    assert_eq!(a.docket.leaks(), b.docket.leaks());
}

#[test]
fn the_next_life_has_a_verdict_of_its_own() {
    let (mut w, p) = leaky();
    let first = w.only().id;
    w.exit(p);
    let p = w.spawn(APP, 1, "/usr/bin/app");
    w.looks(20);
    for _ in 0..40 {
        w.open(p, "/srv/app/data.db");
        w.look();
    }
    assert_ne!(w.only().id, first);
    assert_eq!(w.docket.leaks().len(), 2);
}

#[test]
fn what_comes_back_is_the_same_verdict() {
    let mut w = World::new();
    let p = w.spawn(APP, 1, "/usr/bin/app");
    for used in [900, 100, 900] {
        w.process(p).fds = crate::source::model::FdTable::Count(used);
        w.look();
    }
    let states: Vec<_> = w.changes.iter().map(|c| (c.from, c.to)).collect();
    let suspected = State::Suspected;
    assert_eq!(
        states,
        [(None, suspected), (Some(suspected), State::Resolved), (Some(State::Resolved), suspected)]
    );
    assert_eq!(w.docket.leaks().len(), 1);
}

#[test]
fn the_opener_is_not_forgotten_when_the_probes_go() {
    let (mut w, p) = leaky();
    assert!(w.only().opener.is_empty());
    // Probes come, and see the next ones being opened.
    w.stacks.insert(7, vec![0x40_1000, 0x40_2000]);
    for _ in 0..20 {
        let fd = w.open(p, "/srv/app/data.db");
        let at = w.now + Duration::from_secs(1);
        w.fd(p, fd).birth = Some(FdBirth { at, tid: p, stack: Some(7) });
        w.look();
    }
    let told: Vec<String> = w.only().opener.into_iter().map(|f| f.function).collect();
    assert_eq!(told, ["0x401000", "0x402000"]);
    // They go, and take their records with them.
    w.stacks.clear();
    w.fds(p).iter_mut().for_each(|f| f.birth = None);
    w.look();
    assert_eq!(w.only().opener.len(), 2);
    w.exit(p);
    w.look();
    let over = w.docket.leaks().remove(0);
    assert_eq!((over.state, over.opener.len()), (State::Resolved, 2));
}

fn opener(w: &mut World, p: u32, names: &[&str], note: Option<&str>) -> Arc<Opener> {
    let frames = names.iter().map(|n| Frame { function: (*n).into(), ..Frame::default() });
    let process = w.process(p).id;
    Arc::new(Opener { process, stack: 7, frames: frames.collect(), note: note.map(Into::into) })
}

/// Stacks of these numbers are looked up; each has one frame of the program.
fn looked_up(w: &mut World, p: u32, stacks: &[(u32, &str)]) {
    let process = w.process(p).id;
    for (stack, function) in stacks {
        let mut frame = Frame { function: (*function).into(), ..Frame::default() };
        frame.role = Role::Opener;
        let opener = Opener { process, stack: *stack, frames: vec![frame], note: None };
        w.openers.push(Arc::new(opener));
    }
}

/// A leak whose newest members have a stack.
fn with_a_stack() -> (World, u32) {
    let (mut w, p) = leaky();
    w.stacks.insert(7, vec![0x40_1000]);
    for _ in 0..20 {
        let fd = w.open(p, "/srv/app/data.db");
        let at = w.now + Duration::from_secs(1);
        w.fd(p, fd).birth = Some(FdBirth { at, tid: p, stack: Some(7) });
        w.look();
    }
    (w, p)
}

#[test]
fn several_functions_that_open_the_same_are_told_with_their_shares() {
    let (mut w, p) = with_a_stack();
    let said = |w: &World| w.only().evidence.into_iter().find(|e| e.contains("were opened"));
    looked_up(&mut w, p, &[(7, "open_log"), (8, "reopen"), (9, "rotate"), (10, "zip")]);
    w.look();
    assert_eq!(said(&w), None, "it is one function, as far as is known");
    for stack in [8, 9, 10, 9] {
        w.stacks.insert(stack, vec![0x40_9000 + u64::from(stack)]);
        let fd = w.open(p, "/srv/app/data.db");
        let at = w.now + Duration::from_secs(1);
        w.fd(p, fd).birth = Some(FdBirth { at, tid: p, stack: Some(stack) });
        w.look();
    }
    w.looks(8);
    let by = "20 of these 64 were opened by open_log, 2 by rotate, 1 by reopen, 1 by others";
    assert_eq!(said(&w), Some(format!("as far as is known, {by}")), "{:#?}", w.only());
}

#[test]
fn a_stack_that_has_been_looked_up_names_its_functions_and_says_what_is_missing() {
    let (mut w, p) = with_a_stack();
    assert_eq!((&*w.only().opener[0].function, w.only().opener_note), ("0x401000", None));
    let found = opener(&mut w, p, &["openat64", "open_log"], Some("no lines"));
    w.openers.push(found);
    w.look();
    let told: Vec<String> = w.only().opener.into_iter().map(|f| f.function).collect();
    assert_eq!(told, ["openat64", "open_log"]);
    assert_eq!(w.only().opener_note.as_deref(), Some("no lines"));
    // Another stack is the most frequent now, and nobody has looked it up yet.
    w.stacks.insert(8, vec![0x40_9000]);
    w.fds(p).iter_mut().for_each(|f| f.birth = f.birth.map(|b| FdBirth { stack: Some(8), ..b }));
    w.look();
    assert_eq!(w.only().opener[1].function, "open_log", "what is known is not given up for that");
}

#[test]
fn a_stack_that_is_looked_up_after_its_process_has_died_is_told_all_the_same() {
    let (mut w, p) = with_a_stack();
    let found = opener(&mut w, p, &["open_log"], None);
    w.exit(p);
    w.look();
    let over = w.docket.leaks().remove(0);
    assert_eq!((over.state, &*over.opener[0].function), (State::Resolved, "0x401000"));
    w.openers.push(found);
    w.look();
    let over = w.docket.leaks().remove(0);
    assert_eq!((over.state, &*over.opener[0].function), (State::Resolved, "open_log"));
}

#[test]
fn a_queue_for_symbols_that_is_full_lowers_no_confidence() {
    let (mut w, _) = leaky();
    let sure = w.only().confidence;
    w.lost = [("symbols".to_owned(), 7)].into();
    w.look();
    assert!((w.only().confidence - sure).abs() < 1e-9, "{:?}", w.only());
}

#[test]
fn losses_are_said_and_lower_the_confidence_while_they_last() {
    let (mut w, _) = leaky();
    let sure = w.only();
    w.lost = [("births".to_owned(), 7), ("tasks".to_owned(), 0)].into();
    w.look();
    let doubted = w.only();
    assert!((doubted.confidence - sure.confidence * 0.9).abs() < 1e-9, "{doubted:?}");
    let said = "the probes lost events within the last 30 s (since start: births 7): openings, \
                openers and lifetimes may be missing here; the counts are those of the census";
    assert_eq!(doubted.evidence.last().map(String::as_str), Some(said));
    // None within the last window: what is known by now is whole again.
    w.looks(7);
    assert!(w.only().evidence.iter().all(|line| !line.contains("lost")));
    assert!((w.only().confidence - sure.confidence).abs() < 1e-9);
}

#[test]
fn probes_are_not_blamed_for_what_came_before_them() {
    let (mut w, p) = leaky();
    let sure = w.only().confidence;
    w.flows = true;
    w.looks(7);
    assert!((w.only().confidence - sure).abs() < 1e-9, "{:?}", w.only());
    // What comes under their eyes without a birth, they missed.
    for _ in 0..40 {
        w.open(p, "/srv/app/data.db");
        w.look();
    }
    assert!((w.only().confidence - sure * 0.9).abs() < 1e-9, "{:?}", w.only());
}

#[test]
fn doubts_multiply() {
    let (w, _) = leaky();
    let finding = rules::judge(&w.ledger, &w.config.detection, w.now).remove(0);
    let at = |findings: &[Finding], lossy| confidence(findings, lossy);
    let one = at(std::slice::from_ref(&finding), false);
    assert!((one - 0.75).abs() < 1e-9);
    assert!((at(std::slice::from_ref(&finding), true) - 0.675).abs() < 1e-9);
    let blind = Finding { blind: true, ..finding.clone() };
    assert!(at(std::slice::from_ref(&blind), false) < one);
    assert!((at(&[finding.clone(), finding], false) - 0.9375).abs() < 1e-9);
}
