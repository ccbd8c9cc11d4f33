//! Reads lines as entries.

use std::io::{self, BufRead};

use super::entry::Entry;
use super::header::{FORMAT, Header, HeaderLine, Sign};
use super::known::Known;
use super::line::{Glimpse, Line, Process, Task};
use super::lines::{LONGEST, Lines, NoLine};
use crate::config;
use crate::source::model::{FdTable, ProcessId, ProcessSample};
use crate::text;

/// A trace that cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It begins otherwise than every trace.
    #[error("it is no trace of leakwatch: make one with `leakwatch record FILE`")]
    NoTrace,
    /// It is of a later format.
    #[error(
        "its format is {format}, and this leakwatch reads up to {FORMAT}: replay it with \
         leakwatch {version}, which wrote it, or later"
    )]
    Newer {
        /// Its format.
        format: u32,
        /// What wrote it.
        version: String,
    },
    /// It is over before its end: a recorder was killed, or a copy is not whole.
    #[error("it breaks off in line {line}; what is before that has been replayed")]
    BreaksOff {
        /// Where.
        line: u64,
    },
    /// Nobody wrote that.
    #[error("line {line} is damaged ({why}); what is before that has been replayed")]
    Damaged {
        /// Where.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// The config that it was recorded with is none for this version.
    #[error(
        "the config in line {line} is none for this version of leakwatch, so name one with \
         --config: {why}"
    )]
    Config {
        /// Where.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads a trace.
pub struct Reader<'a> {
    lines: Lines<'a>,
    header: Header,
    known: Known,
    configs: bool,
    ended: Option<String>,
}

impl<'a> Reader<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is no trace that this version can read.
    pub fn new(from: impl BufRead + Send + 'a) -> Result<Self, ReadError> {
        let mut lines = Lines::new(from)?;
        let header = match lines.next_line() {
            Ok(line) => header(line)?,
            Err(NoLine::Io(e)) => return Err(e.into()),
            Err(_) => return Err(ReadError::NoTrace),
        };
        let known = Known::of(header.boot);
        Ok(Self { lines, header, known, configs: true, ended: None })
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Passes over the configs that are in it.
    pub fn without_configs(mut self) -> Self {
        self.configs = false;
        self
    }

    /// Why the recording ended, once that was read.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// See [`ReadError`]. There is no entry after one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            let line = match self.lines.next_line() {
                Ok(_) if self.ended.is_some() => return Err(self.damaged("something follows")),
                Ok(line) => serde_json::from_slice(line),
                Err(NoLine::Over) if self.ended.is_some() => return Ok(None),
                Err(e) => return Err(self.no_line(e)),
            };
            // The position in the line is of no use: they are long.
            let line = line.map_err(|e| self.damaged(without_position(&e.to_string())))?;
            if let Some(entry) = self.entry(line)? {
                return Ok(Some(entry));
            }
        }
    }

    fn entry(&mut self, line: Line) -> Result<Option<Entry>, ReadError> {
        Ok(Some(match line {
            Line::Config(_) if !self.configs => return Ok(None),
            Line::Config(text) => {
                let number = self.lines.number();
                let config = config::parse(&text, "config")
                    .map_err(|e| ReadError::Config { line: number, why: e.to_string() })?;
                Entry::Config(Box::new(config))
            }
            Line::Users(names) => Entry::Users(names),
            Line::Tasks(events) => {
                let boot = self.known.boot;
                Entry::Tasks(events.into_iter().map(|e: Task| e.event(boot)).collect())
            }
            Line::Process(process) => {
                self.known.process(process).map_err(|why| self.damaged(&why))?;
                return Ok(None);
            }
            Line::Beside(beside) => {
                self.known.beside(beside).map_err(|why| self.damaged(&why))?;
                return Ok(None);
            }
            Line::Opener(opener) => {
                self.known.opener(opener).map_err(|why| self.damaged(&why))?;
                return Ok(None);
            }
            Line::Look(look) => {
                let judged = look.judged;
                Entry::Look(Box::new(self.known.look(look)), judged)
            }
            Line::Glimpse(Glimpse { at, of }) => {
                let samples: Option<Vec<_>> = of.into_iter().map(|p| self.sample(p)).collect();
                let samples = samples.ok_or_else(|| self.damaged("a process without a name"))?;
                Entry::Glimpse(samples, at)
            }
            Line::Judge(at) => Entry::Judge(at),
            Line::End(why) => {
                self.ended = Some(why);
                return Ok(None);
            }
        }))
    }

    fn sample(&self, p: Process) -> Option<ProcessSample> {
        let id = ProcessId { boot: self.known.boot, pid: p.pid, start_ticks: p.start };
        Some(p.about?.sample(id, p.threads.unwrap_or(0), FdTable::Denied))
    }

    fn damaged(&self, why: &str) -> ReadError {
        ReadError::Damaged { line: self.lines.number(), why: text::printable(why.as_bytes()) }
    }

    fn no_line(&self, no: NoLine) -> ReadError {
        match no {
            NoLine::Over | NoLine::Torn => ReadError::BreaksOff { line: self.lines.number() },
            NoLine::Long => {
                self.damaged(&format!("it is longer than {}", text::bytes(LONGEST as u64)))
            }
            NoLine::Damaged(e) => self.damaged(&e.to_string()),
            NoLine::Io(e) => e.into(),
        }
    }
}

fn header(line: &[u8]) -> Result<Header, ReadError> {
    let sign: Sign = serde_json::from_slice(line).map_err(|_| ReadError::NoTrace)?;
    if sign.leakwatch_trace > FORMAT {
        let version = text::printable(sign.version.as_bytes());
        return Err(ReadError::Newer { format: sign.leakwatch_trace, version });
    }
    let damaged =
        |why: String| ReadError::Damaged { line: 1, why: text::printable(why.as_bytes()) };
    let line: HeaderLine = serde_json::from_slice(line).map_err(|e| damaged(e.to_string()))?;
    Header::try_from(line).map_err(damaged)
}

fn without_position(error: &str) -> &str {
    error.rsplit_once(" at line ").map_or(error, |(what, _)| what)
}
