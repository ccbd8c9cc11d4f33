//! What counts as a finding, and what of it is known already.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::openers::{Site, Sites};
use super::seen::{Cohort, Left, Seen};
use super::starters::{Started, counted, listed};
use super::temporary::Appeared;
use crate::source::model::{FdKind, KernelStr};

/// Descriptors of one cohort in one process that are no finding: a program need not
/// close its few files before it ends.
const FEW: u64 = 4;

/// Whether so many of one cohort are a finding.
pub(super) const fn counts_as_many(count: u64, strict: bool) -> bool {
    strict || count > FEW
}

/// What was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// Descriptors that were open at the end of their process.
    Descriptors,
    /// Descriptors that became more and more while their process ran, but were not open
    /// at its end.
    Growing,
    /// Threads that ran when their process ended itself.
    Threads,
    /// Processes that live after the command.
    Process,
    /// A file or directory for temporary data.
    TemporaryFile,
}

impl What {
    pub(super) const ALL: [Self; 5] =
        [Self::Descriptors, Self::Growing, Self::Threads, Self::Process, Self::TemporaryFile];

    /// As JSON has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Growing => "growing",
            Self::Threads => "threads",
            Self::Process => "process",
            Self::TemporaryFile => "temporary_file",
        }
    }

    /// For people, of any number.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors open at the end of a process",
            Self::Growing => "descriptors that only grew in number while a process ran",
            Self::Threads => "threads that ran when their process ended",
            Self::Process => "processes that live after the command",
            Self::TemporaryFile => "temporary files left",
        }
    }
}

/// One thing that was left, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) what: What,
    /// The program that left it; of a temporary file it may be unknown.
    #[serde(default)]
    pub(super) program: Option<String>,
    /// Of descriptors.
    #[serde(default)]
    pub(super) kind: Option<FdKind>,
    /// The template of descriptors, or the temporary file.
    #[serde(default)]
    pub(super) path: Option<String>,
    /// The path of one of them as it is, of which `path` is what people read.
    #[serde(default)]
    pub(super) example: Option<KernelStr>,
    /// Of descriptors and threads those of the worst process, of growing ones those at the
    /// last look.
    pub(super) count: u64,
    /// Of descriptors and threads the processes that had such, of processes their number.
    #[serde(default)]
    pub(super) processes: u64,
    #[serde(default)]
    pub(super) pids: Vec<u32>,
    /// What the threads are called.
    #[serde(default)]
    pub(super) names: Vec<String>,
    /// Who opened the descriptors or the file, or started the threads or processes, most
    /// first, where that was seen.
    #[serde(default)]
    pub(super) openers: Vec<Site>,
    /// Whether it makes `--fail-on-leak` fail; else it is only mentioned.
    pub(super) leak: bool,
}

/// How the processes of the command were told from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    /// By who started whom.
    #[default]
    Descent,
    /// By that, and by a cgroup of their own.
    Cgroup,
}

/// The report, as `--format json` writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// The command and its arguments.
    pub(super) command: Vec<String>,
    /// Its exit status, 128 and the signal if one ended it.
    pub(super) status: u8,
    /// When the command was started.
    #[serde(default)]
    pub(super) started: Timestamp,
    /// How long it and what it started were watched, in seconds.
    #[serde(default)]
    pub(super) seconds: f64,
    /// How the processes of the command were told from others: `cgroup` besides descent, or
    /// `descent` alone.
    #[serde(default)]
    pub(super) scope: Scope,
    /// Processes that have ended, the command among them.
    #[serde(default)]
    pub(super) processes: u64,
    pub(super) findings: Vec<Finding>,
    /// Findings that the baseline has named.
    #[serde(default)]
    pub(super) known: u64,
    /// What could not be seen, in sentences.
    #[serde(default)]
    pub(super) blind: Vec<String>,
}

impl Report {
    /// Leaves out what the baseline has as often.
    pub(super) fn without(&mut self, baseline: &Self) {
        let all = self.findings.len();
        let mut known: HashMap<_, u64> = HashMap::new();
        for finding in &baseline.findings {
            let count = known.entry(finding.name()).or_default();
            *count = finding.count.max(*count);
        }
        self.findings.retain(|f| known.get(&f.name()).is_none_or(|count| *count < f.count));
        self.known += (all - self.findings.len()) as u64;
    }

    /// Whether anything in it is more than mentioned.
    pub(super) fn leaked(&self) -> bool {
        self.findings.iter().any(|f| f.leak)
    }
}

