//! What the loop does with an observation: all stages, in order.
//!
//! It reads no clock and asks nobody once the names of users are told: the same
//! calls give the same verdicts, which is what `trace` records and replays.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::pace::{Intervals, Pace};
use crate::attribution::Attribution;
use crate::cleanup::{Act, Audit, Engine, Report, Target};
use crate::config::Config;
use crate::detection::verdict::{Leak, State};
use crate::detection::{Change, Docket};
use crate::export::snapshot::Snapshot;
use crate::ledger::Ledger;
use crate::ledger::baseline::{Baseline, CohortKey, Learned};
use crate::source::model::{
    Demand, Depth, KernelStr, Observation, ProcessId, ProcessSample, SourceFigures, SourceState,
    TaskEvent,
};
use crate::time::{Boottime, ClockPair};

/// So many processes per glance at the task events are looked at ahead of the
/// census, each for about 0.1 ms.
const MAX_NEWCOMERS: usize = 32;

/// The stages and what passes between them.
pub(super) struct Turn {
    config: Config,
    attribution: Attribution,
    ledger: Ledger,
    docket: Docket,
    engine: Engine,
    leaks: Vec<Leak>,
    units: HashMap<ProcessId, Arc<str>>,
    /// Asked after ahead of a census, and when: one that had begun before knows less.
    glimpsed: HashMap<ProcessId, (Arc<str>, Boottime)>,
    sources: Vec<SourceState>,
    figures: SourceFigures,
    started: Timestamp,
    reload_ok: bool,
    /// It was said which unit rules match nothing.
    rules_checked: bool,
    pace: Pace,
}

impl Turn {
    /// Nothing seen yet.
    pub(super) fn new(
        config: Config,
        audit: Audit,
        started: Timestamp,
    ) -> Result<Self, globset::Error> {
        Ok(Self {
            attribution: Attribution::new(&config.units)?,
            ledger: Ledger::new(&config)?,
            docket: Docket::new(),
            engine: Engine::new(&config.cleanup, audit)?,
            leaks: Vec::new(),
            units: HashMap::new(),
            glimpsed: HashMap::new(),
            sources: Vec::new(),
            figures: SourceFigures::default(),
            started,
            reload_ok: true,
            rules_checked: false,
            pace: Pace::new(&config.watch),
            config,
        })
    }

    /// Takes another config; gives it back for the source.
    pub(super) fn reconfigure(&mut self, config: Config) -> Result<Config, String> {
        let globs = |e: globset::Error| e.to_string();
        self.attribution.reconfigure(&config.units).map_err(globs)?;
        self.ledger.reconfigure(&config).map_err(globs)?;
        self.engine.reconfigure(&config.cleanup).map_err(globs)?;
        self.pace.reconfigure(&config.watch);
        self.config = config.clone();
        self.reload_ok = true;
        self.rules_checked = false;
        Ok(config)
    }

    /// A reload did not work.
    pub(super) fn reload_failed(&mut self) {
        self.reload_ok = false;
    }

    /// Names of user ids from here on; none is asked for any more.
    pub(super) fn tell_users(&mut self, names: BTreeMap<u32, KernelStr>) {
        self.attribution.tell_users(names);
    }

    /// Takes an observation through all stages; gives the verdicts that changed.
    pub(super) fn observed(&mut self, seen: Observation, now: ClockPair) -> Vec<Change> {
        let members = self.attribution.observe(&seen.processes);
        self.units = seen
            .processes
            .iter()
            .zip(&members)
            .filter(|(p, _)| !p.zombie)
            .map(|(p, unit)| (p.id, unit.name.clone()))
            .collect();
        self.glimpsed.retain(|_, (_, at)| *at >= seen.began);
        // Also those that the census came too early for: the programs are to forget
        // only who has ended.
        self.units.extend(self.glimpsed.iter().map(|(id, (unit, _))| (*id, unit.clone())));
        self.check_rules();
        self.sources.clone_from(&seen.sources);
        self.figures = seen.figures.clone();
        self.ledger.census(seen, &members);
        let changes = self.judge(now);
        self.engine.verify(&self.leaks, self.ledger.clock());
        changes
    }

    /// A census took so much processor time, with all that came of it.
    pub(super) fn spent(&mut self, depth: Depth, countable: bool, cost: Duration) {
        self.pace.spent(depth, countable, cost);
    }

