//! Which unit has which slot of the programs' counters.
//!
//! There are [`MAX_SLOTS`] of them, and units without number over the days of a
//! host: a scope per login, a container per job. So the slot of a unit that has
//! had no process for a while goes to the next one that finds none free.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use leakwatch_common::{MAX_SLOTS, SELF_TEST_SLOT, SLOT_OTHER};

use crate::time::Boottime;

/// Without a process for so long, a unit may lose its slot: by then the births
/// that its last process left are swept, and nothing counts for it any more.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// A slot, and who had it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Its counters are this unit's, from zero on or from earlier.
    Own(u16),
    /// It was another unit's: what it holds so far is not this unit's.
    Inherited(u16),
    /// All are in use: [`SLOT_OTHER`].
    Shared,
}

struct Held {
    slot: u16,
    /// When the unit last had a process.
    used: Boottime,
}

/// The slots of all units.
pub(super) struct Slots {
    held: HashMap<Arc<str>, Held>,
}

impl Slots {
    /// All free.
    pub(super) fn new() -> Self {
        Self { held: HashMap::new() }
    }

    /// The slot of a unit that has a process at `now`.
    pub(super) fn of(&mut self, unit: &Arc<str>, now: Boottime) -> Slot {
        if let Some(held) = self.held.get_mut(unit) {
            held.used = now;
            return Slot::Own(held.slot);
        }
        // One for `other`, the last for the self-test, and none is given up but
        // to another: so those in use are the lowest.
        let next = self.held.len() + 1;
        let slot = if next < usize::from(SELF_TEST_SLOT) {
            Slot::Own(next as u16)
        } else if let Some(slot) = self.take_idle(now) {
            Slot::Inherited(slot)
        } else {
            Slot::Shared
        };
        if let Slot::Own(slot) | Slot::Inherited(slot) = slot {
            self.held.insert(unit.clone(), Held { slot, used: now });
        }
        slot
    }

    /// Every unit with a slot of its own.
    pub(super) fn units(&self) -> impl Iterator<Item = (&Arc<str>, u16)> {
        self.held.iter().map(|(unit, held)| (unit, held.slot))
    }

    /// The slot that was idle for the longest, if that is long enough.
    fn take_idle(&mut self, now: Boottime) -> Option<u16> {
        let (unit, held) = self.held.iter().min_by_key(|(unit, held)| (held.used, *unit))?;
        if now.since(held.used) < IDLE {
            return None;
        }
        let unit = unit.clone();
        self.held.remove(&unit).map(|held| held.slot)
    }
}

const _: () = assert!(SLOT_OTHER == 0 && MAX_SLOTS as u16 - 1 == SELF_TEST_SLOT);

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: u16 = SELF_TEST_SLOT - 1;

    fn at(seconds: u64) -> Boottime {
        Boottime(seconds * 1_000_000_000)
    }

    fn name(n: u16) -> Arc<str> {
        format!("run-{n}.scope").into()
    }

    fn full() -> Slots {
        let mut slots = Slots::new();
        for n in 0..UNITS {
            assert_eq!(slots.of(&name(n), at(1)), Slot::Own(n + 1));
        }
        slots
    }

    #[test]
    fn a_unit_keeps_its_slot_while_others_come() {
        let mut slots = full();
        assert_eq!(slots.of(&name(7), at(1000)), Slot::Own(8));
        assert_eq!(slots.units().count(), usize::from(UNITS));
    }

    #[test]
    fn with_all_in_use_the_next_one_shares() {
        let mut slots = full();
        assert_eq!(slots.of(&name(UNITS), at(2)), Slot::Shared);
        assert_eq!(slots.of(&name(UNITS), at(59)), Slot::Shared, "not idle for long enough");
    }

    #[test]
    fn the_longest_idle_gives_way() {
        let mut slots = full();
        for n in (0..UNITS).filter(|n| *n != 40) {
            slots.of(&name(n), at(10));
        }
        assert_eq!(slots.of(&name(UNITS), at(61)), Slot::Inherited(41));
        assert_eq!(slots.of(&name(UNITS), at(62)), Slot::Own(41), "from then on it is its own");
        assert_eq!(slots.of(&name(40), at(62)), Slot::Shared, "and the old one has none");
        assert_eq!(slots.of(&name(40), at(70)), Slot::Inherited(1), "until another is idle");
    }

    #[test]
    fn thousands_of_units_that_come_and_go_all_have_a_slot_in_their_time() {
        let mut slots = Slots::new();
        for n in 0..20_000 {
            let slot = slots.of(&name(n), at(u64::from(n)));
            assert_ne!(slot, Slot::Shared, "{n}");
        }
    }
}
