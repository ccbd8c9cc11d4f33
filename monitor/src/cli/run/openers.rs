//! Who opened what makes a finding: the function, where the probes can be had.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::findings::counts_as_many;
use super::proc;
use super::seen::{Cohort, cohort};
use super::starters::listed;
use super::temporary::Temporary;
use crate::source::command::{Looked, Probes};
use crate::source::frame::{Frame, Opener, OpenerKey, Role};
use crate::source::model::{FdBirth, FdSample, ProcessId};
use crate::time::Boottime;

/// Processes of one cohort whose stacks are looked up, besides those that hold more
/// than any before.
const PROCESSES: u32 = 8;
/// Stacks of one cohort in one process: those that opened most.
const STACKS: usize = 8;
/// Stacks of one command.
const ALL: usize = 1024;
/// Temporary files of which it is kept who opened them, at most.
const SIGHTED: usize = 1024;
/// Of those so many are looked up.
const TEMPORARY: usize = 32;
/// After the command there is so long for what has not been looked up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A call site, and how many it opened or started.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Site {
    /// Of those that one process held, most.
    pub(super) count: u64,
    /// The innermost function of the program itself; its address where it has no name.
    pub(super) function: String,
    /// Its source.
    #[serde(default)]
    pub(super) file: Option<String>,
    /// The line there.
    #[serde(default)]
    pub(super) line: Option<u32>,
    /// The file of the program or library.
    #[serde(default)]
    pub(super) module: Option<String>,
}

/// What was asked of one cohort.
#[derive(Default)]
struct Asked {
    processes: u32,
    most: u64,
    /// For each process that was asked for.
    stacks: Vec<Vec<Opened>>,
}

/// What one process opened from one stack, as frame pointers tell it.
struct Opened {
    key: OpenerKey,
    count: u64,
    /// Those of them whose stacks were copied then and are unwound.
    copied: Vec<(u32, Boottime)>,
}

/// A temporary file as a process has it open.
#[derive(Clone, Copy)]
struct Sighted {
    process: ProcessId,
    fd: u32,
    birth: FdBirth,
}

/// The call sites.
#[derive(Debug, Default)]
pub(super) struct Sites {
    /// Of each cohort, those that opened most first.
    pub(super) cohorts: HashMap<Cohort, Vec<Site>>,
    /// Of each temporary file that one was seen with.
    pub(super) temporary: BTreeMap<Vec<u8>, Site>,
    /// What is not known, in a sentence.
    pub(super) blind: Option<String>,
}

impl Sites {
    /// Who opened a temporary file, or the first in a temporary directory.
    pub(super) fn of_temporary(&self, path: &[u8]) -> Option<&Site> {
        let from = self.temporary.range(path.to_vec()..);
        let within =
            |p: &[u8]| Path::new(OsStr::from_bytes(p)).starts_with(OsStr::from_bytes(path));
        from.take_while(|(p, _)| p.starts_with(path)).find(|(p, _)| within(p)).map(|(_, site)| site)
    }
}

/// The probes and what was asked of them.
pub(super) struct Openers {
    probes: Probes,
    strict: bool,
    asked: HashMap<Cohort, Asked>,
    /// Temporary files that processes that live were seen with.
    sighted: HashMap<Vec<u8>, Sighted>,
    /// Those that were there when their process ended.
    temporary: BTreeMap<Vec<u8>, Sighted>,
    all: usize,
    left_out: u64,
}

impl Openers {
    /// From before the first instruction of the command.
    ///
    /// # Errors
    /// In words, why they cannot be had.
    pub(super) fn attach(strict: bool) -> Result<Self, String> {
        let probes = Probes::attach()?;
        Ok(Self {
            probes,
            strict,
            asked: HashMap::new(),
            sighted: HashMap::new(),
            temporary: BTreeMap::new(),
            all: 0,
            left_out: 0,
        })
    }

    /// Watches the command, which is not released yet.
    ///
    /// # Errors
    /// In words.
    pub(super) fn watch(&mut self, pid: libc::pid_t) -> Result<(), String> {
        self.probes.watch(pid.cast_unsigned())
    }

