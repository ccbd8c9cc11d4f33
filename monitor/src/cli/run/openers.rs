//! Who opened what makes a finding: the function, where the probes can be had.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::findings::counts_as_many;
use super::proc;
use super::seen::{Cohort, cohort};
use crate::source::command::Probes;
use crate::source::frame::{Frame, Opener, OpenerKey, Role};
use crate::source::model::FdSample;

/// Processes of one cohort whose stacks are looked up, besides those that hold more
/// than any before.
const PROCESSES: u32 = 8;
/// Stacks of one cohort in one process: those that opened most.
const STACKS: usize = 8;
/// Stacks of one command.
const ALL: usize = 1024;
/// After the command there is so long for what has not been looked up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call site, and how many it opened.
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
    /// For each process that was asked for, its stacks and what each opened.
    stacks: Vec<Vec<(OpenerKey, u64)>>,
}

/// The probes and what was asked of them.
pub(super) struct Openers {
    probes: Probes,
    strict: bool,
    asked: HashMap<Cohort, Asked>,
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
        Ok(Self { probes, strict, asked: HashMap::new(), all: 0, left_out: 0 })
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
            let mut stacks: BTreeMap<u32, u64> = BTreeMap::new();
            for at in &members {
                if let Some(stack) = held[*at].birth.and_then(|birth| birth.stack) {
                    *stacks.entry(stack).or_default() += 1;
                }
            }
            let mut stacks: Vec<(OpenerKey, u64)> =
                stacks.into_iter().map(|(stack, n)| ((process, stack), n)).collect();
            stacks.sort_unstable_by_key(|(key, n)| (std::cmp::Reverse(*n), *key));
            stacks.truncate(STACKS.min(ALL.saturating_sub(self.all)));
            if stacks.is_empty() {
                self.left_out += 1;
                continue;
            }
            self.all += stacks.len();
            wanted.extend(stacks.iter().map(|(key, _)| key.1));
            let asked = self.asked.entry(cohort).or_default();
            asked.processes += 1;
            asked.most = asked.most.max(members.len() as u64);
            asked.stacks.push(stacks);
        }
        let births = held.iter().filter_map(|sample| sample.birth);
        self.probes.ask(process, births.filter(|b| b.stack.is_some_and(|s| wanted.contains(&s))));
    }

    /// A process is about to end, and has been asked for.
    pub(super) fn ends(&mut self, pid: libc::pid_t) {
        self.probes.ends(pid.cast_unsigned());
    }

    /// The call sites of each cohort, those that opened most first; and in a sentence,
    /// what is not known. While they are waited for, `meanwhile` is done again and again.
    pub(super) fn sites(
        self,
        meanwhile: impl FnMut(),
    ) -> (HashMap<Cohort, Vec<Site>>, Option<String>) {
        let openers = self.probes.openers(PATIENCE, meanwhile);
        let mut unknown = self.left_out;
        let mut why: Option<&str> = None;
        let mut sites = HashMap::new();
        for (cohort, asked) in self.asked {
            let mut of: BTreeMap<Site, u64> = BTreeMap::new();
            for process in asked.stacks {
                let mut here: BTreeMap<Site, u64> = BTreeMap::new();
                for (key, count) in process {
                    let opener = openers.get(&key);
                    if let Some(site) = opener.and_then(|o| site(o)) {
                        *here.entry(site).or_default() += count;
                    } else {
                        unknown += 1;
                        // The first in order, so that each run says the same.
                        let note = opener.and_then(|o| o.note.as_deref());
                        why = why.into_iter().chain(note).min();
                    }
                }
                for (site, count) in here {
                    let most = of.entry(site).or_default();
                    *most = count.max(*most);
                }
            }
            let mut list: Vec<Site> =
                of.into_iter().map(|(site, count)| Site { count, ..site }).collect();
            list.sort_by_key(|site| std::cmp::Reverse(site.count));
            sites.insert(cohort, list);
        }
        let blind = (unknown > 0).then(|| {
            let why = why.unwrap_or("there was no stack, or it could not be looked up");
            format!("the functions that opened some of it ({unknown} stacks): {why}")
        });
        (sites, blind)
    }
}

/// Who opened: the innermost frame of the program itself, else of a library it uses.
fn site(opener: &Opener) -> Option<Site> {
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
