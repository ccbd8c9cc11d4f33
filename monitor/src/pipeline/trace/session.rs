//! Feeds the stages and writes down what they are fed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use super::anonymous::Anonymous;
use super::tell::Teller;
use super::write::{WriteError, Writer};
use crate::attribution::name_of;
use crate::config::Config;
use crate::detection::Change;
use crate::pipeline::turn::Turn;
use crate::source::model::{KernelStr, Observation, ProcessId, ProcessSample, TaskEvent};
use crate::time::{Boottime, ClockPair};

/// User ids whose names are asked for: more than a host has.
const MAX_USERS: usize = 10_000;

/// The stages, the trace of what they are fed, and what they say of it.
///
/// What is written is what is fed: first the one, then the other, so that a trace
/// that breaks off gives all verdicts that were told, or more.
pub(super) struct Session<'a, W: Write> {
    pub turn: Turn,
    writer: Writer<W>,
    teller: Teller<'a>,
    anonymous: Anonymous,
    users: BTreeMap<u32, Option<KernelStr>>,
    /// The output took no more.
    deaf: Option<io::Error>,
}

impl<'a, W: Write> Session<'a, W> {
    pub fn new(
        mut turn: Turn,
        config: &Config,
        mut writer: Writer<W>,
        teller: Teller<'a>,
    ) -> Result<Self, WriteError> {
        writer.config(config)?;
        turn.tell_users(BTreeMap::new());
        let anonymous = Anonymous::default();
        Ok(Self { turn, writer, teller, anonymous, users: BTreeMap::new(), deaf: None })
    }

    /// Why it is to end by itself, with a trace of at most so many bytes.
    pub fn over(&self, max_size: u64) -> Option<&'static str> {
        match &self.deaf {
            Some(_) => Some("nobody took the output"),
            None => (self.writer.bytes() >= max_size).then_some("the trace has its size"),
        }
    }

    pub fn config(&mut self, config: &Config) -> Result<(), WriteError> {
        self.writer.config(config)
    }

    pub fn look(&mut self, mut seen: Observation, judged: ClockPair) -> Result<(), WriteError> {
        self.anonymous.shape(&mut seen);
        self.learn_users(&seen.processes, true)?;
        self.writer.look(&seen, judged)?;
        let changes = self.turn.observed(seen, judged);
        self.tell(judged, &changes);
        Ok(())
    }

    /// True if it is time to judge.
    pub fn tasks(&mut self, events: &[TaskEvent]) -> Result<bool, WriteError> {
        self.writer.tasks(events)?;
        Ok(self.turn.tasks(events))
    }

    pub fn glimpse(
        &mut self,
        seen: &[ProcessSample],
        at: Boottime,
    ) -> Result<Vec<(ProcessId, Arc<str>)>, WriteError> {
        self.learn_users(seen, false)?;
        self.writer.glimpse(seen, at)?;
        Ok(self.turn.glimpsed(seen, at))
    }

    pub fn judge(&mut self, at: ClockPair) -> Result<(), WriteError> {
        self.writer.judge(at)?;
        let changes = self.turn.judge(at);
        self.tell(at, &changes);
        Ok(())
    }

    fn tell(&mut self, at: ClockPair, changes: &[Change]) {
        if self.deaf.is_none() {
            self.deaf = self.teller.changes(at.wall, changes).err();
        }
    }

    /// Ends the trace; gives its size in bytes, and what the output did not take.
    pub fn end(mut self, why: &str) -> Result<(u64, Option<io::Error>), WriteError> {
        let (_, bytes) = self.writer.end(why)?;
        let deaf = self.deaf.or_else(|| self.teller.end(self.turn.leaks()).err());
        Ok((bytes, deaf))
    }

    /// Tells the names of users that are new. With a whole census, those that have
    /// no process any more are forgotten: their ids may be given to others.
    fn learn_users(&mut self, seen: &[ProcessSample], whole: bool) -> Result<(), WriteError> {
        let mut now = if whole { BTreeMap::new() } else { self.users.clone() };
        for uid in seen.iter().filter_map(|p| p.uid) {
            if now.len() < MAX_USERS && !now.contains_key(&uid) {
                let known = self.users.get(&uid).cloned();
                let ask = || name_of(uid).map(|name| KernelStr::from(name.as_slice()));
                now.insert(uid, known.unwrap_or_else(ask));
            }
        }
        if now != self.users {
            let named = |(uid, name): (&u32, &Option<KernelStr>)| Some((*uid, name.clone()?));
            let names: BTreeMap<u32, KernelStr> = now.iter().filter_map(named).collect();
            self.writer.users(&names)?;
            self.turn.tell_users(names);
            self.users = now;
        }
        Ok(())
    }
}
