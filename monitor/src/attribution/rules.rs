//! The match rules of the config, compiled.

use std::sync::Arc;

use super::names::unit_name;
use super::unit::{Unit, UnitKind};
use super::users::Users;
use crate::config::model::UnitRule;
use crate::glob::{Glob, Subject};
use crate::source::model::{KernelStr, ProcessSample};

/// One compiled `[[unit]]`.
#[derive(Debug)]
pub(super) struct Compiled {
    /// As given: a reload keeps what it knows of rules that did not change.
    pub(super) given: UnitRule,
    /// What it makes of a process.
    pub(super) unit: Arc<Unit>,
    cgroup: Option<Glob>,
    exe: Option<Glob>,
    cmdline: Option<Glob>,
    user: Option<User>,
}

#[derive(Debug)]
enum User {
    Id(u32),
    Name(Glob),
}

impl Compiled {
    /// Compiles one rule.
    ///
    /// # Errors
    /// A glob is malformed.
    pub(super) fn new(rule: &UnitRule) -> Result<Self, globset::Error> {
        let glob = |pattern: &Option<String>, subject| {
            pattern.as_deref().map(|p| Glob::new(p, subject)).transpose()
        };
        let user = match rule.user.as_deref() {
            None => None,
            Some(text) => Some(match text.parse() {
                Ok(id) => User::Id(id),
                Err(_) => User::Name(Glob::new(text, Subject::Text)?),
            }),
        };
        Ok(Self {
            given: rule.clone(),
            unit: Arc::new(Unit {
                name: unit_name(rule.name.as_bytes()).into(),
                kind: UnitKind::Rule,
                cgroup: rule.cgroup.as_deref().filter(|c| is_literal(c)).unwrap_or("").into(),
            }),
            cgroup: glob(&rule.cgroup, Subject::Path)?,
            exe: glob(&rule.exe, Subject::Path)?,
            cmdline: glob(&rule.cmdline, Subject::Text)?,
            user,
        })
    }

    /// All given matchers hold. What cannot be read does not match, and a rule
    /// without matchers matches nothing.
    pub(super) fn holds(&self, p: &ProcessSample, users: &mut Users) -> bool {
        let given = self.cgroup.is_some()
            || self.exe.is_some()
            || self.cmdline.is_some()
            || self.user.is_some();
        let on = |glob: &Option<Glob>, bytes: Option<&[u8]>| match (glob, bytes) {
            (None, _) => true,
            (Some(glob), Some(bytes)) => glob.is_match(bytes),
            (Some(_), None) => false,
        };
        given
            && on(&self.cgroup, Some(p.cgroup.as_bytes()))
            && on(&self.exe, p.exe.as_ref().map(KernelStr::as_bytes))
            && on(&self.cmdline, Some(p.cmdline.as_bytes()))
            && match (&self.user, p.uid) {
                (None, _) => true,
                (Some(User::Id(want)), Some(uid)) => *want == uid,
                (Some(User::Name(glob)), Some(uid)) => {
                    users.name(uid).is_some_and(|name| glob.is_match(name))
                }
                (Some(_), None) => false,
            }
    }
}

/// No character of `pattern` means anything to a glob.
fn is_literal(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '[', ']', '{', '}', '\\'])
}
