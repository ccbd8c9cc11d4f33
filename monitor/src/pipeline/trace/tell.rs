//! What `record` and `replay` print: the same for the same inputs, to the byte.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::detection::Change;
use crate::detection::verdict::{Leak, State};
use crate::text;

/// How verdicts are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line for each change of a verdict, and a line of counts at the end.
    Text,
    /// The same as JSON: an object a line; at the end all verdicts.
    Json,
}

/// Prints verdicts.
pub struct Teller<'a> {
    out: Box<dyn Write + Send + 'a>,
    format: Format,
    confirmed: u64,
}

#[derive(Serialize)]
struct ChangeLine<'a> {
    at: Timestamp,
    from: Option<State>,
    leak: &'a Leak,
}

#[derive(Serialize)]
struct EndLine<'a> {
    leaks: &'a [Leak],
}

impl<'a> Teller<'a> {
    /// To `out`.
    pub fn new(out: impl Write + Send + 'a, format: Format) -> Self {
        Self { out: Box::new(out), format, confirmed: 0 }
    }

    /// How many verdicts were confirmed.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Verdicts that changed.
    pub(super) fn changes(&mut self, at: Timestamp, changes: &[Change]) -> io::Result<()> {
        for change in changes {
            self.confirmed += u64::from(change.to == State::Confirmed);
            match self.format {
                Format::Text => writeln!(self.out, "{}", sentence(at, &change.leak))?,
                Format::Json => {
                    let line = ChangeLine { at, from: change.from, leak: &change.leak };
                    serde_json::to_writer(&mut self.out, &line)?;
                    writeln!(self.out)?;
                }
            }
        }
        if changes.is_empty() { Ok(()) } else { self.out.flush() }
    }

    /// The verdicts at the end.
    pub(super) fn end(&mut self, leaks: &[Leak]) -> io::Result<()> {
        let count = |state| leaks.iter().filter(|l| l.state == state).count();
        match self.format {
            Format::Text => writeln!(
                self.out,
                "at the end: {} confirmed, {} suspected, {} resolved",
                count(State::Confirmed),
                count(State::Suspected),
                count(State::Resolved)
            )?,
            Format::Json => {
                serde_json::to_writer(&mut self.out, &EndLine { leaks })?;
                writeln!(self.out)?;
            }
        }
        self.out.flush()
    }
}

fn sentence(at: Timestamp, leak: &Leak) -> String {
    // A verdict that is over says why in its last sentence.
    let over = leak.state == State::Resolved;
    let why = if over { leak.evidence.last() } else { leak.evidence.first() };
    let Leak { id, unit, kind, cohort, held, state, .. } = leak;
    let why = why.map_or("", String::as_str);
    let cohort = if cohort == kind { String::new() } else { format!(" {cohort}") };
    let at = at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    let line = format!("{at} {state} {id} {unit}: {held} {kind}{cohort}: {why}");
    text::printable(line.as_bytes())
}
