//! What the server may know: the newest snapshot, and whether the loop lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::export::snapshot::Snapshot;
use crate::text;

/// Nothing is called late before this much time has passed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the first census may take.
const START: Duration = Duration::from_secs(300);

/// The border between the pipeline, which writes, and the server, which reads.
/// Neither ever waits for the other.
#[derive(Debug)]
pub struct View {
    snapshot: ArcSwapOption<Snapshot>,
    // The monotonic clock, as milliseconds since `created`: a step of the wall
    // clock makes no census old.
    created: Instant,
    beat_ms: AtomicU64,
    census_ms: AtomicU64,
}

impl Default for View {
    fn default() -> Self {
        Self {
            snapshot: ArcSwapOption::empty(),
            created: Instant::now(),
            beat_ms: AtomicU64::new(0),
            census_ms: AtomicU64::new(0),
        }
    }
}

impl View {
    /// A view with nothing in it; the loop counts as alive from now on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows a new snapshot. It is a new census where its `at` is new.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        let at = snapshot.at;
        let before = self.snapshot.swap(Some(snapshot));
        if before.is_none_or(|before| before.at != at) {
            self.census_ms.store(self.elapsed(Instant::now()), Ordering::Release);
        }
        self.beat();
    }

    /// Says that the loop lives; to be called at every turn of it.
    pub fn beat(&self) {
        self.beat_ms.store(self.elapsed(Instant::now()), Ordering::Release);
    }

    /// The newest snapshot; `None` before the first.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    /// Whether the loop turns.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn alive(&self) -> Result<(), String> {
        self.alive_at(Instant::now())
    }

    /// Whether what is shown is of now.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn ready(&self) -> Result<(), String> {
        self.ready_at(Instant::now())
    }

    fn alive_at(&self, now: Instant) -> Result<(), String> {
        let allowed = self.snapshot.load().as_ref().map_or(START, |s| limit(s.interval));
        let silent = self.age(now, &self.beat_ms);
        if silent <= allowed {
            return Ok(());
        }
        Err(format!(
            "the pipeline has not moved for {}; it should within {}; restart the agent and \
             report this with its log",
            text::duration(silent),
            text::duration(allowed)
        ))
    }

    fn ready_at(&self, now: Instant) -> Result<(), String> {
        let guard = self.snapshot.load();
        let Some(snapshot) = guard.as_ref() else {
            return Err("the first census is still under way".to_owned());
        };
        let allowed = limit(snapshot.interval);
        let age = self.age(now, &self.census_ms);
        if age <= allowed {
            return Ok(());
        }
        Err(format!(
            "the last census is {} old; it should be at most {}",
            text::duration(age),
            text::duration(allowed)
        ))
    }

    fn elapsed(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.created).as_millis()).unwrap_or(u64::MAX)
    }

    fn age(&self, now: Instant, since: &AtomicU64) -> Duration {
        let since = since.load(Ordering::Acquire);
        Duration::from_millis(self.elapsed(now).saturating_sub(since))
    }
}

/// Five intervals, since the budget may stretch one between two snapshots.
fn limit(interval: Duration) -> Duration {
    PATIENCE.max(interval.saturating_mul(5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::night;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn nobody_is_ready_before_the_first_census_but_alive() {
        let view = View::new();
        assert_eq!(view.ready(), Err("the first census is still under way".to_owned()));
        assert_eq!(view.alive(), Ok(()));
        let error = view.alive_at(view.created + seconds(301)).unwrap_err();
        assert!(error.contains("has not moved for 5 min"), "{error}");
    }

    #[test]
    fn a_census_is_old_after_thirty_seconds_or_five_intervals() {
        for (interval, good, old) in [(5, 29, 32), (20, 99, 102)] {
            let view = View::new();
            let mut snapshot = night();
            snapshot.interval = seconds(interval);
            view.publish(snapshot.into());
            let now = Instant::now();
            assert_eq!(view.ready_at(now + seconds(good)), Ok(()));
            let error = view.ready_at(now + seconds(old)).unwrap_err();
            assert!(error.starts_with("the last census is "), "{error}");
            assert!(view.alive_at(now + seconds(old)).is_err());
        }
    }

    #[test]
    fn showing_the_same_census_again_does_not_make_it_young() {
        let view = View::new();
        let snapshot = Arc::new(night());
        view.publish(Arc::clone(&snapshot));
        view.census_ms.store(0, Ordering::Release);
        std::thread::sleep(Duration::from_millis(5));
        view.publish(snapshot);
        assert_eq!(view.census_ms.load(Ordering::Acquire), 0);
        assert!(view.beat_ms.load(Ordering::Acquire) > 0);
    }
}
