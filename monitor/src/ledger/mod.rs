//! Stage 4: one balance sheet of what is open, since when and whose.

pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attribution::unit::Unit;
use crate::config::model::Config;
use crate::ledger::view::UnitView;
use crate::source::model::{Observation, TaskEvent};
use crate::time::{Boottime, ClockPair};

/// The balance sheet.
pub struct Ledger {
    clock: ClockPair,
    corrections: BTreeMap<String, u64>,
}

impl Ledger {
    /// An empty ledger.
    ///
    /// # Errors
    /// A glob of the config is malformed.
    pub fn new(_config: &Config) -> Result<Self, globset::Error> {
        Ok(Self {
            clock: ClockPair { boot: Boottime(0), wall: jiff::Timestamp::UNIX_EPOCH },
            corrections: BTreeMap::new(),
        })
    }

    /// Takes another config; history stays.
    ///
    /// # Errors
    /// A glob of the config is malformed; the ledger then keeps what it had.
    pub fn reconfigure(&mut self, _config: &Config) -> Result<(), globset::Error> {
        Ok(())
    }

    /// Takes in a census; `units[i]` owns `obs.processes[i]`.
    pub fn census(&mut self, obs: Observation, _units: &[Arc<Unit>]) {
        self.clock = obs.at;
    }

    /// Takes in what happened between two censuses.
    pub fn task(&mut self, _event: &TaskEvent, _unit: Option<&Arc<Unit>>) {}

    /// Every unit, by name.
    pub fn views(&self) -> Vec<UnitView> {
        Vec::new()
    }

    /// What the census corrected, by cause.
    pub fn corrections(&self) -> &BTreeMap<String, u64> {
        &self.corrections
    }

    /// Both clocks at the last census.
    pub fn clock(&self) -> ClockPair {
        self.clock
    }
}