    /// Says once per config which unit rules match no process: most often a
    /// glob that does not say what its author meant.
    fn check_rules(&mut self) {
        if std::mem::replace(&mut self.rules_checked, true) {
            return;
        }
        for rule in &self.config.units {
            if !self.units.values().any(|unit| **unit == *rule.name) {
                tracing::info!(unit = %rule.name, "no process matches this unit rule now");
            }
        }
    }

    /// Takes task events. True if a process of a service has ended, which may
    /// leave others behind: judge soon.
    pub(super) fn tasks(&mut self, events: &[TaskEvent]) -> bool {
        let mut soon = false;
        for event in events {
            let unit = self.attribution.task(event);
            soon |= matches!(event, TaskEvent::Exit { .. })
                && unit.as_ref().is_some_and(|u| u.kind.has_invocations());
            self.ledger.task(event, unit.as_ref());
            if let TaskEvent::Exit { id, .. } = event {
                self.glimpsed.remove(id);
            }
        }
        soon
    }

    /// Of the processes that run another program now, those worth a look before the
    /// census: what they count is their unit's, and their unit may be another now. A
    /// process that has ended meanwhile needs no unit, and a storm of them waits.
    pub(super) fn newcomers(events: &[TaskEvent]) -> Vec<ProcessId> {
        let ended: HashSet<&ProcessId> = events
            .iter()
            .filter_map(|e| if let TaskEvent::Exit { id, .. } = e { Some(id) } else { None })
            .collect();
        let ids: BTreeSet<ProcessId> = events
            .iter()
            .filter_map(|e| if let TaskEvent::Exec { id, .. } = e { Some(*id) } else { None })
            .filter(|id| !ended.contains(id))
            .collect();
        ids.into_iter().take(MAX_NEWCOMERS).collect()
    }

    /// Takes in what was asked after; says whose each is.
    pub(super) fn glimpsed(
        &mut self,
        seen: &[ProcessSample],
        now: Boottime,
    ) -> Vec<(ProcessId, Arc<str>)> {
        let placed: Vec<_> =
            seen.iter().map(|p| (p.id, self.attribution.glimpse(p).name.clone())).collect();
        self.glimpsed.extend(placed.iter().map(|(id, unit)| (*id, (unit.clone(), now))));
        self.units.extend(placed.iter().cloned());
        placed
    }

    /// Brings the verdicts up to date; gives those that changed.
    pub(super) fn judge(&mut self, now: ClockPair) -> Vec<Change> {
        let changes = self.docket.judge(&self.ledger, &self.config, now);
        self.leaks = self.docket.leaks();
        for change in changes.iter().filter(|change| change.to == State::Confirmed) {
            self.ledger.distrust(&cohort_of(&change.leak));
        }
        changes
    }

    /// What was learned before the agent started.
    pub(super) fn remember(&mut self, kept: Vec<(CohortKey, Baseline)>) {
        self.ledger.remember(kept);
    }

    /// What was learned since this was last asked.
    pub(super) fn take_learned(&mut self) -> Vec<Learned> {
        self.ledger.take_learned()
    }

    /// All verdicts, those that are over last.
    pub(super) fn leaks(&self) -> &[Leak] {
        &self.leaks
    }

    /// What is to be done about them.
    pub(super) fn acts(&mut self, now: ClockPair) -> Vec<Act> {
        let docket = &self.docket;
        let members = |leak: &str| {
            let members = docket.members(leak).into_iter();
            members.map(|m| Target { id: m.id, cgroup: m.cgroup, comm: m.comm }).collect()
        };
        self.engine.consider(&self.leaks, &members, now)
    }

    /// An act is done.
    pub(super) fn reported(&mut self, report: Report, now: ClockPair) {
        self.engine.finished(report, now);
    }

    /// What deserves probes now.
    pub(super) fn demand(&self) -> Demand {
        let suspects: BTreeSet<Arc<str>> = self.docket.suspects();
        let units = self.units.iter().map(|(id, unit)| (*id, unit.clone())).collect();
        Demand { units, suspects }
    }

    /// Between two censuses now.
    pub(super) fn interval(&self) -> Duration {
        self.pace.intervals().any
    }

    /// How deep the next one goes.
    pub(super) fn depth(&self) -> Depth {
        self.pace.depth()
    }

