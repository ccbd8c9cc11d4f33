//! How long what only grows in number is given before it is called a leak.
//!
//! While a pool or a cache fills, nothing tells it from a leak: what does is where it
//! ends. So a number alone confirms only once it takes a good part of the limit, which
//! few pools are made to do, or has grown for longer than anything takes to fill.

use crate::config::model::Detection;
use crate::ledger::process::Process;

/// A rise that takes little of the limit is confirmed after so many times `windows`.
const PATIENCE: u64 = 20;

/// Where no limit is known: the soft limit that Linux gives a process
/// (`INR_OPEN_CUR` in `include/uapi/linux/fs.h`).
const USUAL_LIMIT: u64 = 1024;

/// A limit above it is no limit that somebody chose for what the process needs.
const LARGE_LIMIT: u64 = 16_384;

/// What a rise must show before it confirms.
pub(crate) struct Asked<'a> {
    /// Rises in a row.
    pub rises: usize,
    /// So much of the limit is taken…
    pub share: f64,
    /// …or it has gone on for so many windows of the config.
    pub patience: u64,
    /// How much a process, or its unit, may have.
    limit: &'a dyn Fn(&Process) -> Option<u64>,
}

impl<'a> Asked<'a> {
    /// Of what is no file cache.
    pub fn of(config: &Detection, limit: &'a dyn Fn(&Process) -> Option<u64>) -> Self {
        let rises = config.windows.max(1) as usize;
        Self { rises, share: config.min_share, patience: patience(config), limit }
    }

    /// So many times as many windows, and as much of the limit.
    pub fn times(self, windows: usize, share: f64) -> Self {
        Self {
            rises: self.rises * windows,
            share: (self.share * share).min(1.0),
            patience: self.patience * windows as u64,
            ..self
        }
    }

    /// The limit that a share is of.
    pub fn limit(&self, p: &Process) -> u64 {
        limited((self.limit)(p))
    }

    /// So many are enough of it.
    pub fn enough(&self, p: &Process) -> u64 {
        (self.share * self.limit(p) as f64).ceil() as u64
    }
}

/// Windows after which a rise is confirmed that takes little of the limit.
pub(crate) fn patience(config: &Detection) -> u64 {
    u64::from(config.windows.max(1)) * PATIENCE
}

/// The limit that a share is of, where the process has this one.
pub(crate) fn limited(limit: Option<u64>) -> u64 {
    limit.unwrap_or(USUAL_LIMIT).min(LARGE_LIMIT)
}
