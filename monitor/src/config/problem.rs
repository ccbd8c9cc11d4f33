//! What is wrong with a configuration, and where.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// More than these are counted, not kept: a file of noise has one per line.
const MAX_KEPT: usize = 50;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub origin: String,
    /// Line, counting from 1.
    pub line: usize,
    /// Column in characters, counting from 1.
    pub column: usize,
    /// The key with its table, such as `watch.probes`; empty for bad TOML.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.origin, self.line, self.column, self.message)
    }
}

/// All mistakes of one file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// At most 50 of them.
    pub kept: Vec<Problem>,
    /// How many more there were.
    pub more: usize,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.kept.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Collects problems while a document is read.
pub(super) struct Sink<'t> {
    text: &'t str,
    origin: String,
    found: RefCell<Vec<(usize, String, String)>>,
}

impl<'t> Sink<'t> {
    pub(super) fn new(text: &'t str, origin: &str) -> Self {
        let origin = crate::text::printable(origin.as_bytes());
        Self { text, origin, found: RefCell::default() }
    }

    /// Notes a problem with what stands at the bytes `span` of the text.
    pub(super) fn report(&self, span: Range<usize>, key: impl Into<String>, message: String) {
        self.found.borrow_mut().push((span.start, key.into(), message));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        position(self.text, offset).0
    }

    pub(super) fn into_problems(self) -> Problems {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(offset, ..)| *offset);
        let more = found.len().saturating_sub(MAX_KEPT);
        found.truncate(MAX_KEPT);
        let kept = found
            .into_iter()
            .map(|(offset, key, message)| {
                let (line, column) = position(self.text, offset);
                Problem { origin: self.origin.clone(), line, column, key, message }
            })
            .collect();
        Problems { kept, more }
    }
}

/// Line and column, counting from 1, of a byte offset; past the end is the end.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