    /// Processor time of a usual census, with all that comes of it.
    pub(super) fn cost(&self) -> Duration {
        self.pace.usual()
    }

    /// Everything an exporter may show.
    pub(super) fn snapshot(&self) -> Snapshot {
        let Intervals { any: interval, whole: whole_interval } = self.pace.intervals();
        Snapshot {
            at: self.ledger.clock().wall,
            started: self.started,
            units: self.ledger.views(),
            unplaced: self.ledger.unplaced().cloned(),
            leaks: self.leaks.clone(),
            confirmed_total: self.docket.confirmed_total().clone(),
            actions: self.engine.records(),
            actions_total: self.engine.totals().clone(),
            sources: self.sources.clone(),
            figures: self.figures.clone(),
            corrections: self.ledger.corrections().clone(),
            reload_ok: self.reload_ok,
            interval,
            whole_interval,
        }
    }
}

fn cohort_of(leak: &Leak) -> CohortKey {
    CohortKey {
        unit: Arc::clone(&leak.unit),
        kind: leak.kind.as_str().into(),
        cohort: leak.cohort.as_str().into(),
    }
}

/// Logs verdicts that changed.
pub(super) fn announce(changes: &[Change]) {
    changes.iter().for_each(say);
}

fn say(change: &Change) {
    let Leak { id, unit, held, kind, .. } = &change.leak;
    // A verdict that is over says why in its last sentence.
    let evidence = &change.leak.evidence;
    let why = if change.to == State::Resolved { evidence.last() } else { evidence.first() };
    let why = why.map_or("", String::as_str);
    match change.to {
        // What speaks against it comes after what is held.
        State::Suspected if change.from == Some(State::Confirmed) => {
            let why = evidence.join("; ");
            tracing::info!(%id, %unit, %kind, held, why, "confirmed no longer, suspected");
        }
        State::Suspected => tracing::info!(%id, %unit, %kind, held, why, "suspected"),
        State::Confirmed => tracing::warn!(%id, %unit, %kind, held, why, "leak confirmed"),
        State::Resolved => tracing::info!(%id, %unit, %kind, held, why, "resolved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::ledger::testing::World;

    #[test]
    fn a_census_that_began_before_does_not_undo_what_was_asked_since() {
        let mut w = World::new();
        let mut turn = Turn::new(w.config.clone(), Audit::memory(), Timestamp::UNIX_EPOCH).unwrap();
        let placed = |turn: &Turn| {
            let units = turn.demand().units;
            units.iter().map(|(_, unit)| unit.to_string()).collect::<Vec<_>>()
        };
        w.now = Boottime(0);
        let p = w.spawn(("old.service", UnitKind::Service), 1, "/bin/app");
        let (old, _) = w.observe();
        w.process(p).cgroup = "/system.slice/new.service".into();
        let newcomer = w.process(p).clone();

        // It was asked after while the census ran, whose answer comes later.
        turn.glimpsed(&[newcomer], old.at.boot);
        turn.observed(old.clone(), old.at);
        assert_eq!(placed(&turn), ["new.service"]);

        // Nor does one that came too early to see it: it began to count for its unit,
        // and goes on.
        let earlier = Observation { processes: Vec::new(), ..old.clone() };
        turn.observed(earlier, old.at);
        assert_eq!(placed(&turn), ["new.service"]);

        // What began afterwards knows best: here, that it was moved back.
        let at = old.at;
        let later = Observation { began: at.boot + Duration::from_secs(1), ..old };
        turn.observed(later, at);
        assert_eq!(placed(&turn), ["old.service"]);
    }

    #[test]
    fn who_has_ended_since_it_was_asked_after_is_forgotten() {
        let mut w = World::new();
        let mut turn = Turn::new(w.config.clone(), Audit::memory(), Timestamp::UNIX_EPOCH).unwrap();
        w.now = Boottime(0);
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/bin/app");
        let (old, _) = w.observe();
        let newcomer = w.process(p).clone();
        turn.glimpsed(std::slice::from_ref(&newcomer), old.at.boot);
        turn.tasks(&[TaskEvent::Exit { at: old.at.boot, id: newcomer.id, status: 0 }]);
        let at = old.at;
        turn.observed(Observation { processes: Vec::new(), ..old }, at);
        assert!(turn.demand().units.is_empty());
    }
}
