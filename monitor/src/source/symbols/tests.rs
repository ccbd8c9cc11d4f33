use std::sync::mpsc::channel;

use super::*;
use crate::source::model::{BootId, KernelStr};

const ADDRESSES: [u64; 2] = [0x40_1000, 0x40_2000];

fn process(pid: u32) -> ProcessId {
    ProcessId { boot: BootId::default(), pid, start_ticks: 1 }
}

fn birth(at: u64, stack: u32) -> FdBirth {
    FdBirth { at: Boottime(at), tid: 1, stack: Some(stack) }
}

/// This process, whose stacks can be looked up.
fn this() -> ProcessId {
    let stat = std::fs::read("/proc/self/stat").unwrap();
    let start_ticks = crate::source::processes::parse_stat(&stat).unwrap().start_ticks;
    ProcessId { pid: std::process::id(), start_ticks, ..process(0) }
}

/// Symbols whose thread never comes to look anything up, and what it was asked for.
fn stuck() -> (Symbols, Receiver<Work>) {
    let (jobs, inbox) = sync_channel(QUEUE);
    let (forever, done) = channel();
    std::mem::forget(forever);
    let beat = Beat::default();
    beat.now();
    (Symbols { running: Some(Running { jobs, done, beat }), ..Symbols::default() }, inbox)
}

/// What it was asked for.
fn jobs(inbox: &Receiver<Work>) -> Vec<Job> {
    let job = |work| match work {
        Work::Name(pinned) | Work::Follow(pinned, _) => pinned.job,
    };
    inbox.try_iter().map(job).collect()
}

fn ask(symbols: &mut Symbols) {
    symbols.ask(|_| Some(ADDRESSES.to_vec()));
}

#[test]
fn without_a_suspicion_there_is_no_thread() {
    let mut symbols = Symbols::default();
    symbols.see(process(1), [birth(5, 7)].into_iter());
    ask(&mut symbols);
    assert!(symbols.running.is_none() && symbols.take().is_empty());
}

#[test]
fn each_stack_of_a_suspect_is_asked_for_once() {
    let (mut symbols, inbox) = stuck();
    symbols.see(this(), [birth(5, 7), birth(6, 7), birth(6, 8)].into_iter());
    symbols.see(process(2), [birth(5, 7)].into_iter());
    symbols.press([this()].into());
    ask(&mut symbols);
    ask(&mut symbols);
    let mut asked: Vec<_> = jobs(&inbox).iter().map(|j| (j.process, j.stack)).collect();
    asked.sort_unstable();
    assert_eq!(asked, [(this(), 7), (this(), 8)]);
    assert_eq!(symbols.lost(), 0);
    // Its pid is another process's by now.
    symbols.keep(&[]);
    assert!(symbols.asked.is_empty() && symbols.seen.is_empty());
}

#[test]
fn what_there_is_most_of_is_asked_for_first() {
    let (mut symbols, inbox) = stuck();
    let leaks = (0..9).map(|at| birth(at, 90));
    let passing = (0..3).map(|stack| birth(9, stack));
    symbols.see(this(), passing.chain(leaks).chain([birth(9, 95), birth(9, 95)]));
    symbols.press([this()].into());
    ask(&mut symbols);
    let asked: Vec<u32> = jobs(&inbox).iter().map(|j| j.stack).collect();
    assert_eq!(asked, [90, 95, 0, 1, 2]);
}

#[test]
fn a_full_queue_is_counted_and_asked_again() {
    let (mut symbols, inbox) = stuck();
    let all = QUEUE as u32 + 3;
    symbols.see(this(), (0..all).map(|stack| birth(5, stack)));
    symbols.press([this()].into());
    // However long it takes to get so many: a look has but so much time for them.
    while symbols.lost() == 0 {
        ask(&mut symbols);
    }
    assert_eq!(inbox.try_iter().count(), QUEUE);
    symbols.waiting.clear();
    while symbols.asked.len() < all as usize {
        ask(&mut symbols);
    }
    assert_eq!(inbox.try_iter().count(), 3, "none is forgotten");
}

