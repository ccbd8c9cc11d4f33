//! The verdicts over time: suspected, confirmed, resolved.
//!
//! A verdict goes forward: what was confirmed stays so until nothing of it is left, and
//! then it is resolved. That is what keeps alerts from flapping. It goes back only if
//! every rule that has confirmed it has since seen what speaks against it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::model::Config;
use crate::detection::finding::{Finding, Member, Room, Strength};
use crate::detection::opened::{self, Opened};
use crate::detection::outcome::{self, Judged};
use crate::detection::rules;
use crate::detection::verdict::{Leak, Resource, Rule, State};
use crate::ledger::Ledger;
use crate::text;
use crate::time::{Boottime, ClockPair};

/// Resolved verdicts kept for display, and open ones at most.
const MAX_RESOLVED: usize = 500;
const MAX_OPEN: usize = 5_000;

/// Exhaustion further away than this is no forecast.
const HORIZON: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A verdict that changed its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The verdict as it is now.
    pub leak: Leak,
    /// State before; `None` for a new one.
    pub from: Option<State>,
    /// State now.
    pub to: State,
}

/// What makes two findings the same verdict.
type Key = (Arc<str>, u64, Resource, String, String);

struct Entry {
    leak: Leak,
    opened: Opened,
    members: Vec<Member>,
    first: Boottime,
    held_first: u64,
    /// By these it is confirmed.
    confirmed_rules: BTreeSet<Rule>,
}

/// The verdicts over time.
#[derive(Default)]
pub struct Docket {
    open: BTreeMap<Key, Entry>,
    /// Newest first; a stack may yet be looked up.
    resolved: VecDeque<(Leak, Opened)>,
    confirmed_total: BTreeMap<(Arc<str>, Resource, Rule), u64>,
}

impl Docket {
    /// An empty docket.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges the ledger; gives what changed.
    pub fn judge(&mut self, ledger: &Ledger, config: &Config, now: ClockPair) -> Vec<Change> {
        let mut groups: BTreeMap<Key, Vec<Finding>> = BTreeMap::new();
        for f in rules::judge(ledger, &config.detection, now.boot) {
            groups.entry(key(&f)).or_default().push(f);
        }
        let span = config.detection.window;
        let lost = loss(&ledger.losses(now.boot, span), span);
        let mut changes = Vec::new();
        let over: Vec<Key> =
            self.open.keys().filter(|k| !groups.contains_key(*k)).cloned().collect();
        for key in over {
            changes.extend(self.resolve(&key, ledger, now));
        }
        for (key, findings) in groups {
            changes.extend(self.find(key, findings, lost.as_deref(), now));
        }
        for (leak, opened) in &mut self.resolved {
            opened::refresh(leak, opened, ledger);
        }
        changes
    }

    fn find(
        &mut self,
        key: Key,
        findings: Vec<Finding>,
        lost: Option<&str>,
        now: ClockPair,
    ) -> Option<Change> {
        let strength = findings.iter().map(|f| f.strength).max()?;
        let known = self.open.get(&key).map(|e| e.leak.state);
        if known.is_none() && (strength == Strength::Sustains || self.open.len() >= MAX_OPEN) {
            return None;
        }
        let id = id(&key);
        let mut from = known;
        if known.is_none() {
            // It has come back: the same verdict, not a new one beside it.
            if let Some(i) = self.resolved.iter().position(|(l, _)| l.id == id) {
                self.resolved.remove(i);
                from = Some(State::Resolved);
            }
        }
        let first = self.open.get(&key).map_or(now.boot, |e| e.first);
        let held_first = self.open.get(&key).map(|e| e.held_first);
        let mut confirmed_rules =
            self.open.get(&key).map(|e| e.confirmed_rules.clone()).unwrap_or_default();
        for f in &findings {
            if f.withdraws {
                confirmed_rules.remove(&f.rule);
            } else if f.strength == Strength::Confirms && confirmed_rules.insert(f.rule) {
                let counted = (Arc::clone(&key.0), key.2, f.rule);
                *self.confirmed_total.entry(counted).or_default() += 1;
            }
        }
        let sure = !confirmed_rules.is_empty();
        let state = if sure { State::Confirmed } else { State::Suspected };
        let (old, before) = self.open.remove(&key).map(|e| (e.leak, e.opened)).unzip();
        let opened = opened::choose(findings.iter().map(|f| &f.opener), before.as_ref());
        let held = held(&findings);
        let held_first = held_first.unwrap_or(held);
        let growth = growth(&findings, held, held_first, now.boot.since(first));
        let mut leak = leak(id, state, old.as_ref(), &findings, held, growth, lost, now);
        (leak.opener, leak.opener_note) = (opened.frames.clone(), opened.note.clone());
        // A verdict on processes stays confirmed while others are suspected, but
        // cleanup may end only those that are sure.
        let sure = |f: &Finding| {
            state != State::Confirmed
                || key.2 != Resource::Process
                || f.strength == Strength::Confirms
        };
        let members: BTreeSet<Member> =
            findings.into_iter().filter(sure).flat_map(|f| f.members).collect();
        let members = members.into_iter().collect();
        let change = (from != Some(state)).then(|| Change { leak: leak.clone(), from, to: state });
        self.open.insert(key, Entry { leak, opened, members, first, held_first, confirmed_rules });
        change
    }

