//! Decides which verdicts get which acts, and keeps the books of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::act::{Act, Job, Report};
use super::audit::Audit;
use super::notify::Notice;
use super::record::{ActionRecord, Outcome};
use super::rules::Compiled;
use super::signal;
use super::target::Target;
use crate::config::model::{ActionKind, Cleanup, Mode};
use crate::detection::verdict::{Leak, Resource, Rule, State};
use crate::source::model::ProcessId;
use crate::time::{Boottime, ClockPair};

/// Records kept for `/api/v1/actions`.
const RECORDS: usize = 1000;

/// Different (unit, action, mode, outcome) counted; past that the unit is
/// `other`, for units come and go (containers) and the agent stays.
const TOTALS: usize = 10_000;

/// An act that has not reported this long after its rule's grace and timeout
/// never will: what performed it is gone.
const LOST_AFTER: Duration = Duration::from_secs(30);

/// Acts of each kind, in the order they are considered.
const KINDS: [ActionKind; 3] = [ActionKind::Notify, ActionKind::Signal, ActionKind::KillOrphans];

/// Acts since start, by unit, action, mode and outcome.
pub type Totals = BTreeMap<(Arc<str>, ActionKind, Mode, Outcome), u64>;

/// Decides; never blocks but for the audit line.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<Compiled>,
    audit: Audit,
    /// Acts since start.
    acts: u64,
    /// By verdict and action.
    history: BTreeMap<(String, ActionKind), History>,
    /// Acts that are under way or wait for their check.
    open: BTreeMap<u64, Open>,
    /// Newest first.
    records: VecDeque<ActionRecord>,
    totals: Totals,
}

/// What was last done about a verdict.
#[derive(Debug, Default)]
struct History {
    acted: Option<Boottime>,
    /// Last record of not acting (dry run, protected, over budget).
    said: Option<Boottime>,
    cooldown: Duration,
}

/// What the records of one act share.
#[derive(Clone, Debug)]
struct Head {
    act: u64,
    leak: String,
    unit: Arc<str>,
    rule: Rule,
    action: ActionKind,
    mode: Mode,
    pids: Vec<u32>,
}

#[derive(Debug)]
struct Open {
    head: Head,
    /// The verdict's count when it was decided.
    held: u64,
    timeout: Duration,
    lost_at: Boottime,
    done: Option<Done>,
}

/// It reported; a census is to tell whether it worked.
#[derive(Debug)]
struct Done {
    at: Boottime,
    hit: BTreeSet<ProcessId>,
    /// Checks so far that did not say yes.
    looks: u32,
}

impl Engine {
    /// With the cleanup rules of the config, in file order.
    ///
    /// # Errors
    /// A glob of a rule is malformed.
    pub fn new(rules: &[Cleanup], audit: Audit) -> Result<Self, globset::Error> {
        Ok(Self {
            rules: rules.iter().map(Compiled::new).collect::<Result<_, _>>()?,
            audit,
            acts: 0,
            history: BTreeMap::new(),
            open: BTreeMap::new(),
            records: VecDeque::new(),
            totals: BTreeMap::new(),
        })
    }

    /// Takes other rules; budgets, cooldowns and open acts stay.
    ///
    /// # Errors
    /// A glob of a rule is malformed; the old rules then stay.
    pub fn reconfigure(&mut self, rules: &[Cleanup]) -> Result<(), globset::Error> {
        let mut new = rules.iter().map(Compiled::new).collect::<Result<Vec<_>, _>>()?;
        for rule in &mut new {
            if let Some(at) = self.rules.iter().position(|old| old.is_same(rule)) {
                rule.inherit(&mut self.rules.remove(at));
            }
        }
        self.rules = new;
        Ok(())
    }

    /// What to do about `leaks` now. `members` gives, for a verdict's id, every
    /// process it is about: nothing else is ever a target. Only confirmed
    /// verdicts count, and for each action only the first rule that applies.
    pub fn consider(
        &mut self,
        leaks: &[Leak],
        members: &dyn Fn(&str) -> Vec<Target>,
        now: ClockPair,
    ) -> Vec<Act> {
        let mut acts = Vec::new();
        for leak in leaks.iter().filter(|l| l.state == State::Confirmed) {
            for kind in KINDS {
                acts.extend(self.decide(leak, kind, members, now));
            }
        }
        self.forget(leaks, now.boot);
        acts
    }

