//! Opening and closing at a rate.

use std::collections::VecDeque;
use std::time::Duration;

use leakwatch_tests::program::Pace;
use leakwatch_tests::raw::{self, Fd};

use crate::{Tally, add};

/// Beats per second: at each the share of the rate that is due.
const BEATS: u64 = 200;
/// Held at a time, so that lifetimes are not all the same.
const HOLD: usize = 32;
/// Every so many-th is an eventfd, which nothing else in this program makes: what
/// the probes count of them can be compared to the one.
const EVENTFD: u64 = 10;

/// Until it is over; what is held then stays open.
pub fn run(tally: &Tally, rate: u64) {
    let mut pace = Pace::new(Duration::from_secs(1) / BEATS as u32);
    let mut held: VecDeque<Fd> = VecDeque::with_capacity(HOLD + 1);
    while !tally.over() {
        for i in 0..(rate / BEATS).max(1) {
            let fd = if i % EVENTFD == 0 {
                add(&tally.eventfds, 1);
                raw::plain(libc::SYS_eventfd2, &[0, 0])
            } else {
                raw::open_null(libc::O_CLOEXEC)
            };
            held.push_back(fd.expect("far from any limit"));
            add(&tally.opens, 1);
            if held.len() > HOLD
                && let Some(oldest) = held.pop_front()
            {
                raw::close(oldest);
            }
        }
        pace.beat();
    }
}
