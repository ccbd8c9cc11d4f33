//! One thing that the stages were fed.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::source::model::{KernelStr, Observation, ProcessSample, TaskEvent};
use crate::time::{Boottime, ClockPair};

/// An input of the stages, with the clocks that were read for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// The config, at the start and whenever it is read again.
    Config(Box<Config>),
    /// Names of the user ids that have one; instead of those told before.
    Users(BTreeMap<u32, KernelStr>),
    /// A census, and when it was judged.
    Look(Box<Observation>, ClockPair),
    /// Task events.
    Tasks(Vec<TaskEvent>),
    /// Processes that were asked after between two censuses, and when. What they
    /// have open is not in it.
    Glimpse(Vec<ProcessSample>, Boottime),
    /// The verdicts were brought up to date between two censuses.
    Judge(ClockPair),
}
