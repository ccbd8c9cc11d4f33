//! Gives back to the kernel what the allocator keeps.

use std::time::{Duration, Instant};

/// Between two times.
const EVERY: Duration = Duration::from_secs(60);

/// A census takes and frees megabytes in a moment, and what lives on lies between them:
/// the allocator's free pages stay with the process. In half an hour of units that came
/// and went an agent grew to 66 MiB so, and to 52 MiB with this (`docs/hardening.md`).
pub(super) struct Trimmer {
    last: Instant,
}

impl Trimmer {
    /// The first time is a while from now.
    pub(super) fn new() -> Self {
        Self { last: Instant::now() }
    }

    /// Gives free pages back, once in a while. Takes some milliseconds per 100 MiB, in
    /// which others who allocate wait: best where nobody works.
    pub(super) fn when_due(&mut self) {
        if self.last.elapsed() < EVERY {
            return;
        }
        self.last = Instant::now();
        trim();
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    let before = Instant::now();
    // SAFETY: it takes the allocator's own locks (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
    tracing::debug!(took = ?before.elapsed(), "free memory given back");
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
