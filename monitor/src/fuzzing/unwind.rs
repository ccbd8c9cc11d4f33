//! What the unwinder is given: a piece of a stack, which its program writes, and the call
//! frame information of a file, which anybody may have written.

use crate::source::copies;
use crate::source::symbols::cfi;
use crate::source::symbols::trail::{CODE, FRAME, Mapped, Question, STACK, Span, Standing, Words};

/// Where the stack begins.
const BASE: u64 = 0x7ffc_0000_0000;
/// Where the file is mapped, from its beginning on.
const HERE: Span = Span { start: 0x40_0000, end: 0x40_1000 };
/// Where code is that is of no file.
const MADE: Span = Span { start: 0x7f00_0000_0000, end: 0x7f00_0000_1000 };
/// Frames, at most.
const MOST: usize = 64;
/// A register that functions save, on either architecture, besides the frame pointer.
const SAVED: u16 = if cfg!(target_arch = "x86_64") { 3 } else { 19 };

/// `data` as the number of words of the stack, the instruction, the stack pointer, the
/// frame pointer, another register, the words, and a file.
pub(crate) fn question(data: &[u8]) -> Option<(Question, &[u8])> {
    let (count, rest) = data.split_first()?;
    let (numbers, file) = rest.split_at_checked(8 * (4 + usize::from(*count)))?;
    let (numbers, _) = numbers.as_chunks();
    let numbers: Vec<u64> = numbers.iter().map(|n| u64::from_le_bytes(*n)).collect();
    let known = [(CODE, numbers[0]), (STACK, numbers[1]), (FRAME, numbers[2]), (SAVED, numbers[3])];
    let question = Question {
        from: Standing::of(&known),
        stack: Words { start: BASE, words: numbers[4..].to_vec() },
        here: vec![Mapped { span: HERE, offset: 0 }],
        code: vec![HERE, MADE],
        made: vec![MADE],
        most: MOST,
    };
    Some((question, file))
}

/// `data` as that, and as a record of the ring.
pub fn unwind(data: &[u8]) {
    if let Some(copy) = copies::decode(data, &vec![(CODE, 128), (STACK, u32::MAX)]) {
        assert!(copy.words.len() * 8 <= data.len() && copy.registers.len() <= 2);
    }
    let Some((question, file)) = question(data) else { return };
    let Ok(trail) = cfi::follow(file, &question) else { return };
    assert!(trail.addresses.len() <= MOST);
    let has = |span: &Span, at: u64| (span.start..span.end).contains(&at);
    for to in &trail.addresses {
        assert!([HERE, MADE].iter().any(|s| has(s, to - 1)), "{to:#x} is no code");
    }
    let before = question.from.get(STACK);
    assert!(trail.addresses.is_empty() || trail.at.get(STACK) >= before, "down the stack");
    assert_eq!(trail.at.get(CODE), trail.addresses.last().copied().or(question.from.get(CODE)));
}
