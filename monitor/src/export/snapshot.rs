//! The one view that every exporter reads: immutable, swapped after each turn
//! of the loop.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cleanup::record::{ActionRecord, Outcome};
use crate::config::model::{ActionKind, Mode};
use crate::detection::verdict::{Leak, Resource, Rule};
use crate::ledger::view::UnitView;
use crate::source::model::{SourceFigures, SourceState, UNPLACED, UnitFlows};

/// Everything an exporter may show.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the census behind it ended.
    pub at: Timestamp,
    /// When the agent started.
    pub started: Timestamp,
    /// Units, by name; at most `max_units`, the rest summed as `other`.
    pub units: Vec<UnitView>,
    /// Counted by the probes for no unit.
    pub unplaced: Option<UnitFlows>,
    /// Verdicts: open ones first, then resolved ones, newest first.
    pub leaks: Vec<Leak>,
    /// Confirmations since start.
    pub confirmed_total: BTreeMap<(Arc<str>, Resource, Rule), u64>,
    /// Newest acts first, at most 1000.
    pub actions: Vec<ActionRecord>,
    /// Acts since start.
    pub actions_total: BTreeMap<(Arc<str>, ActionKind, Mode, Outcome), u64>,
    /// What works and what does not.
    pub sources: Vec<SourceState>,
    /// Figures of the source.
    pub figures: SourceFigures,
    /// Corrections that the census made to what the probes said, by cause.
    pub corrections: BTreeMap<String, u64>,
    /// The last reload of the config worked.
    pub reload_ok: bool,
    /// Between two censuses now (stretched where the budget demands).
    pub interval: std::time::Duration,
    /// Between two that read every descriptor; longer than [`Self::interval`] where the
    /// others only count, and read what has moved.
    pub whole_interval: std::time::Duration,
}

impl Snapshot {
    /// What the probes counted, by unit: what was counted for none is with the units
    /// that are summed as `other`.
    pub fn flows(&self) -> Vec<(&str, Cow<'_, UnitFlows>)> {
        let mut unplaced = self.unplaced.as_ref();
        let mut flows = Vec::with_capacity(self.units.len() + 1);
        for view in &self.units {
            let name = &*view.unit.name;
            let of_none = unplaced.take_if(|_| name == UNPLACED);
            match (&view.flows, of_none) {
                (Some(own), Some(none)) => {
                    let mut sum = own.clone();
                    sum.add(none);
                    flows.push((name, Cow::Owned(sum)));
                }
                (Some(flow), None) | (None, Some(flow)) => flows.push((name, Cow::Borrowed(flow))),
                (None, None) => {}
            }
        }
        flows.extend(unplaced.map(|flow| (UNPLACED, Cow::Borrowed(flow))));
        flows
    }
}
