//! The cleanup rules of the config, compiled, with what they have spent.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::model::Cleanup;
use crate::detection::verdict::{Leak, Rule};
use crate::glob::{Glob, Subject};
use crate::time::Boottime;

const HOUR: Duration = Duration::from_secs(3600);

/// One compiled `[[cleanup]]`.
#[derive(Debug)]
pub(super) struct Compiled {
    /// As given.
    pub(super) given: Cleanup,
    rule: Option<Glob>,
    unit: Option<Glob>,
    protect: Vec<Glob>,
    /// When it acted within the last hour; at most `budget` entries.
    spent: VecDeque<Boottime>,
}

impl Compiled {
    /// Compiles one rule.
    ///
    /// # Errors
    /// A glob is malformed.
    pub(super) fn new(given: &Cleanup) -> Result<Self, globset::Error> {
        let glob = |p: &String| Glob::new(p, Subject::Text);
        Ok(Self {
            rule: given.rule.as_ref().map(glob).transpose()?,
            unit: given.unit.as_ref().map(glob).transpose()?,
            protect: given.protect.iter().map(glob).collect::<Result<_, _>>()?,
            given: given.clone(),
            spent: VecDeque::new(),
        })
    }

    /// The rule of the verdict that makes this one apply. A rule that names
    /// neither a rule nor a unit applies to nothing.
    pub(super) fn applies(&self, leak: &Leak) -> Option<Rule> {
        if self.rule.is_none() && self.unit.is_none() {
            return None;
        }
        if self.unit.as_ref().is_some_and(|g| !g.is_match(leak.unit.as_bytes())) {
            return None;
        }
        let fits = |r: &Rule| self.rule.as_ref().is_none_or(|g| g.is_match(r.as_str().as_bytes()));
        leak.rules.iter().copied().find(fits)
    }

    /// The glob that protects this unit.
    pub(super) fn protects(&self, unit: &str) -> Option<&str> {
        self.protect.iter().find(|g| g.is_match(unit.as_bytes())).map(Glob::pattern)
    }

    /// Takes one act out of the hour's budget; false where none is left.
    pub(super) fn spend(&mut self, now: Boottime) -> bool {
        while self.spent.front().is_some_and(|at| now.since(*at) >= HOUR) {
            self.spent.pop_front();
        }
        let left = self.spent.len() < self.given.budget as usize;
        if left {
            self.spent.push_back(now);
        }
        left
    }

    /// Goes on with what `old` has spent.
    pub(super) fn inherit(&mut self, old: &mut Self) {
        self.spent = std::mem::take(&mut old.spent);
    }

    /// The same rule for its budget: another mode or limit does not make it new.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let (a, b) = (&self.given, &other.given);
        (&a.rule, &a.unit, a.action) == (&b.rule, &b.unit, b.action)
    }
}
