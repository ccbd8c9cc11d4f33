//! Descriptors that become more and more while a process runs: looked at from time to
//! time, for a program may close all at its end, as Python does, and have leaked.

use std::collections::HashMap;

use super::seen::Cohort;

/// Looks that found more than the one before.
const RISES: u32 = 3;
/// A process that ends within so many looks after there were fewer has closed them for
/// its end.
const AT_END: u32 = 3;

/// One cohort of one process.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    last: u64,
    rises: u32,
    /// What had risen when there were fewer, and how many looks ago that was.
    before: Option<(u64, u32)>,
}

/// All cohorts of one process.
#[derive(Debug, Default)]
pub(super) struct Growth {
    courses: HashMap<Cohort, Course>,
}

impl Course {
    /// What a look has found.
    fn look(&mut self, count: u64) {
        self.before = self.before.map(|(n, looks)| (n, looks + 1)).filter(|b| b.1 <= AT_END);
        if count < self.last {
            if self.rises > RISES {
                self.before = Some((self.last, 1));
            }
            (self.last, self.rises) = (0, 0);
        }
        self.rises += u32::from(count > self.last);
        self.last = count;
    }

    fn risen(&self) -> Option<u64> {
        if self.rises > RISES { Some(self.last) } else { self.before.map(|(n, _)| n) }
    }
}

impl Growth {
    /// What a look has found.
    pub(super) fn look(&mut self, counts: &HashMap<Cohort, u64>) {
        for (cohort, course) in &mut self.courses {
            course.look(counts.get(cohort).copied().unwrap_or(0));
        }
        self.courses.retain(|_, course| course.last > 0 || course.before.is_some());
        for (cohort, count) in counts {
            let new = || Course { last: *count, rises: 1, before: None };
            self.courses.entry(cohort.clone()).or_insert_with(new);
        }
    }

    /// Whether it rises, and is one of [`Self::risen`] if it goes on so.
    pub(super) fn has_risen(&self, cohort: &Cohort) -> bool {
        self.courses.get(cohort).is_some_and(|c| c.rises > RISES)
    }

    /// Those that rose again and again and never fell before the end, with the number at
    /// the last look before they did.
    pub(super) fn risen(&self) -> impl Iterator<Item = (&Cohort, u64)> {
        self.courses.iter().filter_map(|(cohort, c)| Some((cohort, c.risen()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::model::FdKind;

    #[test]
    fn what_rises_and_never_falls() {
        let cohort =
            || Cohort { program: "p".to_owned(), kind: FdKind::Regular, path: "/x/{n}".to_owned() };
        for (counts, want) in [
            (&[1, 2, 3, 4][..], Some(4)),
            (&[1, 1, 5, 5, 6, 9, 9], Some(9)),
            (&[1, 2, 3], None),
            (&[1, 2, 3, 4, 3], Some(4)),
            (&[1, 2, 3, 4, 3, 3, 3, 3], None),
            (&[5, 6, 7, 8, 1, 2, 3, 4], Some(4)),
            (&[9, 9, 9, 9, 9, 9], None),
            // It closes them one by one, and ends.
            (&[1, 2, 3, 9, 5, 2, 0], Some(9)),
            (&[1, 2, 3, 4, 0, 0, 0, 0], None),
            (&[0, 0, 0, 0, 5, 0], None),
        ] {
            let mut growth = Growth::default();
            for n in counts {
                growth.look(&(*n > 0).then(|| (cohort(), *n)).into_iter().collect());
            }
            assert_eq!(growth.risen().map(|(_, n)| n).next(), want, "{counts:?}");
        }
    }
}