impl Finding {
    /// What tells it from the others of its sort, the same in each run.
    pub(super) fn subject(&self) -> String {
        let words = [self.kind.map(FdKind::as_str), self.path.as_deref(), self.program.as_deref()];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    fn name(&self) -> (What, Option<&str>, Option<FdKind>, Option<&str>) {
        (self.what, self.program.as_deref(), self.kind, self.path.as_deref())
    }
}

/// Puts together what was seen, in an order that is always the same.
pub(super) fn judge(
    seen: &Seen,
    left: &[Left],
    temporary: &[Appeared],
    sites: &Sites,
    started: &Started,
    strict: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let finding = |what, count, leak| Finding {
        what,
        program: None,
        kind: None,
        path: None,
        example: None,
        count,
        processes: 0,
        pids: Vec::new(),
        names: Vec::new(),
        openers: Vec::new(),
        leak,
    };
    let descriptors = |what, cohort: &Cohort, count, processes, leak| Finding {
        program: Some(cohort.program.clone()),
        kind: Some(cohort.kind),
        path: Some(cohort.path.clone()),
        processes,
        openers: sites.cohorts.get(cohort).cloned().unwrap_or_default(),
        ..finding(what, count, leak)
    };
    let many = |count: u64| counts_as_many(count, strict);
    let open: BTreeMap<_, _> = seen.open.iter().filter(|(_, open)| many(open.worst)).collect();
    for (cohort, open) in &open {
        findings.push(Finding {
            example: Some(open.example.as_slice().into()),
            ..descriptors(What::Descriptors, cohort, open.worst, open.processes, true)
        });
    }
    let grew: BTreeMap<_, _> = seen.grew.iter().filter(|(_, count)| many(**count)).collect();
    for (cohort, count) in grew {
        if !open.contains_key(cohort) {
            findings.push(descriptors(What::Growing, cohort, *count, 0, strict));
        }
    }
    // Many runtimes end with threads of their own, and it is well so.
    findings.extend(seen.threads.iter().map(|(program, running)| Finding {
        program: Some(program.clone()),
        processes: running.processes,
        names: running.names.iter().cloned().collect(),
        openers: started.threads.get(program).cloned().unwrap_or_default(),
        ..finding(What::Threads, running.worst, strict)
    }));
    let mut programs: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for process in left {
        programs.entry(&process.program).or_default().push(process.pid);
    }
    for (program, pids) in programs {
        let count = pids.len() as u64;
        let by = pids.iter().filter_map(|pid| started.processes.get(pid));
        findings.push(Finding {
            program: Some(program.to_owned()),
            processes: count,
            openers: listed(counted(by)),
            pids,
            ..finding(What::Process, count, true)
        });
    }
    findings.extend(temporary.iter().map(|file| Finding {
        program: file.program.clone(),
        path: Some(file.path.clone()),
        example: Some(file.raw.as_slice().into()),
        openers: sites.of_temporary(&file.raw).cloned().into_iter().collect(),
        ..finding(What::TemporaryFile, 1, strict || file.program.is_some())
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::super::seen::Open;
    use super::*;

    fn seen(worst: u64) -> Seen {
        let cohort =
            Cohort { program: "p".to_owned(), kind: FdKind::Regular, path: "/x/*".to_owned() };
        let mut seen = Seen::default();
        seen.open.insert(cohort, Open { worst, processes: 1, example: b"/x/a".to_vec() });
        seen
    }

    #[test]
    fn a_few_descriptors_are_a_finding_only_when_strict() {
        for (count, strict, want) in [(4, false, 0), (5, false, 1), (1, true, 1)] {
            assert_eq!(
                judge(&seen(count), &[], &[], &Sites::default(), &Started::default(), strict).len(),
                want,
                "{count} {strict}"
            );
        }
    }

    #[test]
    fn what_only_grew_is_mentioned_and_counts_when_strict() {
        let mut grown = seen(2);
        let cohort = grown.open.keys().next().cloned().unwrap();
        grown.grew.insert(cohort.clone(), 9);
        for (strict, want) in [(false, (What::Growing, false)), (true, (What::Descriptors, true))] {
            let found = judge(&grown, &[], &[], &Sites::default(), &Started::default(), strict);
            assert_eq!(found.iter().map(|f| (f.what, f.leak)).collect::<Vec<_>>(), [want]);
        }
        grown.open.clear();
        let found = judge(&grown, &[], &[], &Sites::default(), &Started::default(), true);
        assert_eq!(
            found.iter().map(|f| (f.what, f.count, f.leak)).collect::<Vec<_>>(),
            [(What::Growing, 9, true)]
        );
    }

    #[test]
    fn a_file_that_nobody_was_seen_with_is_only_mentioned() {
        let file = |program: Option<&str>| Appeared {
            path: "/tmp/x".to_owned(),
            raw: b"/tmp/x".to_vec(),
            program: program.map(str::to_owned),
        };
        for (program, strict, want) in
            [(None, false, false), (None, true, true), (Some("p"), false, true)]
        {
            let found = judge(
                &Seen::default(),
                &[],
                &[file(program)],
                &Sites::default(),
                &Started::default(),
                strict,
            );
            assert_eq!(found.iter().map(|f| f.leak).collect::<Vec<_>>(), [want]);
        }
    }

    #[test]
    fn the_known_are_left_out_until_they_are_more() {
        let report = |count, known: Option<&Report>| {
            let findings =
                judge(&seen(count), &[], &[], &Sites::default(), &Started::default(), false);
            let mut report = Report { findings, ..Report::default() };
            if let Some(known) = known {
                report.without(known);
            }
            report
        };
        let known = report(10, None);
        assert!(known.leaked());
        let same = report(10, Some(&known));
        assert_eq!((same.leaked(), same.known), (false, 1));
        assert!(report(11, Some(&known)).leaked());
    }
}
