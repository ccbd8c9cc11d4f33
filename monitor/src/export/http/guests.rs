//! Who holds a place, and who has to give it up for one more.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

/// Connections at a time, over all addresses.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// A guest is not called silent or idle before: one that has just come may be
/// about to ask.
const GRACE: Duration = Duration::from_millis(250);
/// What a peer does not take for this long, it is not waiting for.
const STALLED: Duration = Duration::from_secs(1);
/// An aborted task gives its place back as soon as the runtime drops it.
const LEAVE: Duration = Duration::from_secs(1);
/// Between two complaints in the log: clients must not be able to fill it.
const COMPLAIN: Duration = Duration::from_secs(60);

/// What a guest is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It has asked nothing yet.
    Silent,
    /// Its answer is under way.
    Served,
    /// It does not take its answer.
    Stalled,
    /// It has all its answers.
    Idle,
}

/// How one guest behaves: its connection writes that down, the door reads it.
#[derive(Debug)]
pub(super) struct Conduct {
    came: Instant,
    // One word, so that nobody reads a state with another state's time:
    // milliseconds since `came`, and in the lowest two bits what it does.
    doing: AtomicU64,
    asked: AtomicU64,
}

impl Conduct {
    pub(super) fn new() -> Self {
        Self { came: Instant::now(), doing: AtomicU64::new(0), asked: AtomicU64::new(0) }
    }

