//! What counts as a finding, and what of it is known already.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::seen::{Cohort, Left, Seen};
use super::temporary::Appeared;
use crate::source::model::FdKind;

/// Descriptors of one cohort in one process that are no finding: a program need not
/// close its few files before it ends.
const FEW: u64 = 4;

/// What was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// Descriptors that were open at the end of their process.
    Descriptors,
    /// Descriptors that became more and more while their process ran, but were not open
    /// at its end.
    Growing,
    /// Processes that live after the command.
    Process,
    /// A file or directory for temporary data.
    TemporaryFile,
}

impl What {
    pub(super) const ALL: [Self; 4] =
        [Self::Descriptors, Self::Growing, Self::Process, Self::TemporaryFile];

    /// As JSON has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Growing => "growing",
            Self::Process => "process",
            Self::TemporaryFile => "temporary_file",
        }
    }

    /// For people, of any number.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors open at the end of a process",
            Self::Growing => "descriptors that only grew in number while a process ran",
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
    /// Of descriptors those of the worst process, of growing ones those at the last look.
    pub(super) count: u64,
    /// Of descriptors the processes that held such, of processes their ids.
    #[serde(default)]
    pub(super) processes: u64,
    #[serde(default)]
    pub(super) pids: Vec<u32>,
    /// Whether it makes `--fail-on-leak` fail; else it is only mentioned.
    pub(super) leak: bool,
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
    strict: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let descriptors = |what, cohort: &Cohort, count, processes, leak| Finding {
        what,
        program: Some(cohort.program.clone()),
        kind: Some(cohort.kind),
        path: Some(cohort.path.clone()),
        count,
        processes,
        pids: Vec::new(),
        leak,
    };
    let many = |count: u64| strict || count > FEW;
    let open: BTreeMap<_, _> = seen.open.iter().filter(|(_, open)| many(open.worst)).collect();
    for (cohort, open) in &open {
        let (count, processes) = (open.worst, open.processes);
        findings.push(descriptors(What::Descriptors, cohort, count, processes, true));
    }
    let grew: BTreeMap<_, _> = seen.grew.iter().filter(|(_, count)| many(**count)).collect();
    for (cohort, count) in grew {
        if !open.contains_key(cohort) {
            findings.push(descriptors(What::Growing, cohort, *count, 0, strict));
        }
    }
    let mut programs: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for process in left {
        programs.entry(&process.program).or_default().push(process.pid);
    }
    for (program, pids) in programs {
        findings.push(Finding {
            what: What::Process,
            program: Some(program.to_owned()),
            kind: None,
            path: None,
            count: pids.len() as u64,
            processes: pids.len() as u64,
            pids,
            leak: true,
        });
    }
    findings.extend(temporary.iter().map(|file| Finding {
        what: What::TemporaryFile,
        program: file.program.clone(),
        kind: None,
        path: Some(file.path.clone()),
        count: 1,
        processes: 0,
        pids: Vec::new(),
        leak: strict || file.program.is_some(),
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
        seen.open.insert(cohort, Open { worst, processes: 1 });
        seen
    }

    #[test]
    fn a_few_descriptors_are_a_finding_only_when_strict() {
        for (count, strict, want) in [(4, false, 0), (5, false, 1), (1, true, 1)] {
            assert_eq!(judge(&seen(count), &[], &[], strict).len(), want, "{count} {strict}");
        }
    }

    #[test]
    fn what_only_grew_is_mentioned_and_counts_when_strict() {
        let mut grown = seen(2);
        let cohort = grown.open.keys().next().cloned().unwrap();
        grown.grew.insert(cohort.clone(), 9);
        for (strict, want) in [(false, (What::Growing, false)), (true, (What::Descriptors, true))] {
            let found = judge(&grown, &[], &[], strict);
            assert_eq!(found.iter().map(|f| (f.what, f.leak)).collect::<Vec<_>>(), [want]);
        }
        grown.open.clear();
        let found = judge(&grown, &[], &[], true);
        assert_eq!(
            found.iter().map(|f| (f.what, f.count, f.leak)).collect::<Vec<_>>(),
            [(What::Growing, 9, true)]
        );
    }

    #[test]
    fn a_file_that_nobody_was_seen_with_is_only_mentioned() {
        let file = |program: Option<&str>| Appeared {
            path: "/tmp/x".to_owned(),
            program: program.map(str::to_owned),
        };
        for (program, strict, want) in
            [(None, false, false), (None, true, true), (Some("p"), false, true)]
        {
            let found = judge(&Seen::default(), &[], &[file(program)], strict);
            assert_eq!(found.iter().map(|f| f.leak).collect::<Vec<_>>(), [want]);
        }
    }

    #[test]
    fn the_known_are_left_out_until_they_are_more() {
        let report = |count, known: Option<&Report>| {
            let findings = judge(&seen(count), &[], &[], false);
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