    fn resolve(&mut self, key: &Key, ledger: &Ledger, now: ClockPair) -> Option<Change> {
        let Entry { mut leak, opened, .. } = self.open.remove(key)?;
        let from = leak.state;
        leak.state = State::Resolved;
        leak.exhausts_at = None;
        leak.growth_per_hour = 0.0;
        let (unit, invocation, resource, kind, cohort) = key;
        let judged = Judged { unit, invocation: *invocation, resource: *resource, kind, cohort };
        leak.evidence.push(outcome::reason(&judged, ledger, now));
        while self.resolved.len() >= MAX_RESOLVED {
            self.resolved.pop_back();
        }
        self.resolved.push_front((leak.clone(), opened));
        Some(Change { leak, from: Some(from), to: State::Resolved })
    }

    /// Open verdicts, confirmed ones first, then resolved ones, newest first.
    pub fn leaks(&self) -> Vec<Leak> {
        let mut open: Vec<Leak> = self.open.values().map(|e| e.leak.clone()).collect();
        open.sort_by(|a, b| {
            let rank = |l: &Leak| std::cmp::Reverse(l.state == State::Confirmed);
            (rank(a), a.first_seen, &a.unit, &a.id).cmp(&(rank(b), b.first_seen, &b.unit, &b.id))
        });
        open.extend(self.resolved.iter().map(|(leak, _)| leak.clone()));
        open
    }

    /// The processes of an open verdict, each once; none for a resolved one. Of
    /// zombies it is the parent, who alone can reap them.
    pub fn members(&self, id: &str) -> Vec<Member> {
        let entry = self.open.values().find(|e| e.leak.id == id);
        entry.map_or(Vec::new(), |e| e.members.clone())
    }

    /// Confirmations since start.
    pub fn confirmed_total(&self) -> &BTreeMap<(Arc<str>, Resource, Rule), u64> {
        &self.confirmed_total
    }

    /// Units with an open verdict on descriptors or threads. A unit that is
    /// merely near a limit is none: probes would tell nothing about it.
    pub fn suspects(&self) -> BTreeSet<Arc<str>> {
        self.open
            .iter()
            .filter(|((_, _, resource, ..), e)| {
                matches!(resource, Resource::Fd | Resource::Thread)
                    && e.leak.rules.iter().any(|r| *r != Rule::Headroom)
            })
            .map(|((unit, ..), _)| Arc::clone(unit))
            .collect()
    }
}

fn key(f: &Finding) -> Key {
    (Arc::clone(&f.unit.name), f.invocation, f.resource, f.kind.clone(), f.cohort.clone())
}

