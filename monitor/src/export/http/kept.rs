//! Answers that are built once for all who ask for the same.
//!
//! To render five hundred units takes milliseconds, to copy the result none. So
//! a client that asks a thousand times in a row costs a thousand copies, and the
//! threads that serve stay free for the others. Whoever asks after a new
//! snapshot gets that one; only what is not in a snapshot (the agent's own
//! usage, the age of the census) may be [`FRESH`] old.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use hyper::body::Bytes;

use super::reply::{self, Reply};
use super::target::Target;
use super::view::View;
use crate::export::snapshot::Snapshot;

/// How old an answer may be while the snapshot is the same.
const FRESH: Duration = Duration::from_secs(1);

/// One answer for each document that is built from the whole snapshot.
#[derive(Default)]
pub(crate) struct Kept {
    answers: [Mutex<Option<Built>>; Target::KEPT],
}

struct Built {
    // Weak: an old snapshot is not to live on until somebody asks again. Its
    // address cannot be another's while this is here.
    of: Option<Weak<Snapshot>>,
    at: Instant,
    plain: Reply,
    /// Compressed when first asked for; `None` inside where that is not worth it.
    gzip: Option<Option<Bytes>>,
}

impl Kept {
    /// The answer for `target` as of `now`, `gzip` where the client takes that.
    pub(super) fn get(
        &self,
        target: &Target,
        view: &View,
        gzip: bool,
        now: Instant,
        build: impl FnOnce() -> Reply,
    ) -> Reply {
        let Some(slot) = target.slot().and_then(|slot| self.answers.get(slot)) else {
            let plain = build();
            let small = if gzip { reply::gzip(plain.body()) } else { None };
            return reply::encoded(&plain, small);
        };
        // Read before it is built: the answer may be newer than this says, which
        // has it built once more, but never older.
        let snapshot = view.snapshot();
        // Others who want the same wait for it instead of building it too.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let built = match slot.take().filter(|built| built.is_good(snapshot.as_ref(), now)) {
            Some(built) => slot.insert(built),
            None => slot.insert(Built {
                of: snapshot.as_ref().map(Arc::downgrade),
                at: now,
                plain: build(),
                gzip: None,
            }),
        };
        let small = if gzip {
            built.gzip.get_or_insert_with(|| reply::gzip(built.plain.body())).clone()
        } else {
            None
        };
        reply::encoded(&built.plain, small)
    }
}

impl Built {
    fn is_good(&self, snapshot: Option<&Arc<Snapshot>>, now: Instant) -> bool {
        let same = match (&self.of, snapshot) {
            (Some(of), Some(snapshot)) => of.as_ptr() == Arc::as_ptr(snapshot),
            (None, None) => true,
            _ => false,
        };
        same && now.saturating_duration_since(self.at) < FRESH
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use hyper::StatusCode;

    use super::*;
    use crate::detection::verdict::State;
    use crate::export::testing::night;

    #[test]
    fn an_answer_is_built_anew_for_a_new_snapshot_and_after_a_second() {
        let (kept, view, builds) = (Kept::default(), View::new(), Cell::new(0));
        let begun = Instant::now();
        let ask = |target: Target, gzip: bool, ms: u64| {
            let build = || {
                builds.set(builds.get() + 1);
                let body = format!("{}{}", builds.get(), " ".repeat(5_000));
                reply::reply(StatusCode::OK, reply::TEXT, body.into_bytes())
            };
            kept.get(&target, &view, gzip, begun + Duration::from_millis(ms), build);
            builds.get()
        };
        assert_eq!(ask(Target::Metrics, false, 0), 1);
        assert_eq!(ask(Target::Metrics, true, 100), 1);
        assert_eq!(ask(Target::Metrics, false, 999), 1);
        assert_eq!(ask(Target::Metrics, false, 1_000), 2);
        // The first snapshot, and a later one.
        for want in [3, 4] {
            view.publish(night().into());
            assert_eq!(ask(Target::Metrics, false, 1_001), want);
            assert_eq!(ask(Target::Metrics, true, 1_002), want);
        }
        // Each document has its own place; what is about one thing has none.
        assert_eq!(ask(Target::Leaks(None), false, 1_003), 5);
        assert_eq!(ask(Target::Leaks(Some(State::Confirmed)), false, 1_003), 6);
        assert_eq!(ask(Target::Leaks(None), true, 1_004), 6);
        assert_eq!(ask(Target::Metrics, false, 1_004), 6);
        assert_eq!(ask(Target::Unit("a".into()), false, 1_004), 7);
        assert_eq!(ask(Target::Unit("a".into()), false, 1_004), 8);
    }

    #[test]
    fn no_snapshot_lives_on_for_being_shown() {
        let (kept, view) = (Kept::default(), View::new());
        let snapshot = Arc::new(night());
        let old = Arc::downgrade(&snapshot);
        view.publish(snapshot);
        let build = || reply::text(StatusCode::OK, "x");
        kept.get(&Target::Metrics, &view, true, Instant::now(), build);
        view.publish(night().into());
        assert!(old.upgrade().is_none());
    }
}
