//! What systemd's manager says of its units, over D-Bus.
//!
//! An annotation, as the probes are: counts never depend on it. A thread of its
//! own asks ([`keeper`]), so that a bus that is slow or dead can hold up nobody: a
//! look tells the thread which units have processes, and takes whatever is known
//! by then. Where nothing hints at a systemd there is no thread.

mod bus;
mod cgroup;
mod keeper;
pub mod unit;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::model::{KernelStr, ProcessSample, SourceState, SystemdUnit};

/// A unit without processes is asked about for so long: that it has failed is
/// what people want to know then.
const LINGER: Duration = Duration::from_secs(600);

/// A systemd where there was none is noticed within so long: a container may be
/// given the host's bus later.
const SEARCH: Duration = Duration::from_secs(60);

/// The units to ask about: cgroup by name.
type Wanted = BTreeMap<Arc<str>, KernelStr>;

/// How the bus is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Link {
    /// There should be one; it was not tried yet.
    Trying,
    /// It answers.
    Up,
    /// It should answer and does not.
    Down(String),
    /// Nobody expects it to: this machine or container has no systemd.
    Absent(String),
}

#[derive(Debug)]
struct Known {
    link: Link,
    /// The manager's own cgroup; empty where that is the root.
    root: Vec<u8>,
    units: BTreeMap<KernelStr, Arc<SystemdUnit>>,
}

/// What the thread found out so far.
#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    changed: Condvar,
}

impl Shared {
    fn new() -> Self {
        let known = Known { link: Link::Trying, root: Vec::new(), units: BTreeMap::new() };
        Self { known: Mutex::new(known), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each change is one assignment: there is no half-made state to fear.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bus is in another state now; without it nothing is known.
    fn link(&self, link: Link) {
        let mut known = self.lock();
        if link != Link::Up {
            known.units.clear();
        }
        known.link = link;
        self.changed.notify_all();
    }
}

/// A handle on the thread; dropping it ends the thread at its next step.
pub struct Systemd {
    shared: Arc<Shared>,
    wanted: watch::Sender<Wanted>,
    /// What the thread will listen to, until there is one.
    idle: Option<watch::Receiver<Wanted>>,
    searched: Instant,
    /// Cgroup and last sight of each unit.
    seen: BTreeMap<Arc<str>, (KernelStr, Instant)>,
    most: usize,
}

impl Systemd {
    /// Starts to ask, about at most `most` units.
    pub fn start(most: usize) -> Self {
        let shared = Arc::new(Shared::new());
        let (wanted, receiver) = watch::channel(Wanted::new());
        let (idle, searched) = (Some(receiver), Instant::now());
        let mut this = Self { shared, wanted, idle, searched, seen: BTreeMap::new(), most };
        this.search();
        this
    }

    /// Starts the thread if there may be a systemd to ask.
    fn search(&mut self) {
        if let Ok(bus::Place::Nowhere(reason)) = bus::place() {
            return self.shared.link(Link::Absent(reason));
        }
        let Some(receiver) = self.idle.take() else { return };
        self.shared.link(Link::Trying);
        let shared = Arc::clone(&self.shared);
        let started = std::thread::Builder::new()
            .name("systemd".into())
            .spawn(move || keeper::run(&shared, receiver));
        if let Err(e) = started {
            self.shared.link(Link::Down(format!("cannot start a thread to ask it: {e}")));
        }
    }

    /// Another bound.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Tells the thread whose processes there are.
    pub fn tell(&mut self, processes: &[ProcessSample], now: Instant) {
        if self.idle.is_some() && now.duration_since(self.searched) >= SEARCH {
            self.searched = now;
            self.search();
        }
        let root = self.shared.lock().root.clone();
        for p in processes.iter().filter(|p| !p.zombie) {
            let path = p.cgroup.as_bytes();
            let Some((name, end)) = cgroup::unit(path, &root) else { continue };
            match self.seen.get_mut(name) {
                Some((cgroup, at)) if cgroup.as_bytes() == &path[..end] => *at = now,
                _ => drop(self.seen.insert(name.into(), ((&path[..end]).into(), now))),
            }
        }
        self.seen.retain(|_, (_, at)| now.duration_since(*at) < LINGER);
        while self.seen.len() > self.most {
            // Those that went first; among those here now, by name: a choice
            // that the next look makes again.
            let last = self
                .seen
                .iter()
                .min_by_key(|(name, (_, at))| (*at, std::cmp::Reverse(Arc::clone(name))));
            let Some(last) = last.map(|(name, _)| Arc::clone(name)) else { break };
            self.seen.remove(&last);
        }
        let wanted = self.seen.iter().map(|(name, (cgroup, _))| (name.clone(), cgroup.clone()));
        let wanted: Wanted = wanted.collect();
        self.wanted.send_if_modified(|before| {
            let differs = *before != wanted;
            *before = wanted;
            differs
        });
    }

    /// What is known now, by the units' own cgroup paths.
    pub fn units(&self) -> BTreeMap<KernelStr, Arc<SystemdUnit>> {
        self.shared.lock().units.clone()
    }

    /// For `doctor`, `/` and `leakwatch_source_state`.
    pub fn state(&self) -> SourceState {
        let link = self.shared.lock().link.clone();
        let (active, standby, reason) = match link {
            Link::Up => (true, false, String::new()),
            Link::Trying => (false, true, "not asked yet".into()),
            Link::Absent(reason) => (false, true, reason),
            Link::Down(reason) => (false, false, reason),
        };
        let (source, mechanism) = ("systemd".into(), "dbus".into());
        SourceState { source, mechanism, active, standby, reason }
    }

    /// Waits until the bus has answered or failed to, for `limit` at most.
    pub fn settle(&self, limit: Duration) {
        let trying = |known: &mut Known| known.link == Link::Trying;
        drop(self.shared.changed.wait_timeout_while(self.shared.lock(), limit, trying));
    }
}

#[cfg(test)]
mod tests;