    /// A process holds these of its own, and that of some cohorts so many is a finding.
    /// It is stopped at its end, or (`ends` is false) goes on.
    pub(super) fn ask(
        &mut self,
        pid: libc::pid_t,
        program: &str,
        held: &mut [FdSample],
        ends: bool,
        finding: impl Fn(&Cohort, u64) -> bool,
    ) {
        if held.is_empty() {
            return;
        }
        let mut cohorts: HashMap<Cohort, Vec<usize>> = HashMap::new();
        for (at, sample) in held.iter().enumerate() {
            cohorts.entry(cohort(program, sample)).or_default().push(at);
        }
        cohorts.retain(|cohort, members| {
            let count = members.len() as u64;
            let asked = self.asked.get(cohort);
            // Of one that goes on running not at each look, which has its time.
            let more = match asked {
                Some(a) if !ends => count >= 2 * a.most,
                Some(a) => a.processes < PROCESSES || count > a.most,
                None => true,
            };
            counts_as_many(count, self.strict) && finding(cohort, count) && more
        });
        let Some(process) = (!cohorts.is_empty()).then(|| proc::identity(pid)).flatten() else {
            return;
        };
        self.probes.annotate(pid.cast_unsigned(), held);
        let mut wanted = Vec::new();
        for (cohort, members) in cohorts {
            let mut stacks: BTreeMap<u32, Vec<(u32, Boottime)>> = BTreeMap::new();
            for at in &members {
                let sample = &held[*at];
                if let Some((birth, stack)) = sample.birth.and_then(|b| Some((b, b.stack?))) {
                    stacks.entry(stack).or_default().push((sample.fd, birth.at));
                }
            }
            let mut stacks: Vec<_> = stacks.into_iter().collect();
            stacks.sort_unstable_by_key(|(stack, of)| (std::cmp::Reverse(of.len()), *stack));
            stacks.truncate(STACKS.min(ALL.saturating_sub(self.all)));
            if stacks.is_empty() {
                self.left_out += 1;
                continue;
            }
            self.all += stacks.len();
            wanted.extend(stacks.iter().map(|(stack, _)| *stack));
            let stacks = stacks.into_iter().map(|(stack, of)| Opened {
                key: (process, stack),
                count: of.len() as u64,
                copied: self.probes.unwind(process, of.into_iter()),
            });
            let stacks = stacks.collect();
            let asked = self.asked.entry(cohort).or_default();
            asked.processes += 1;
            asked.most = asked.most.max(members.len() as u64);
            asked.stacks.push(stacks);
        }
        let births = held.iter().filter_map(|sample| sample.birth);
        self.probes.ask(process, births.filter(|b| b.stack.is_some_and(|s| wanted.contains(&s))));
    }

    /// A process holds these of its own, of which some may be temporary files.
    pub(super) fn sight(&mut self, pid: libc::pid_t, held: &mut [FdSample], temporary: &Temporary) {
        for sample in held {
            let path = sample.path.as_bytes();
            if self.sighted.len() >= SIGHTED
                || !temporary.covers(path)
                || self.sighted.contains_key(path)
            {
                continue;
            }
            self.probes.annotate(pid.cast_unsigned(), std::slice::from_mut(sample));
            let birth = sample.birth.filter(|birth| birth.stack.is_some());
            if let Some((birth, process)) = birth.zip(proc::identity(pid)) {
                let sighted = Sighted { process, fd: sample.fd, birth };
                self.sighted.insert(sample.path.as_bytes().to_vec(), sighted);
            }
        }
    }

    /// A process executes another program: its memory is not what its stacks are of.
    pub(super) fn executes(&mut self, pid: libc::pid_t) {
        self.sighted.retain(|_, seen| seen.process.pid != pid.cast_unsigned());
        self.probes.executes(pid.cast_unsigned());
    }

    /// A process is about to end, and has been asked for.
    pub(super) fn ends(&mut self, pid: libc::pid_t) {
        self.leaves(|process| process.pid == pid.cast_unsigned());
        self.probes.ends(pid.cast_unsigned());
    }

    /// Has it looked up who opened the temporary files of these that are still there.
    fn leaves(&mut self, of: impl Fn(&ProcessId) -> bool) {
        let there = |path: &[u8]| Path::new(OsStr::from_bytes(path)).symlink_metadata().is_ok();
        let of = self.sighted.extract_if(|_, seen| of(&seen.process));
        // In order, so that each run says the same.
        let of: BTreeMap<_, _> = of.filter(|(path, _)| there(path)).collect();
        for (path, seen) in of {
            if self.temporary.len() >= TEMPORARY {
                self.left_out += 1;
                continue;
            }
            self.probes.unwind(seen.process, std::iter::once((seen.fd, seen.birth.at)));
            self.probes.ask(seen.process, std::iter::once(seen.birth));
            self.temporary.insert(path, seen);
        }
    }

