//! What `cargo xtask vm --bench` found: instructions per turn of each workload
//! beside each mode, as ratios to the bare turn.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::counted::MODES;
use super::guest::MARK;
use super::machine::Console;
use crate::bench::load::Workload;
use crate::bench::report::Table;

/// Of `MODES`, what the others are compared with.
const BARE: &str = "bare";
/// The aims: mode, workload, ratio.
const AIMS: [(&str, Workload, f64); 2] =
    [("fentry", Workload::OpenClose, 1.12), ("fentry", Workload::Getppid, 1.005)];

/// One kernel's figures.
#[derive(Debug, Default)]
pub struct Figures {
    /// `6.12.118+deb13-cloud-amd64`; empty where it did not come up.
    pub release: String,
    /// Instructions per turn by mode and workload.
    turns: BTreeMap<(String, String), f64>,
    /// What could not be measured, and why.
    pub troubles: Vec<String>,
}

impl Figures {
    /// Reads a console; only its last mark tells that all was measured.
    pub fn read(console: &Console) -> Self {
        let mut figures = Self::default();
        let (mut done, mut said) = (false, String::new());
        for line in console.text.lines() {
            let Some((_, mark)) = line.split_once(MARK) else {
                said = format!("{said} {}", line.trim());
                continue;
            };
            let words: Vec<&str> = mark.split(' ').collect();
            match words.as_slice() {
                ["up", release, _] => figures.release = (*release).to_owned(),
                ["begin", _] => said.clear(),
                ["figure", mode, workload, turn] => match turn.parse() {
                    Ok(turn) => {
                        figures.turns.insert(((*mode).into(), (*workload).into()), turn);
                    }
                    Err(_) => figures.troubles.push(mark.to_owned()),
                },
                ["end", _, "ok", _] => {}
                ["end", mode, ..] => figures.troubles.push(format!("{mode}:{said}")),
                ["done"] => done = true,
                _ => figures.troubles.push(mark.to_owned()),
            }
        }
        if !done {
            let how = if console.timed_out { "did not end in time" } else { "ended too early" };
            figures.troubles.push(format!("the machine {how}"));
        }
        figures
    }

    fn turn(&self, mode: &str, workload: Workload) -> Option<f64> {
        self.turns.get(&(mode.to_owned(), workload.as_arg().to_owned())).copied()
    }

    /// Times the bare turn.
    fn ratio(&self, mode: &str, workload: Workload) -> Option<f64> {
        Some(self.turn(mode, workload)? / self.turn(BARE, workload)?)
    }
}

/// One table per workload: kernels below each other, modes beside each other.
pub fn tables(all: &[Figures]) -> String {
    let mut out = String::new();
    for workload in Workload::ALL {
        let mut columns = vec!["kernel", "instructions"];
        columns.extend(MODES.iter().filter(|mode| mode.name != BARE).map(|mode| mode.title));
        let mut table = Table::new(&columns);
        for figures in all {
            let bare = figures.turn(BARE, workload);
            let mut row =
                vec![figures.release.clone(), bare.map_or("-".into(), |b| format!("{b:.0}"))];
            for mode in MODES.iter().filter(|mode| mode.name != BARE) {
                let ratio = figures.ratio(mode.name, workload);
                let aim = AIMS.iter().find(|aim| aim.0 == mode.name && aim.1 == workload);
                row.push(match (ratio, aim) {
                    (None, _) => "-".into(),
                    (Some(ratio), Some((.., aim))) if ratio > *aim => {
                        format!("**{ratio:.3} over**")
                    }
                    (Some(ratio), Some(_)) => format!("{ratio:.3} PASS"),
                    (Some(ratio), _) => format!("{ratio:.3}"),
                });
            }
            table.row(&row);
        }
        let _ = write!(out, "{}", workload.title());
        for (mode, _, aim) in AIMS.iter().filter(|aim| aim.1 == workload) {
            let _ = write!(out, "; aim for {mode}: at most {aim}");
        }
        let _ = write!(out, ":\n\n{}\n", table.text());
    }
    for figures in all.iter().filter(|figures| !figures.troubles.is_empty()) {
        let _ = writeln!(out, "- **{}**: {}", figures.release, figures.troubles.join("; "));
    }
    out
}
