//! Gives back to the kernel what the allocator keeps.

use std::time::{Duration, Instant};

/// Between two times.
const EVERY: Duration = Duration::from_secs(60);

/// A census takes and frees megabytes in a moment, and what lives on lies between them,
/// so that the allocator cannot shrink its heaps from the end: free pages stay with the
/// process. What that came to is in `docs/hardening.md`.
pub(super) struct Trimmer {
    last: Instant,
}

impl Trimmer {
    /// The first time is a while from now.
    pub(super) fn new() -> Self {
        Self { last: Instant::now() }
    }

    /// Gives free pages back, once in a while; others who allocate wait meanwhile. It took
    /// 1 to 2 ms at 100,000 descriptors; `--log-level debug` says how long here.
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

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    fn resident_bytes() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    }

    #[test]
    fn free_pages_between_what_lives_on_go_back() {
        const BLOCKS: usize = 64 * 1024;
        let mut blocks: Vec<Option<Box<[u8]>>> =
            (0..BLOCKS).map(|n| Some(vec![n as u8; 1024].into_boxed_slice())).collect();
        // One in 64 lives on, so that the heap cannot shrink from its end.
        for (n, block) in blocks.iter_mut().enumerate() {
            if n % 64 != 63 {
                *block = None;
            }
        }
        let before = resident_bytes();
        trim();
        let after = resident_bytes();
        // 63 MiB are free; other tests take and give meanwhile.
        assert!(after + (32 << 20) < before, "{before} bytes before, {after} after");
        assert_eq!(blocks.iter().flatten().count(), BLOCKS / 64);
    }
}
