//! The verdicts over time: suspected, confirmed, resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::model::Config;
use crate::detection::verdict::{Leak, Resource, Rule, State};
use crate::ledger::Ledger;
use crate::source::model::{KernelStr, ProcessId};
use crate::time::ClockPair;

/// A verdict that changed its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The verdict as it is now.
    pub leak: Leak,
    /// State before; `None` for a new one.
    pub from: Option<State>,
    /// State now.
    pub to: State,
}

/// A process that a verdict speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Identity.
    pub id: ProcessId,
    /// Its cgroup.
    pub cgroup: KernelStr,
    /// Its name.
    pub comm: KernelStr,
}

/// The verdicts over time.
#[derive(Default)]
pub struct Docket {
    confirmed_total: BTreeMap<(Arc<str>, Resource, Rule), u64>,
}

impl Docket {
    /// An empty docket.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges the ledger; gives what changed.
    pub fn judge(&mut self, _ledger: &Ledger, _config: &Config, _now: ClockPair) -> Vec<Change> {
        Vec::new()
    }

    /// Open verdicts, then resolved ones, newest first.
    pub fn leaks(&self) -> Vec<Leak> {
        Vec::new()
    }

    /// The processes of an open verdict, each once.
    pub fn members(&self, _id: &str) -> Vec<Member> {
        Vec::new()
    }

    /// Confirmations since start.
    pub fn confirmed_total(&self) -> &BTreeMap<(Arc<str>, Resource, Rule), u64> {
        &self.confirmed_total
    }

    /// Units with an open verdict on descriptors or threads.
    pub fn suspects(&self) -> BTreeSet<Arc<str>> {
        BTreeSet::new()
    }
}
