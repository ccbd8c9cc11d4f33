//! Pieces of stacks that the probes have copied of what a command opens, until it is known
//! which of them are of something that is left.

use std::collections::HashMap;

use crate::source::copies::Copy;
use crate::time::Boottime;

/// Copies that are kept, at most, of up to 32 KiB each; the oldest go first.
const KEPT: usize = 256;

/// The latest of each descriptor: an earlier one was closed.
#[derive(Default)]
pub(super) struct Copied(HashMap<(u32, u32), Copy>);

impl Copied {
    /// Takes in new ones.
    pub(super) fn take(&mut self, new: Vec<Copy>) {
        for copy in new {
            self.0.insert((copy.pid, copy.fd), copy);
            if self.0.len() > KEPT
                && let Some(oldest) = self.0.iter().min_by_key(|(_, c)| c.at).map(|(key, _)| *key)
            {
                self.0.remove(&oldest);
            }
        }
    }

    /// The stack from which a process opened this descriptor then, which is taken out.
    pub(super) fn of(&mut self, pid: u32, fd: u32, at: Boottime) -> Option<Copy> {
        self.0
            .get(&(pid, fd))
            .is_some_and(|copy| copy.at == at)
            .then(|| self.0.remove(&(pid, fd)))?
    }

    /// A process has ended, or executes another program.
    pub(super) fn forget(&mut self, pid: u32) {
        self.0.retain(|(of, _), _| *of != pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_each_descriptor_is_kept_once_and_the_number_is_bounded() {
        let mut copied = Copied::default();
        copied.take(vec![
            Copy::nothing(1, 3, 5),
            Copy::nothing(1, 3, 9),
            Copy::nothing(2, 3, 7),
            Copy::nothing(1, 4, 8),
        ]);
        assert_eq!(copied.of(1, 3, Boottime(5)), None);
        assert_eq!(copied.of(1, 3, Boottime(9)), Some(Copy::nothing(1, 3, 9)));
        assert_eq!(copied.of(1, 3, Boottime(9)), None, "taken out");
        copied.forget(1);
        assert_eq!(copied.of(1, 4, Boottime(8)), None);
        assert_eq!(copied.of(2, 3, Boottime(7)), Some(Copy::nothing(2, 3, 7)));
        copied.take((0..300).map(|n| Copy::nothing(1, n, n.into())).collect());
        assert_eq!((copied.0.len(), copied.of(1, 43, Boottime(43))), (KEPT, None));
        assert!(copied.of(1, 44, Boottime(44)).is_some());
    }
}
