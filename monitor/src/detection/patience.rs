//! How long what only grows in number is given before it is called a leak.
//!
//! While a pool or a cache fills, nothing tells it from a leak: what does is where it
//! ends. So a number alone confirms only once it takes a good part of the limit, which
//! few pools are made to do, or has grown for longer than anything takes to fill.

use std::collections::HashMap;

use crate::config::model::Detection;
use crate::ledger::DAY;
use crate::ledger::baseline::{Usual, about};
use crate::ledger::process::{Held, Process};
use crate::source::model::FdKind;

/// Where no limit is known: the soft limit that Linux gives a process
/// (`INR_OPEN_CUR` in `include/uapi/linux/fs.h`).
const USUAL_LIMIT: u64 = 1024;

/// More than the pools of servers are made to hold as they come: of servlet containers 200.
const THREADS_OF_A_POOL: u64 = 201;

/// A limit above it is no limit that somebody chose for what the process needs.
const LARGE_LIMIT: u64 = 16_384;

/// Files that are each open once look like the file cache of a database until it is full,
/// and connections in use like a pool: they need so many times the windows…
pub(crate) const CACHE_WINDOWS: usize = 2;
/// …and so many times the share of the limit: half of it, unless `min_share` is set.
pub(crate) const CACHE_SHARE: f64 = 8.0;

/// Files that stay, each open once, where the others are closed soon: so many times the share,
/// which is still less than a tenth of the limit.
const KEPT_SHARE: f64 = 1.5;

/// Files of which each is open once.
pub(crate) fn may_be_cache(members: &[(&Process, &Held)]) -> bool {
    let is_file = |h: &Held| matches!(h.kind, FdKind::Regular | FdKind::Log | FdKind::Directory);
    let mut files: HashMap<(u32, u32, u64), u32> = HashMap::new();
    for (p, h) in members {
        *files.entry((p.serial, h.device, h.inode)).or_default() += 1;
    }
    // A handful of repeats is chance; a leak repeats most of them.
    members.iter().all(|(_, h)| is_file(h)) && files.len() * 10 > members.len() * 9
}

/// What a rise must show before it confirms.
pub(crate) struct Asked<'a> {
    /// Rises in a row.
    pub rises: usize,
    /// So much of the limit is taken…
    pub share: f64,
    /// …and no fewer than so many, unless that is more than half of it…
    least: u64,
    /// …beside so many…
    anyway: fn(&Process) -> u64,
    /// …or it has gone on for so many windows of the config; `None`: that alone is no reason.
    pub patience: Option<u64>,
    /// How much a process, or its unit, may have.
    limit: &'a dyn Fn(&Process) -> Option<u64>,
    /// Where earlier lives came to rest.
    pub usual: Option<Usual>,
}

impl<'a> Asked<'a> {
    /// Of what is no file cache.
    pub fn of(config: &Detection, limit: &'a dyn Fn(&Process) -> Option<u64>) -> Self {
        let rises = config.windows.max(1) as usize;
        let (share, patience) = (config.min_share, Some(patience(config)));
        Self { rises, share, least: 0, anyway: |_| 0, patience, limit, usual: None }
    }

    /// Of threads, which a pool has by the hundred, beside those that a program has anyway.
    pub fn of_threads(config: &Detection, limit: &'a dyn Fn(&Process) -> Option<u64>) -> Self {
        let anyway = |p: &Process| u64::from(p.fewest_threads);
        Self { least: THREADS_OF_A_POOL, anyway, ..Self::of(config, limit) }
    }

    /// With what is usual for a cohort.
    pub fn beside(self, usual: Option<Usual>) -> Self {
        Self { usual, ..self }
    }

    /// Why so many are no more than usual.
    pub fn expects(&self, count: u64) -> Option<String> {
        let usual = self.usual.as_ref()?;
        let most = about(usual.at);
        (count <= u64::from(most))
            .then(|| format!("{}: up to {most} it is as it was", rested(usual)))
    }

    /// So many are far above what is usual under this very version, so that it is no pool
    /// that fills.
    pub fn surpasses(&self, count: u64, min_held: u64) -> bool {
        let usual = self.usual.as_ref().filter(|usual| usual.other.is_none());
        usual.is_some_and(|usual| count >= u64::from(usual.at) * 2 + min_held)
    }

    /// What is usual, in words, where the doubt does not say it already.
    pub fn beside_doubt(&self, doubt: Option<&str>) -> Option<String> {
        let known = self.usual.as_ref().map(rested)?;
        doubt.is_none_or(|doubt| !doubt.starts_with(&known)).then_some(known)
    }

    /// Of what looks like a file cache, or is in use.
    pub fn of_cache(self) -> Self {
        let share = (self.share * CACHE_SHARE).min(1.0);
        Self { rises: self.rises * CACHE_WINDOWS, share, ..self }
    }

    /// Of what may be a file cache, beside files that are closed soon, as those of a cache are
    /// not.
    pub fn of_kept_files(self) -> Self {
        Self { share: (self.share * KEPT_SHARE).min(1.0), ..self }
    }

    /// Of what belongs to connections that are in use: if those are leaked it is they that
    /// grow in number, for however long.
    pub fn of_companions(self) -> Self {
        Self { patience: None, ..self.of_cache() }
    }

    /// The limit that a share is of.
    pub fn limit(&self, p: &Process) -> u64 {
        limited((self.limit)(p))
    }

    /// So many are enough of it.
    pub fn enough(&self, p: &Process) -> u64 {
        let (limit, share) = (self.limit(p), self.share * self.limit(p) as f64);
        // With no share asked for, any number will do.
        let least = self.least + (self.anyway)(p);
        let least = if self.share > 0.0 { least.min(limit / 2) } else { 0 };
        (share.ceil() as u64).max(least)
    }
}

fn rested(usual: &Usual) -> String {
    let Usual { at, lives, other } = usual;
    match other {
        None => format!("{lives} earlier lives came to rest at {at}"),
        Some(version) => format!(
            "{lives} lives of the version before ({} of {}) came to rest at {at}",
            version.exe,
            version.modified.strftime("%Y-%m-%dT%H:%M:%SZ")
        ),
    }
}

/// A rise that takes little of the limit is confirmed after so many days: by the second, a
/// service has seen each load twice, and a pool or cache that this fills is full.
const PATIENCE: u64 = 2;

/// Windows after which a rise is confirmed that takes little of the limit.
pub(crate) fn patience(config: &Detection) -> u64 {
    u64::from(config.windows.max(1)) * u64::from(DAY) * PATIENCE
}

/// The limit that a share is of, where the process has this one.
pub(crate) fn limited(limit: Option<u64>) -> u64 {
    limit.unwrap_or(USUAL_LIMIT).min(LARGE_LIMIT)
}