    fn decide(
        &mut self,
        leak: &Leak,
        kind: ActionKind,
        members: &dyn Fn(&str) -> Vec<Target>,
        now: ClockPair,
    ) -> Option<Act> {
        // Whatever else a rule's globs match, only orphans are killed.
        let orphans = leak.resource == Resource::Process && leak.rules.contains(&Rule::Orphan);
        if kind == ActionKind::KillOrphans && !orphans {
            return None;
        }
        let (at, rule) = self
            .rules
            .iter()
            .enumerate()
            .filter(|(_, r)| r.given.action == kind)
            .find_map(|(at, r)| r.applies(leak).map(|rule| (at, rule)))?;
        let given = self.rules[at].given.clone();
        let history = self.history.get(&(leak.id.clone(), kind));
        let cools =
            |last: Option<Boottime>| last.is_some_and(|t| now.boot.since(t) < given.cooldown);
        let underway = |o: &Open| o.head.leak == leak.id && o.head.action == kind;
        if history.is_some_and(|h| cools(h.acted)) || self.open.values().any(underway) {
            return None;
        }
        let said = history.is_some_and(|h| cools(h.said));

        let targets = match kind {
            ActionKind::Notify => Vec::new(),
            ActionKind::Signal | ActionKind::KillOrphans => {
                let mut targets = members(&leak.id);
                targets.sort_by_key(|t| t.id);
                targets.dedup_by_key(|t| t.id);
                if targets.is_empty() {
                    return None;
                }
                targets
            }
        };
        let aim = aim(&given, &targets);
        let mut head = Head {
            act: 0,
            leak: leak.id.clone(),
            unit: leak.unit.clone(),
            rule,
            action: kind,
            mode: given.mode,
            pids: targets.iter().map(|t| t.id.pid).collect(),
        };
        if kind == ActionKind::Notify {
            head.pids = leak.examples.iter().map(|e| e.pid).collect();
            head.pids.sort_unstable();
            head.pids.dedup();
        }

        // Everything that keeps it from acting is said once per cooldown.
        let hindrance = if let Some(glob) = self.rules[at].protects(&leak.unit) {
            Some((Outcome::Refused, format!("did not {aim}: the unit is protected by `{glob}`")))
        } else if given.mode == Mode::DryRun {
            Some((Outcome::WouldAct, format!("would {aim}")))
        } else if kind == ActionKind::Signal && !given.signal.is_some_and(|s| (1..=64).contains(&s))
        {
            Some((Outcome::Refused, "no such signal: set `signal` in the rule".to_owned()))
        } else if !self.rules[at].spend(now.boot) {
            let budget = given.budget;
            Some((Outcome::Refused, format!("did not {aim}: over the budget of {budget} an hour")))
        } else {
            None
        };
        let history = self.history.entry((leak.id.clone(), kind)).or_default();
        history.cooldown = given.cooldown;
        if let Some((outcome, detail)) = hindrance {
            if !said {
                history.said = Some(now.boot);
                self.acts += 1;
                head.act = self.acts;
                self.record(&head, outcome, detail, now);
            }
            return None;
        }
        history.acted = Some(now.boot);
        self.acts += 1;
        head.act = self.acts;
        let job = match kind {
            ActionKind::Notify => Job::Notify(Box::new(Notice::new(leak, rule.as_str()))),
            ActionKind::Signal => Job::Signal { targets, signal: given.signal? },
            ActionKind::KillOrphans => {
                Job::KillOrphans { targets, grace: given.grace, timeout: given.timeout }
            }
        };
        let number = head.act;
        let open = Open {
            head,
            held: leak.held,
            timeout: given.timeout,
            lost_at: now.boot + given.grace + given.timeout + LOST_AFTER,
            done: None,
        };
        self.open.insert(number, open);
        Some(Act { number, job })
    }

    /// An act has come back.
    pub fn finished(&mut self, report: Report, now: ClockPair) {
        let Some(mut open) = self.open.remove(&report.act) else { return };
        if open.done.is_some() {
            self.open.insert(report.act, open);
            return;
        }
        self.record(&open.head, report.outcome, report.detail, now);
        if report.outcome == Outcome::Pending {
            let hit = report.hit.into_iter().collect();
            open.done = Some(Done { at: now.boot, hit, looks: 0 });
            self.open.insert(report.act, open);
        }
    }

