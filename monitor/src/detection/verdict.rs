//! Verdicts: the LEAK object of the API.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attribution::unit::UnitKind;
pub use crate::source::model::{Frame, Role};

/// What is leaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words of the design")]
pub enum Resource {
    Fd,
    Thread,
    Process,
    File,
    Task,
}

impl Resource {
    /// The name in labels and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fd => "fd",
            Self::Thread => "thread",
            Self::Process => "process",
            Self::File => "file",
            Self::Task => "task",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each rule documents itself in its own file")]
pub enum Rule {
    UnclosedLogHandle,
    DeletedFileHeld,
    CloseWait,
    InheritedUnused,
    RisingFloor,
    Outlived,
    Excess,
    ThreadGrowth,
    TaskGrowth,
    Zombie,
    Orphan,
    Headroom,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 12] = [
        Self::UnclosedLogHandle,
        Self::DeletedFileHeld,
        Self::CloseWait,
        Self::InheritedUnused,
        Self::RisingFloor,
        Self::Outlived,
        Self::Excess,
        Self::ThreadGrowth,
        Self::TaskGrowth,
        Self::Zombie,
        Self::Orphan,
        Self::Headroom,
    ];

    /// The name in config, labels and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnclosedLogHandle => "unclosed-log-handle",
            Self::DeletedFileHeld => "deleted-file-held",
            Self::CloseWait => "close-wait",
            Self::InheritedUnused => "inherited-unused",
            Self::RisingFloor => "rising-floor",
            Self::Outlived => "outlived",
            Self::Excess => "excess",
            Self::ThreadGrowth => "thread-growth",
            Self::TaskGrowth => "task-growth",
            Self::Zombie => "zombie",
            Self::Orphan => "orphan",
            Self::Headroom => "headroom",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Some evidence; nothing acts on it.
    Suspected,
    /// Enough evidence; alerts and cleanup act on it.
    Confirmed,
    /// Over; the evidence says why.
    Resolved,
}

impl State {
    /// The name in labels and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Confirmed => "confirmed",
            Self::Resolved => "resolved",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One leaked thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Owner (or the process itself).
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, so that the pid cannot be mistaken.
    pub start_ticks: u64,
    /// Its name, printable.
    pub comm: String,
    /// Descriptor; null for processes and threads.
    pub fd: Option<u32>,
    /// Path (or command line), printable.
    pub path: String,
    /// When it was opened; null where that was before the first look.
    pub opened_at: Option<Timestamp>,
}

/// A verdict, as `/api/v1/leaks` gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// Stable name of this verdict: 12 hexadecimal digits.
    pub id: String,
    /// Unit name.
    pub unit: Arc<str>,
    /// Unit kind.
    pub unit_kind: UnitKind,
    /// What is leaked.
    pub resource: Resource,
    /// Kind of descriptor (an [`crate::source::model::FdKind`]); of tasks their runtime;
    /// else the resource.
    pub kind: String,
    /// What its members share, printable: path template; of threads their name; of tasks
    /// the function.
    pub cohort: String,
    /// Rules that fired.
    pub rules: Vec<Rule>,
    /// How sure.
    pub state: State,
    /// Leaked now (for a resolved one: when it was resolved).
    pub held: u64,
    /// Members per hour; negative while it shrinks.
    pub growth_per_hour: f64,
    /// First suspected.
    pub first_seen: Timestamp,
    /// Confirmed.
    pub confirmed_at: Option<Timestamp>,
    /// Age of the oldest member.
    pub oldest_age_seconds: f64,
    /// The limit it runs into, where there is one.
    pub limit: Option<u64>,
    /// When it will, at this growth.
    pub exhausts_at: Option<Timestamp>,
    /// Disk space kept from reuse by deleted files, bytes.
    pub pinned_bytes: u64,
    /// 0 to 1.
    pub confidence: f64,
    /// Sentences with numbers.
    pub evidence: Vec<String>,
    /// Stack of the most frequent opener, innermost first; empty where unknown.
    pub opener: Vec<Frame>,
    /// Why no frame of it is named as the opener, or not by its name, and what would
    /// help; null where all is said.
    #[serde(default)]
    pub opener_note: Option<String>,
    /// Up to ten members, oldest first.
    pub examples: Vec<Example>,
}
