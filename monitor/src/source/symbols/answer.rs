//! What the confined reader of a symbol file answers: one JSON line on a pipe.

use serde::{Deserialize, Serialize};

use super::trail::Trail;
use crate::source::asynctasks::program::TaskProgram;

/// A function that an address lies in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its name, demangled.
    pub function: String,
    /// Source file.
    pub file: Option<String>,
    /// Line.
    pub line: Option<u32>,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// As the file itself counts: what `addr2line` takes.
    pub address: Option<u64>,
    /// Innermost first: where a function was dissolved into another, both. Empty
    /// where the file has no name for it.
    pub calls: Vec<Call>,
}

/// All that was asked for of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Build id, hexadecimal.
    pub build_id: Option<String>,
    /// File name of the separate debug file that it names.
    pub debug_link: Option<String>,
    /// It says where the lines of the source are.
    pub has_lines: bool,
    /// One for each address.
    pub places: Vec<Place>,
}

/// The line itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// It was read.
    Read(Answer),
    /// It was read for its async tasks.
    Tasks(TaskProgram),
    /// A stack was followed by it.
    Followed(Trail),
    /// It was not; why.
    Failed(String),
}
