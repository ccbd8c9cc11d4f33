//! Who comes late, but comes: programs that see to what waits in turns, in batches, or when
//! they next need it. What they hold meanwhile looks like a leak.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::model::Detection;
use crate::ledger::REMEMBERED;
use crate::ledger::process::{Held, Process};
use crate::text;

/// They have come to the first after so many times `stale_after`, as far as can be waited
/// for…
const IN_TURN: u32 = 4;
/// …unless there are so many times `min_held`.
const MANY: u64 = 4;

/// Where one was closed for so many that wait, the others will be.
const SHARE: usize = 8;

/// Nobody is going to come for these: the one that waits longest has waited for so long.
pub(crate) fn past_turns(config: &Detection, longest: Duration, count: u64) -> bool {
    longest >= config.stale_after * IN_TURN || count >= config.min_held * MANY
}

/// How many of the members' cohorts were closed late, as far as is remembered.
pub(crate) fn closed_late<'a>(members: impl Iterator<Item = (&'a Process, &'a Held)>) -> usize {
    let cohorts: BTreeMap<(u32, u32), &Process> =
        members.map(|(p, h)| ((p.serial, h.slot), p)).collect();
    let late = cohorts
        .iter()
        .map(|((_, slot), p)| p.closed_late.iter().filter(|(_, of)| of == slot).count());
    late.sum()
}

/// So many closed late are enough to expect it of those that wait.
pub(crate) fn comes(late: usize, waiting: usize) -> bool {
    late > 0 && late * SHARE >= waiting
}

/// That it does, in words.
pub(crate) fn told(config: &Detection, late: usize) -> String {
    format!(
        "{late} that had waited as long were closed in the last {}: the others may be, too",
        text::duration(config.window * config.windows * REMEMBERED)
    )
}