#[test]
fn a_thread_that_does_not_get_on_is_replaced_a_few_times() {
    for round in 0..=MAX_STUCK + 1 {
        let (mut symbols, _inbox) = stuck();
        symbols.stuck = round;
        symbols.see(this(), [birth(5, 7)].into_iter());
        symbols.press([this()].into());
        ask(&mut symbols);
        if let Some(running) = &mut symbols.running {
            running.beat = Beat::default();
        }
        let told = symbols.take().remove(0);
        let note = told.note.as_deref().unwrap_or_default();
        if round > MAX_STUCK {
            assert!(note.contains("reading files of earlier ones never ended"), "{note}");
        } else {
            assert!(note.contains("the file system does not answer"), "{note}");
            assert!(symbols.running.is_none() && symbols.waiting.is_empty());
        }
    }
}

#[test]
fn what_was_opened_before_an_exec_is_not_looked_up_in_the_wrong_program() {
    let (mut symbols, inbox) = stuck();
    let exec = |at| TaskEvent::Exec { at: Boottime(at), id: this(), comm: KernelStr::from("x") };
    symbols.note(&[exec(10)]);
    symbols.see(this(), [birth(9, 7), birth(11, 8)].into_iter());
    symbols.press([this()].into());
    ask(&mut symbols);
    assert_eq!(jobs(&inbox).iter().map(|j| j.stack).collect::<Vec<_>>(), [8]);
    let told = symbols.take();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].frames[0].function, "0x401000");
    let note = told[0].note.as_deref().unwrap_or_default();
    assert!(note.contains("before the process executed its present program"), "{note}");
}

#[test]
fn a_thread_that_died_is_replaced() {
    let (mut symbols, inbox) = stuck();
    drop(inbox);
    symbols.see(this(), [birth(5, 7)].into_iter());
    symbols.press([this()].into());
    ask(&mut symbols);
    assert!(symbols.running.is_none() && symbols.asked.is_empty());
    assert_eq!(symbols.lost(), 1);
}

#[test]
fn a_process_that_has_gone_is_told_by_its_addresses_and_why() {
    let mut symbols = Symbols::default();
    // No pid is that high (`PID_MAX_LIMIT`).
    let gone = process(4_194_305);
    symbols.see(gone, [birth(5, 7)].into_iter());
    symbols.press([gone].into());
    ask(&mut symbols);
    let told = symbols.take().remove(0);
    assert!(symbols.running.is_none(), "which takes no thread");
    assert_eq!(told.key(), (gone, 7));
    let functions: Vec<&str> = told.frames.iter().map(|f| f.function.as_str()).collect();
    assert_eq!(functions, ["0x401000", "0x402000"]);
    let note = told.note.as_deref().unwrap_or_default();
    assert_eq!(note, "the process ended before its stack could be looked up");
}

#[test]
fn a_copy_is_unwound_only_for_the_program_that_was_copied() {
    let (mut symbols, inbox) = stuck();
    let copy = |at| Copy {
        pid: this().pid,
        fd: 3,
        at: Boottime(at),
        stack: Some(7),
        registers: Vec::new(),
        start: 0,
        words: Vec::new(),
    };
    symbols.note(&[TaskEvent::Exec { at: Boottime(10), id: this(), comm: KernelStr::from("x") }]);
    symbols.follow(this(), copy(9), ADDRESSES.to_vec());
    assert_eq!(jobs(&inbox), []);
    symbols.follow(this(), copy(11), ADDRESSES.to_vec());
    let asked: Vec<_> = jobs(&inbox).into_iter().map(|j| (j.stack, j.addresses)).collect();
    assert_eq!(asked, [(7, ADDRESSES.to_vec())]);
    // A process that has ended leaves what frame pointers told.
    symbols.follow(process(4_194_305), copy(11), ADDRESSES.to_vec());
    assert_eq!(jobs(&inbox), []);
}