    /// The call sites. While they are waited for, `meanwhile` is done again and again.
    pub(super) fn sites(mut self, meanwhile: impl FnMut()) -> Sites {
        self.leaves(|_| true);
        let looked = self.probes.openers(PATIENCE, meanwhile);
        let mut unknown = Unknown { stacks: self.left_out, why: None };
        let mut sites = Sites::default();
        for (cohort, asked) in self.asked {
            let mut of: BTreeMap<Site, u64> = BTreeMap::new();
            for process in asked.stacks {
                for (site, count) in opened_by(&process, &looked, &mut unknown) {
                    let most = of.entry(site).or_default();
                    *most = count.max(*most);
                }
            }
            sites.cohorts.insert(cohort, listed(of));
        }
        for (path, Sighted { process, fd, birth }) in self.temporary {
            let unwound = looked.unwound(process, fd, birth.at).and_then(site);
            let opener = birth.stack.and_then(|stack| looked.opener(&(process, stack)));
            if let Some(site) = unwound.or_else(|| opener.and_then(site)) {
                sites.temporary.insert(path, Site { count: 1, ..site });
            } else {
                unknown.add(opener);
            }
        }
        sites.blind = unknown.words();
        sites
    }
}

/// Stacks of which it is not known whose they are.
struct Unknown<'a> {
    stacks: u64,
    why: Option<&'a str>,
}

impl<'a> Unknown<'a> {
    fn add(&mut self, opener: Option<&'a Opener>) {
        self.stacks += 1;
        // The first in order, so that each run says the same.
        self.why = self.why.into_iter().chain(opener.and_then(|o| o.note.as_deref())).min();
    }

    fn words(&self) -> Option<String> {
        let why = self.why.unwrap_or("there was no stack, or it could not be looked up");
        let Self { stacks, .. } = self;
        (*stacks > 0)
            .then(|| format!("the functions that opened some of it ({stacks} stacks): {why}"))
    }
}

/// How many of what a process holds each site has opened.
fn opened_by<'a>(
    process: &[Opened],
    looked: &'a Looked,
    unknown: &mut Unknown<'a>,
) -> BTreeMap<Site, u64> {
    let mut sites: BTreeMap<Site, u64> = BTreeMap::new();
    for Opened { key, count, copied } in process {
        let mut rest = *count;
        // What frame pointers take for one stack may be several where there are none.
        for (fd, at) in copied {
            if let Some(site) = looked.unwound(key.0, *fd, *at).and_then(site) {
                *sites.entry(site).or_default() += 1;
                rest -= 1;
            }
        }
        if rest > 0 {
            let opener = looked.opener(key);
            match opener.and_then(site) {
                Some(site) => *sites.entry(site).or_default() += rest,
                None => unknown.add(opener),
            }
        }
    }
    sites
}

/// Who opened, or started: the innermost frame of the program itself, else of a library it uses.
pub(super) fn site(opener: &Opener) -> Option<Site> {
    let of = |role: Role| opener.frames.iter().find(|f| f.role == role);
    let frame: &Frame = of(Role::Opener).or_else(|| of(Role::Library))?;
    Some(Site {
        count: 0,
        function: frame.function.clone(),
        file: frame.file.clone(),
        line: frame.line,
        module: frame.module.clone(),
    })
}

impl Site {
    /// `leak (src/main.rs:7)`
    pub(super) fn words(&self) -> String {
        let place = match (&self.file, self.line) {
            (Some(file), Some(line)) => Some(format!("{file}:{line}")),
            (Some(file), None) => Some(file.clone()),
            (None, _) => self.module.clone(),
        };
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        format!("{}{place}", self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::model::{BootId, ProcessId};

    #[test]
    fn a_site_is_the_opener_else_a_library_and_never_the_runtime() {
        let frame = |function: &str, role| Frame {
            function: function.to_owned(),
            file: Some("a.c".to_owned()),
            line: Some(7),
            role,
            ..Frame::default()
        };
        let process = ProcessId { boot: BootId(0), pid: 1, start_ticks: 1 };
        let of = |frames| site(&Opener { process, stack: 0, frames, note: None });
        let (libc, library) = (frame("open", Role::Runtime), frame("connect", Role::Library));
        let opener = frame("leak", Role::Opener);
        let words = |site: Option<Site>| site.map(|s| s.words());
        let all = vec![libc.clone(), library.clone(), opener];
        assert_eq!(words(of(all)).as_deref(), Some("leak (a.c:7)"));
        let without = vec![libc.clone(), library];
        assert_eq!(words(of(without)).as_deref(), Some("connect (a.c:7)"));
        assert_eq!(of(vec![libc]), None);
    }
}
