//! Stacks that have been looked up.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::ledger::process::Held;
use crate::source::model::{Opener, OpenerKey, ProcessId, ProcessSample, Role};

/// Openers kept at most, each of some KiB. Verdicts keep copies of their own.
const MAX_OPENERS: usize = 1_024;

/// By process and stack.
#[derive(Default)]
pub(crate) struct Openers(BTreeMap<OpenerKey, Known>);

/// What is known of a stack.
struct Known {
    opener: Arc<Opener>,
    /// The program's own function that has opened, where it is known by name.
    function: Option<Arc<str>>,
}

impl Known {
    fn of(opener: Arc<Opener>) -> (OpenerKey, Self) {
        let own = opener.frames.iter().find(|f| f.role == Role::Opener);
        let function = own.map(|f| f.function.as_str().into());
        (opener.key(), Self { opener, function })
    }
}

impl Openers {
    /// Takes in what is new. Those of processes that have gone stay as long as there
    /// is room: a verdict may wait for one.
    pub(super) fn take(&mut self, new: Vec<Arc<Opener>>, living: &[ProcessSample]) {
        if new.is_empty() {
            return;
        }
        self.0.extend(new.into_iter().map(Known::of));
        if self.0.len() > MAX_OPENERS {
            let living: HashSet<ProcessId> = living.iter().map(|p| p.id).collect();
            self.0.retain(|(id, _), _| living.contains(id));
        }
        while self.0.len() > MAX_OPENERS {
            self.0.pop_first();
        }
    }

    pub(super) fn get(&self, key: OpenerKey) -> Option<&Arc<Opener>> {
        self.0.get(&key).map(|known| &known.opener)
    }

    /// The function that has opened a descriptor of a process, where it is known.
    pub(super) fn function(&self, id: ProcessId, held: &Held) -> Option<&Arc<str>> {
        self.0.get(&(id, held.birth?.stack?))?.function.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_bounded_and_the_gone_go_first() {
        let mut world = crate::ledger::testing::World::new();
        let pid = world.spawn(("a.service", crate::attribution::unit::UnitKind::Service), 1, "/a");
        let living = world.process(pid).clone();
        let opener = |pid, stack| {
            let process = ProcessId { pid, ..living.id };
            Arc::new(Opener { process, stack, frames: Vec::new(), note: None })
        };
        let mut openers = Openers::default();
        let gone = (0..1_024).map(|stack| opener(living.id.pid + 1, stack)).collect();
        openers.take(gone, std::slice::from_ref(&living));
        assert_eq!(openers.0.len(), 1_024);
        openers.take(vec![opener(living.id.pid, 7)], std::slice::from_ref(&living));
        assert_eq!(openers.0.keys().copied().collect::<Vec<_>>(), [(living.id, 7)]);
        let many = (0..5_000).map(|stack| opener(living.id.pid, stack)).collect();
        openers.take(many, std::slice::from_ref(&living));
        assert_eq!(openers.0.len(), 1_024);
        assert!(openers.get((living.id, 4_999)).is_some());
    }
}
