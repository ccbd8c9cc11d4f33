//! One act of cleanup, as the audit log and `/api/v1/actions` give it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::model::{ActionKind, Mode};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Dry run: nothing was done.
    WouldAct,
    /// Done; the check afterwards is still to come.
    Pending,
    /// Done, and a census says that it worked.
    Verified,
    /// Done, and a census says that it did not help.
    Ineffective,
    /// Could not be done; the detail says why.
    Failed,
    /// Not done: protected, over budget, or no longer the same process.
    Refused,
}

impl Outcome {
    /// The name in labels and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WouldAct => "would-act",
            Self::Pending => "pending",
            Self::Verified => "verified",
            Self::Ineffective => "ineffective",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// When.
    pub at: Timestamp,
    /// Counts acts since the agent started; both lines of one act share it.
    pub act: u64,
    /// Verdict acted on.
    pub leak: String,
    /// Unit.
    pub unit: String,
    /// Rule of the verdict.
    pub rule: String,
    /// What.
    pub action: ActionKind,
    /// Dry run or not.
    pub mode: Mode,
    /// What came of it.
    pub outcome: Outcome,
    /// Processes it was aimed at.
    pub pids: Vec<u32>,
    /// A sentence.
    pub detail: String,
}
