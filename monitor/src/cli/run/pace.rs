//! When to look at processes that run: often enough to see a course, seldom enough not
//! to be felt.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Between two looks, at least.
const EVERY: Duration = Duration::from_millis(50);
/// One part of the time in so many goes to looks, at most.
const SHARE: u32 = 50;

/// The time until the next look.
pub(super) struct Pace {
    next: Instant,
    /// Processor time of this thread when the look began.
    spent: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { next: Instant::now() + EVERY, spent: spent() }
    }

    /// Whether a look is due. One that is begun is ended by [`Self::done`].
    pub(super) fn due(&mut self) -> bool {
        self.spent = spent();
        Instant::now() >= self.next
    }

    /// A look is over.
    pub(super) fn done(&mut self) {
        let took = spent().saturating_sub(self.spent);
        self.next = Instant::now() + EVERY.max(took * SHARE);
    }

    /// From now to the next look.
    pub(super) fn rest(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }
}

/// Not the time that passed: where others take the processor, the look is not to blame.
fn spent() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}
