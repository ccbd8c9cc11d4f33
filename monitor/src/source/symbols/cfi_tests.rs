//! The seeds of the fuzzer `unwind` are a file of four functions and a stack, in variants;
//! what must come of each is known.

use super::*;
use crate::fuzzing::question;

/// Where the innermost function is to return to, and its callers.
const THREE: [u64; 3] = [0x40_00cb, 0x40_00bc, 0x40_00b5];
const THROUGH_MADE: [u64; 3] = [0x40_00cb, 0x7f00_0000_0010, 0x40_00b5];

fn followed(seed: &[u8]) -> Trail {
    let (question, file) = question(seed).expect("a seed is whole");
    follow(file, &question).expect("it is a file")
}

macro_rules! seed {
    ($name:literal) => {
        &include_bytes!(concat!("../../../../fuzz/seeds/unwind/", $name))[..]
    };
}

#[test]
fn callers_are_found_by_each_kind_of_table() {
    for (name, seed) in [
        ("with an index", seed!("frames")),
        ("without", seed!("no-index")),
        ("that of debuggers", seed!("debug-frame")),
        ("by an expression that reads the stack", seed!("expression")),
    ] {
        let trail = followed(seed);
        assert_eq!((&trail.addresses[..], trail.end), (&THREE[..], End::Bottom), "{name}");
    }
}

#[test]
fn an_index_of_more_than_there_is_room_for_is_none() {
    // Found by the fuzzer: its tables are damaged otherwise, too.
    let trail = followed(seed!("index-of-more-than-there-is"));
    assert_eq!(trail.addresses.len(), 2);
    let (question, file) = question(seed!("frames")).unwrap();
    let at = file.windows(4).position(|w| w == [1, 0x1b, 3, 0x3b]).expect("the index");
    let mut more = file.to_vec();
    // The number is of eight bytes, and the highest bits are set.
    more[at + 2] = 4;
    more[at + 8..at + 16].fill(0xff);
    let trail = follow(&more[..], &question).unwrap();
    assert_eq!((&trail.addresses[..], trail.end), (&THREE[..], End::Bottom));
}

#[test]
fn code_that_nothing_describes_is_gone_through() {
    for (name, seed) in
        [("frame pointer", seed!("made")), ("return address nearby", seed!("made-frameless"))]
    {
        let trail = followed(seed);
        assert_eq!((&trail.addresses[..], trail.end), (&THROUGH_MADE[..], End::Bottom), "{name}");
    }
}

#[test]
fn a_stack_that_leads_nowhere_ends_and_says_why() {
    let trail = followed(seed!("short"));
    assert_eq!(trail.addresses, THREE[..1]);
    assert_eq!(trail.end, End::Lost(BEYOND.to_owned()));
    // A function that says it was called by itself, with the same stack, for ever.
    let trail = followed(seed!("itself"));
    assert_eq!(trail.addresses, THREE[..1]);
    assert_eq!(trail.end, End::Lost("the stack does not go on upwards".to_owned()));
    // A return address that the program put there, and which is none.
    let (mut question, file) = question(seed!("frames")).unwrap();
    question.stack.words[0] = 0x1234;
    let trail = follow(file, &question).unwrap();
    assert_eq!(trail.addresses, [] as [u64; 0]);
    let want = "the return address lies in no code at 0x1234".to_owned();
    assert_eq!(trail.end, End::Lost(want));
}

#[test]
fn no_more_frames_come_than_are_wanted() {
    let (mut question, file) = question(seed!("frames")).unwrap();
    question.most = 2;
    let trail = follow(file, &question).unwrap();
    assert_eq!((&trail.addresses[..], trail.end), (&THREE[..2], End::Full));
}

#[test]
fn what_is_no_file_of_this_machine_is_an_error() {
    let (question, file) = question(seed!("frames")).unwrap();
    assert!(follow(&file[..40], &question).is_err());
    let mut other = file.to_vec();
    other[5] = 2;
    let why = follow(&other[..], &question).unwrap_err();
    assert!(!why.is_empty(), "big-endian: {why}");
}
