//! Async tasks of processes: counts by function, and their floors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::ledger::process::Process;
use crate::ledger::track::{End, LEVELS, Track, Window, windows_of};
use crate::ledger::view::TasksView;
use crate::source::model::{ProcessTasks, TaskCount};
use crate::time::Boottime;

/// Tasks of one function in a process.
#[derive(Debug)]
pub(crate) struct TaskCohort {
    /// As last told.
    pub count: TaskCount,
    /// How many more there are than when the probes came, at least.
    pub track: Track,
}

/// The tasks of a process.
#[derive(Debug)]
pub(crate) struct Tasks {
    /// First census that told of them: those of before are not known.
    since: Boottime,
    /// By function.
    pub kinds: BTreeMap<Arc<str>, TaskCohort>,
    /// Why they are not counted.
    pub blind: Option<String>,
    /// Complete warm windows that are kept.
    windows: [usize; LEVELS],
    /// Complete warm windows without a break.
    in_a_row: u64,
}

impl Tasks {
    fn new(since: Boottime) -> Self {
        Self { since, kinds: BTreeMap::new(), blind: None, windows: [0; LEVELS], in_a_row: 0 }
    }

    /// Takes in what a census tells; gives how many were spawned and ended since the last.
    fn take(&mut self, told: ProcessTasks) -> (u64, u64) {
        self.blind = told.blind;
        self.kinds.retain(|function, _| told.kinds.contains_key(function));
        let (mut spawned, mut ended) = (0, 0);
        for (function, count) in told.kinds {
            // One that was there before the probes can have made room for one that is seen:
            // that is no growth.
            let more = u32::try_from(count.alive.saturating_sub(count.unseen)).unwrap_or(u32::MAX);
            let windows = self.windows;
            let cohort = self.kinds.entry(function).or_insert_with(|| {
                let mut track = Track::of(0);
                // Before it appeared, it had none.
                for (level, windows) in track.levels.iter_mut().zip(windows) {
                    level.marks.resize(windows, Default::default());
                }
                TaskCohort { count: TaskCount::default(), track }
            });
            spawned += count.spawned.saturating_sub(cohort.count.spawned);
            ended += count.ended.saturating_sub(cohort.count.ended);
            cohort.track.count = more;
            cohort.track.see();
            cohort.count = count;
        }
        (spawned, ended)
    }

    /// Ends a window that was seen whole.
    fn close(&mut self, window: &Window) {
        self.in_a_row += 1;
        let ends = std::array::from_fn(|level| match window.ends_with(level) {
            true if self.in_a_row >= windows_of(level) => End::Whole,
            true => End::Partly,
            false => End::No,
        });
        for level in (0..LEVELS).filter(|level| ends[*level] == End::Whole) {
            self.windows[level] = (self.windows[level] + 1).min(window.keep);
        }
        for cohort in self.kinds.values_mut() {
            // As of threads: as many stayed as there always were.
            let floor = cohort.track.levels[0].present.floor;
            let levels = &cohort.track.levels;
            let stayed = std::array::from_fn(|l| levels[l].present.floor.min(floor));
            cohort.track.close(stayed, ends, window.keep);
        }
    }

    /// Forgets the windows.
    pub fn forget(&mut self) {
        (self.windows, self.in_a_row) = ([0; LEVELS], 0);
        self.kinds.values_mut().for_each(|c| c.track.forget());
    }
}

impl Ledger {
    /// Takes in the tasks of a census, by pid.
    pub(super) fn take_tasks(&mut self, mut told: BTreeMap<u32, ProcessTasks>, now: Boottime) {
        for p in self.processes.values_mut() {
            let Some(told) = told.remove(&p.id.pid).filter(|_| p.alive()) else {
                p.tasks = None;
                continue;
            };
            let counted = told.blind.is_none();
            let (spawned, ended) = p.tasks.get_or_insert_with(|| Tasks::new(now)).take(told);
            if let Some(unit) = self.units.get_mut(&p.unit.name).filter(|_| counted) {
                let total = unit.tasks.get_or_insert_default();
                total.0 += spawned;
                total.1 += ended;
            }
        }
    }

    /// What is shown of the tasks of each unit.
    pub(super) fn tasks_of(&self, unit: &str) -> Option<TasksView> {
        let (spawned, ended) = self.units.get(unit)?.tasks.unwrap_or_default();
        let mut view = TasksView { alive: None, spawned, ended, ..TasksView::default() };
        let mut any = false;
        for tasks in self.processes.values().filter(|p| *p.unit.name == *unit) {
            let Some(tasks) = &tasks.tasks else { continue };
            any = true;
            match &tasks.blind {
                Some(why) => view.blind = Some(why.clone()),
                None => {
                    let alive: u64 = tasks.kinds.values().map(|c| c.count.alive).sum();
                    *view.alive.get_or_insert(0) += alive;
                }
            }
            for (function, cohort) in &tasks.kinds {
                let kind = view.kinds.entry(Arc::clone(function)).or_default();
                kind.alive += cohort.count.alive;
                kind.spawned += cohort.count.spawned;
                kind.ended += cohort.count.ended;
                kind.unseen += cohort.count.unseen;
            }
        }
        any.then_some(view)
    }
}

impl Process {
    /// Ends a window for its tasks, where they have been counted for long enough.
    pub(crate) fn close_tasks(&mut self, window: &Window, warmup: Duration) {
        let Some(tasks) = &mut self.tasks else { return };
        if tasks.blind.is_none() && window.began() >= tasks.since + warmup {
            tasks.close(window);
        } else {
            tasks.forget();
            tasks.kinds.values_mut().for_each(|c| c.track.open());
        }
    }
}
