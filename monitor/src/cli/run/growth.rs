//! Descriptors that become more and more while a process runs: looked at from time to
//! time, for a program may close all at its end, as Python does, and have leaked.

use std::collections::HashMap;

use super::seen::Cohort;

/// Looks that found more than the one before.
const RISES: u32 = 3;

/// One cohort of one process.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    last: u64,
    rises: u32,
}

/// All cohorts of one process.
#[derive(Debug, Default)]
pub(super) struct Growth {
    courses: HashMap<Cohort, Course>,
}

impl Growth {
    /// What a look has found.
    pub(super) fn look(&mut self, counts: &HashMap<Cohort, u64>) {
        // Fewer than before: it is given back.
        self.courses.retain(|cohort, c| counts.get(cohort).is_some_and(|n| *n >= c.last));
        for (cohort, count) in counts {
            let course = self.courses.entry(cohort.clone()).or_default();
            course.rises += u32::from(*count > course.last);
            course.last = *count;
        }
    }

    /// Whether it is one of [`Self::risen`].
    pub(super) fn has_risen(&self, cohort: &Cohort) -> bool {
        self.courses.get(cohort).is_some_and(|c| c.rises > RISES)
    }

    /// Those that rose again and again and never fell, with their number at the last look.
    pub(super) fn risen(&self) -> impl Iterator<Item = (&Cohort, u64)> {
        self.courses.iter().filter(|(_, c)| c.rises > RISES).map(|(cohort, c)| (cohort, c.last))
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
            (&[1, 2, 3, 4, 3], None),
            (&[5, 6, 7, 8, 1, 2, 3, 4], Some(4)),
            (&[9, 9, 9, 9, 9, 9], None),
            (&[1, 2, 3, 4, 0], None),
        ] {
            let mut growth = Growth::default();
            for n in counts {
                growth.look(&(*n > 0).then(|| (cohort(), *n)).into_iter().collect());
            }
            assert_eq!(growth.risen().map(|(_, n)| n).next(), want, "{counts:?}");
        }
    }
}
