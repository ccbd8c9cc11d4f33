//! Which verdict a person should see first.

use std::cmp::{Ordering, Reverse};

use crate::detection::verdict::{Leak, Rule, State};

/// Sorts: confirmed before suspected before resolved; within a state what hits
/// its limit first, then what grows fastest, then what holds most. Those that are
/// over are equal: a stable sort leaves them as they come, newest first.
pub(super) fn worst_first(a: &Leak, b: &Leak) -> Ordering {
    let gravity = |l: &Leak| match l.state {
        State::Confirmed => 0,
        State::Suspected => 1,
        State::Resolved => 2,
    };
    if !is_open(a) && !is_open(b) {
        return Ordering::Equal;
    }
    let deadline = |l: &Leak| l.exhausts_at.map_or((true, 0), |t| (false, t.as_second()));
    gravity(a)
        .cmp(&gravity(b))
        .then_with(|| deadline(a).cmp(&deadline(b)))
        .then_with(|| b.growth_per_hour.total_cmp(&a.growth_per_hour))
        .then_with(|| Reverse(a.held).cmp(&Reverse(b.held)))
        .then_with(|| a.id.cmp(&b.id))
}

/// Not over yet.
pub(super) fn is_open(leak: &Leak) -> bool {
    leak.state != State::Resolved
}

/// A warning about a limit and nothing else: no leak.
pub(super) fn is_headroom(leak: &Leak) -> bool {
    !leak.rules.is_empty() && leak.rules.iter().all(|r| *r == Rule::Headroom)
}

/// Open verdicts of a unit that speak of a leak.
pub(super) fn open_leaks(leaks: &[Leak], unit: &str) -> u64 {
    leaks.iter().filter(|l| &*l.unit == unit && is_open(l) && !is_headroom(l)).count() as u64
}
