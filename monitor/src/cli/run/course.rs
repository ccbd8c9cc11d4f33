//! What is the same however the processes of the command are followed.

use std::io;
use std::time::{Duration, Instant};

use super::child::{Child, Ended};
use super::group::Group;
use super::pace::Pace;
use super::seen::Seen;
use super::temporary::Temporary;

/// Stops and ends that are taken at once, at most: where more and more come, as of a
/// command that forks without end, the clock must be looked at between.
pub(super) const AT_ONCE: u32 = 256;
/// Nobody says when a cgroup becomes empty of what is no descendant.
const GLANCE: Duration = Duration::from_millis(10);

/// One run of the command.
pub(super) struct Course<'a> {
    pub(super) child: &'a Child,
    pub(super) temporary: &'a Temporary,
    pub(super) seen: Seen,
    pub(super) ended: Option<Ended>,
    pace: Pace,
}

impl<'a> Course<'a> {
    pub(super) fn new(child: &'a Child, temporary: &'a Temporary, seen: Seen) -> Self {
        Self { child, temporary, seen, ended: None, pace: Pace::new() }
    }
}

/// What is left to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// There is nobody any more.
    Nobody,
    /// Nothing of those who are there.
    All,
    /// More, perhaps.
    Some,
}

/// A way to follow them.
pub(super) trait Follow<'a> {
    fn course(&mut self) -> &mut Course<'a>;

    /// Takes what has stopped or ended, at most [`AT_ONCE`].
    ///
    /// # Errors
    /// The kernel has no such child any more, though the command has not ended.
    fn drain(&mut self) -> io::Result<Drained>;

    /// What the processes hold while they run.
    fn look(&mut self);

    /// Until the command has ended.
    ///
    /// # Errors
    /// See [`Self::drain`].
    fn follow(&mut self) -> io::Result<Ended> {
        loop {
            let drained = self.drain()?;
            if let Some(ended) = self.course().ended {
                return Ok(ended);
            }
            if self.course().pace.due() {
                self.look();
                self.course().pace.done();
            }
            let course = self.course();
            let rest = if drained == Drained::Some { Duration::ZERO } else { course.pace.rest() };
            course.child.pass_on(rest);
        }
    }

    /// Until nothing of it is left, at most so long.
    fn wait(&mut self, most: Duration, group: Option<&Group>) {
        let until = Instant::now() + most;
        loop {
            let drained = self.drain().unwrap_or(Drained::Nobody);
            let nobody = drained == Drained::Nobody;
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() || nobody && group.is_none_or(|group| group.members().is_empty()) {
                return;
            }
            let rest = match drained {
                Drained::Nobody => rest.min(GLANCE),
                Drained::All => rest,
                Drained::Some => Duration::ZERO,
            };
            self.course().child.wake(rest);
        }
    }
}