    /// It asks; how often it has by now.
    pub(super) fn asks(&self) -> u64 {
        // Who asks on without taking what there is stays stalled.
        if self.doing().0 != Doing::Stalled {
            self.does(Doing::Served);
        }
        self.asked.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The peer takes no more for now.
    pub(super) fn stalls(&self) {
        if self.doing().0 != Doing::Stalled {
            self.does(Doing::Stalled);
        }
    }

    /// The peer has taken all there was.
    pub(super) fn is_served(&self) {
        if matches!(self.doing().0, Doing::Served | Doing::Stalled) {
            self.does(Doing::Idle);
        }
    }

    fn does(&self, doing: Doing) {
        let ms = u64::try_from(self.came.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
        self.doing.store(ms << 2 | doing as u64, Ordering::Relaxed);
    }

    /// What it does, and since how long after it came.
    fn doing(&self) -> (Doing, Duration) {
        let word = self.doing.load(Ordering::Relaxed);
        let doing = match word & 3 {
            0 => Doing::Silent,
            1 => Doing::Served,
            2 => Doing::Stalled,
            _ => Doing::Idle,
        };
        (doing, Duration::from_millis(word >> 2))
    }

    /// The least goes first: who says nothing, who takes nothing, who has all;
    /// then whoever asked for more than one thing, the greediest first. So one
    /// that came to ask once is the last to go, however many others there are.
    fn claim(&self, now: Instant) -> (u8, Reverse<u64>) {
        let age = now.saturating_duration_since(self.came);
        let (doing, since) = self.doing();
        let lasted = age.saturating_sub(since);
        let asked = self.asked.load(Ordering::Relaxed);
        let ms = |d: Duration| Reverse(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        match doing {
            Doing::Silent if lasted >= GRACE => (0, ms(lasted)),
            Doing::Stalled if lasted >= STALLED => (1, ms(lasted)),
            Doing::Idle if lasted >= GRACE => (2, ms(lasted)),
            _ if asked > 1 => (3, Reverse(asked)),
            Doing::Silent => (4, ms(lasted)),
            _ => (5, ms(age)),
        }
    }
}

struct Guest {
    conduct: Arc<Conduct>,
    task: AbortHandle,
}

/// Everybody who is in.
pub(super) struct Guests {
    places: Arc<Semaphore>,
    seated: Mutex<Seated>,
}

#[derive(Default)]
struct Seated {
    guests: Vec<Guest>,
    complained: Option<Instant>,
}

impl Guests {
    pub(super) fn new() -> Self {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { places, seated: Mutex::default() }
    }

    /// A place for one more. Where all are taken, the guest with the least claim
    /// has to go. `None` only where that one does not leave in time.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        self.send_one_away();
        timeout(LEAVE, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()
    }

    /// Remembers who got a place.
    pub(super) fn seat(&self, conduct: Arc<Conduct>, task: AbortHandle) {
        let mut seated = self.seated();
        seated.guests.retain(|guest| !guest.task.is_finished());
        seated.guests.push(Guest { conduct, task });
    }

    fn send_one_away(&self) {
        let now = Instant::now();
        let mut seated = self.seated();
        seated.guests.retain(|guest| !guest.task.is_finished());
        let least = (0..seated.guests.len()).min_by_key(|i| seated.guests[*i].conduct.claim(now));
        if let Some(least) = least {
            seated.guests.swap_remove(least).task.abort();
        }
        if seated.complained.is_none_or(|at| now.duration_since(at) >= COMPLAIN) {
            seated.complained = Some(now);
            tracing::warn!(
                limit = MAX_CONNECTIONS,
                "too many connections: for each new one, one that is silent, slow or idle is closed"
            );
        }
    }

    fn seated(&self) -> MutexGuard<'_, Seated> {
        // Whoever panicked while it held the lock left a list that is whole.
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What guests do, each at its time in milliseconds, until `now`; who goes first.
    #[track_caller]
    fn goes(now: u64, guests: &[&[(u64, &str)]]) -> usize {
        let came = Instant::now();
        let conducts: Vec<Conduct> = guests
            .iter()
            .map(|deeds| {
                let mut conduct = Conduct::new();
                let first = deeds[0].0;
                conduct.came = came + Duration::from_millis(first);
                for (at, deed) in *deeds {
                    let doing = match *deed {
                        "comes" => continue,
                        "asks" => {
                            conduct.asks();
                            continue;
                        }
                        "is served" => Doing::Served,
                        "stalls" => Doing::Stalled,
                        "has all" => Doing::Idle,
                        other => panic!("{other}"),
                    };
                    conduct.doing = AtomicU64::new((at - first) << 2 | doing as u64);
                }
                conduct
            })
            .collect();
        let now = came + Duration::from_millis(now);
        (0..conducts.len()).min_by_key(|i| conducts[*i].claim(now)).unwrap()
    }

    #[test]
    fn the_one_with_the_least_claim_goes_first() {
        let served: &[_] = &[(9_000, "comes"), (9_000, "asks"), (9_100, "is served")];
        let silent: &[_] = &[(9_500, "comes")];
        let stalled: &[_] = &[(0, "comes"), (0, "asks"), (8_000, "stalls")];
        let stalled_longer: &[_] = &[(5_000, "comes"), (5_000, "asks"), (7_000, "stalls")];
        let just_stalled: &[_] = &[(0, "comes"), (0, "asks"), (9_500, "stalls")];
        let idle: &[_] = &[(0, "comes"), (0, "asks"), (1_000, "has all")];
        let greedy: &[_] = &[(8_000, "comes"), (0, "asks"), (0, "asks"), (9_999, "is served")];
        let greedier: &[_] =
            &[(8_000, "comes"), (0, "asks"), (0, "asks"), (0, "asks"), (9_999, "is served")];
        let new: &[_] = &[(9_900, "comes")];
        for (guests, want) in [
            (&[served, stalled, silent, idle][..], 2),
            (&[served, stalled, idle, greedy], 1),
            (&[stalled, stalled_longer, just_stalled], 1),
            (&[served, just_stalled, idle, greedier], 2),
            (&[served, greedy, new, greedier, just_stalled], 3),
            (&[served, new, greedy], 2),
            (&[served, new, just_stalled], 1),
            (&[served, just_stalled], 1),
            (&[&[(9_800, "comes")], new], 0),
        ] {
            assert_eq!(goes(10_000, guests), want, "{guests:?}");
        }
    }

    #[test]
    fn who_asks_on_without_taking_stays_stalled() {
        let conduct = Conduct::new();
        assert_eq!(conduct.doing().0, Doing::Silent);
        conduct.is_served();
        assert_eq!(conduct.doing().0, Doing::Silent);
        assert_eq!(conduct.asks(), 1);
        assert_eq!(conduct.doing().0, Doing::Served);
        conduct.stalls();
        assert_eq!(conduct.asks(), 2);
        assert_eq!(conduct.doing().0, Doing::Stalled);
        conduct.is_served();
        assert_eq!(conduct.doing().0, Doing::Idle);
    }
}