/// FNV-1a over the key: the same over restarts of the agent, given the same
/// inputs, which std's hashers do not promise.
fn id(key: &Key) -> String {
    let (unit, invocation, resource, kind, cohort) = key;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let parts = [
        unit.as_bytes(),
        &invocation.to_le_bytes(),
        resource.as_str().as_bytes(),
        kind.as_bytes(),
        cohort.as_bytes(),
    ];
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        for byte in (part.len() as u64).to_le_bytes().iter().chain(part) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    // Fold: the low bits of FNV-1a mix best.
    format!("{:012x}", (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
}

/// Where a near-certain rule has counted, its count is the exact one: the
/// statistical rules cannot tell a member in use from a leaked one.
fn held(findings: &[Finding]) -> u64 {
    let most = |statistical| {
        findings.iter().filter(|f| is_statistical(f.rule) == statistical).map(|f| f.held).max()
    };
    most(false).or(most(true)).unwrap_or(0)
}

fn is_statistical(rule: Rule) -> bool {
    use Rule::{Excess, Outlived, RisingFloor, TaskGrowth, ThreadGrowth};
    matches!(rule, RisingFloor | Outlived | Excess | ThreadGrowth | TaskGrowth)
}

fn growth(findings: &[Finding], held: u64, held_first: u64, elapsed: Duration) -> f64 {
    let measured = findings
        .iter()
        .max_by_key(|f| (f.growth_per_hour.is_some(), f.strength))
        .and_then(|f| f.growth_per_hour);
    let hours = elapsed.as_secs_f64() / 3600.0;
    let growth = match measured {
        Some(g) => g,
        None if hours > 0.0 => (held as f64 - held_first as f64) / hours,
        None => 0.0,
    };
    if growth.is_finite() { growth } else { 0.0 }
}

#[allow(clippy::too_many_arguments, reason = "each is another part of the verdict")]
fn leak(
    id: String,
    state: State,
    old: Option<&Leak>,
    findings: &[Finding],
    held: u64,
    growth: f64,
    lost: Option<&str>,
    now: ClockPair,
) -> Leak {
    // Near-certain rules come first, in the order of their names' declaration.
    let main = &findings[0];
    let mut rules: BTreeSet<Rule> = findings.iter().map(|f| f.rule).collect();
    // Cleanup and alerts go by rule, so one that fired stays until the end.
    rules.extend(old.iter().flat_map(|l| l.rules.iter().copied()));
    let room = findings.iter().find_map(|f| f.room);
    let first_seen = old.map_or(now.wall, |l| l.first_seen);
    let confirmed_at =
        (state == State::Confirmed).then(|| old.and_then(|l| l.confirmed_at).unwrap_or(now.wall));
    let oldest = findings.iter().filter_map(|f| f.oldest).min();
    Leak {
        id,
        unit: Arc::clone(&main.unit.name),
        unit_kind: main.unit.kind,
        resource: main.resource,
        kind: main.kind.clone(),
        cohort: main.cohort.clone(),
        rules: rules.into_iter().collect(),
        state,
        held,
        growth_per_hour: growth,
        first_seen,
        confirmed_at,
        oldest_age_seconds: oldest.map_or(0.0, |at| now.boot.since(at).as_secs_f64()),
        limit: room.map(|r| r.limit),
        exhausts_at: room.and_then(|r| exhausts(r, growth, now)),
        pinned_bytes: findings.iter().map(|f| f.pinned_bytes).max().unwrap_or(0),
        confidence: confidence(findings, lost.is_some()),
        evidence: findings
            .iter()
            .flat_map(|f| f.evidence.iter().cloned())
            .chain(findings.iter().find_map(|f| f.openers.clone()))
            .chain(lost.map(str::to_owned))
            .collect(),
        opener: Vec::new(),
        opener_note: None,
        examples: main.examples.clone(),
    }
}

fn exhausts(room: Room, growth: f64, now: ClockPair) -> Option<Timestamp> {
    let per_hour = growth * room.share;
    if per_hour <= 0.0 {
        return None;
    }
    let left = room.limit.saturating_sub(room.used) as f64;
    let seconds = left / per_hour * 3600.0;
    if seconds > HORIZON.as_secs_f64() {
        return None;
    }
    now.wall.checked_add(jiff::SignedDuration::from_secs_f64(seconds)).ok()
}

/// The sentence that every verdict gets while the probes lose what they saw; the
/// same losses lower its confidence.
fn loss(losses: &[(&str, u64)], span: Duration) -> Option<String> {
    let counts: Vec<String> = losses.iter().map(|(source, n)| format!("{source} {n}")).collect();
    (!counts.is_empty()).then(|| {
        format!(
            "the probes lost events within the last {} (since start: {}): openings, openers and \
             lifetimes may be missing here; the counts are those of the census",
            text::duration(span),
            counts.join(", ")
        )
    })
}

/// How much weight a finding has by itself, 0 to 1: see `docs/detection.md`.
fn weight(f: &Finding, lossy: bool) -> f64 {
    let base = match (f.rule, f.strength) {
        (Rule::Headroom, _) => 0.99,
        (rule, Strength::Confirms) if is_statistical(rule) => 0.75,
        (rule, _) if is_statistical(rule) => 0.4,
        (_, Strength::Confirms) => 0.95,
        (_, _) => 0.6,
    };
    let mut weight: f64 = base;
    if lossy {
        weight *= 0.9;
    }
    if f.unborn {
        weight *= 0.9;
    }
    if f.blind {
        weight *= 0.8;
    }
    weight
}

/// Independent evidence adds up: one minus the product of the doubts.
fn confidence(findings: &[Finding], lossy: bool) -> f64 {
    let doubt: f64 = findings.iter().map(|f| 1.0 - weight(f, lossy)).product();
    (1.0 - doubt).clamp(0.0, 0.99)
}

#[cfg(test)]
mod tests;
