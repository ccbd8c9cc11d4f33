//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long a condition that should hold soon may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// What every limit here is multiplied by: a processor that is emulated, on a host
/// that has other work besides, takes that much longer for all it does.
pub fn patience() -> u32 {
    let said = std::env::var("LEAKWATCH_TEST_PATIENCE").ok();
    said.and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// Asks `condition` again and again until it gives something, and gives that.
///
/// # Panics
/// It gave nothing within `limit` times [`patience`]; the message names `what` was waited for.
#[track_caller]
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let (begun, limit) = (Instant::now(), limit * patience());
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain for this: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks `condition` for `time`, and gives how it was broken as soon as it is: for
/// things that must stay so.
///
/// # Errors
/// The first complaint.
pub fn stays<E>(time: Duration, mut condition: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        condition()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    condition()
}