    /// Checks what was done against the verdicts of a later census.
    pub fn verify(&mut self, leaks: &[Leak], now: ClockPair) {
        let by_id: BTreeMap<&str, &Leak> = leaks.iter().map(|l| (l.id.as_str(), l)).collect();
        let mut settled = Vec::new();
        for (number, open) in &mut self.open {
            let Some(done) = &mut open.done else {
                if now.boot >= open.lost_at {
                    let detail = "never reported back; what it did is unknown".to_owned();
                    settled.push((*number, Outcome::Failed, detail));
                }
                continue;
            };
            if now.boot <= done.at {
                continue;
            }
            let leak = by_id.get(open.head.leak.as_str()).copied();
            if let Some(why) = worked(open.head.action, open.held, &done.hit, leak) {
                settled.push((*number, Outcome::Verified, why));
                continue;
            }
            done.looks += 1;
            // The first census after an act may have begun before it.
            if done.looks >= 2 && now.boot.since(done.at) >= open.timeout {
                let held = leak.map_or(0, |l| l.held);
                let after = crate::text::duration(now.boot.since(done.at));
                let detail = format!("no effect after {after}: {held} held, {} before", open.held);
                settled.push((*number, Outcome::Ineffective, detail));
            }
        }
        for (number, outcome, detail) in settled {
            if let Some(open) = self.open.remove(&number) {
                self.record(&open.head, outcome, detail, now);
            }
        }
    }

    /// Newest first, at most 1000.
    pub fn records(&self) -> Vec<ActionRecord> {
        self.records.iter().cloned().collect()
    }

    /// Records since start, each line counted: an act that is checked counts as
    /// `pending` and as what the check said.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    fn record(&mut self, head: &Head, outcome: Outcome, detail: String, now: ClockPair) {
        let record = ActionRecord {
            at: now.wall,
            act: head.act,
            leak: head.leak.clone(),
            unit: head.unit.to_string(),
            rule: head.rule.as_str().to_owned(),
            action: head.action,
            mode: head.mode,
            outcome,
            pids: head.pids.clone(),
            detail,
        };
        say(&record);
        self.audit.append(&record);
        self.records.push_front(record);
        self.records.truncate(RECORDS);
        let mut key = (head.unit.clone(), head.action, head.mode, outcome);
        if self.totals.len() >= TOTALS && !self.totals.contains_key(&key) {
            key.0 = "other".into();
        }
        *self.totals.entry(key).or_default() += 1;
    }

    /// Drops what was done about verdicts that are gone and cooled down.
    fn forget(&mut self, leaks: &[Leak], now: Boottime) {
        let listed: BTreeSet<&str> = leaks.iter().map(|l| l.id.as_str()).collect();
        self.history.retain(|(leak, _), h| {
            listed.contains(leak.as_str())
                || h.acted.max(h.said).is_some_and(|t| now.since(t) < h.cooldown)
        });
    }
}

/// The record in the agent's own log.
fn say(r: &ActionRecord) {
    let (action, mode, outcome) = (r.action.as_str(), r.mode.as_str(), r.outcome.as_str());
    match r.outcome {
        Outcome::WouldAct | Outcome::Pending | Outcome::Verified => {
            tracing::info!(act = r.act, unit = %r.unit, leak = %r.leak, rule = %r.rule, action, mode, outcome, "{}", r.detail);
        }
        Outcome::Refused | Outcome::Failed | Outcome::Ineffective => {
            tracing::warn!(act = r.act, unit = %r.unit, leak = %r.leak, rule = %r.rule, action, mode, outcome, "{}", r.detail);
        }
    }
}

/// What a rule does to its targets, to follow "would" or "did not".
fn aim(given: &Cleanup, targets: &[Target]) -> String {
    let whom = targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match given.action {
        ActionKind::Notify => "say so in the log".to_owned(),
        ActionKind::Signal => format!("send {} to {whom}", signal::name(given.signal.unwrap_or(0))),
        ActionKind::KillOrphans => format!("end {whom}"),
    }
}

/// Why an act counts as having worked; `None` while it does not.
fn worked(
    action: ActionKind,
    held: u64,
    hit: &BTreeSet<ProcessId>,
    leak: Option<&Leak>,
) -> Option<String> {
    let Some(leak) = leak.filter(|l| l.state != State::Resolved) else {
        return Some("the verdict is resolved".to_owned());
    };
    if action == ActionKind::KillOrphans {
        let lives = |e: &crate::detection::verdict::Example| {
            hit.iter().any(|id| (id.pid, id.start_ticks) == (e.pid, e.start_ticks))
        };
        return (!leak.examples.iter().any(lives))
            .then(|| format!("all {} are gone, {} others are held", hit.len(), leak.held));
    }
    (leak.held < held).then(|| format!("held fell from {held} to {}", leak.held))
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
