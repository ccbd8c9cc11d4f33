//! What cannot be seen, and what was lost.

use std::fmt::{self, Write};

use super::html::Safe;
use crate::export::count::grouped;
use crate::export::snapshot::Snapshot;
use crate::source::model::SourceState;

/// Some descriptors could not be looked at, so "no leaks" would say too much.
pub(super) fn is_partial(snapshot: &Snapshot) -> bool {
    let census = |s: &&SourceState| s.source == "census" && s.active;
    denied(snapshot) > 0
        || snapshot.sources.iter().filter(census).all(|census| !census.reason.is_empty())
}

pub(super) fn section(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let mut list = sources(&snapshot.sources)?;
    let denied = denied(snapshot);
    if denied > 0 {
        write!(list, "<li>The descriptors of {denied} processes may not be read.</li>")?;
    }
    if !list.is_empty() {
        write!(
            out,
            "<div class=\"note\">What cannot be seen; <code>leakwatch doctor</code> says what to \
             grant.<ul>{list}</ul></div>"
        )?;
    }
    // Nothing can be granted against these, and the counts do not suffer.
    let lost: Vec<String> = (snapshot.figures.lost.iter().filter(|(_, n)| **n > 0))
        .map(|(source, n)| format!("{} {}", Safe(source), grouped(*n)))
        .collect();
    if !lost.is_empty() {
        let lost = lost.join(", ");
        write!(
            out,
            "<p class=\"soft\">Annotations lost since the start: {lost}. Counts are right.</p>"
        )?;
    }
    Ok(())
}

fn denied(snapshot: &Snapshot) -> u64 {
    snapshot.units.iter().map(|view| view.denied_processes).sum()
}

/// One entry for each reason, however many sources it stops.
fn sources(all: &[SourceState]) -> Result<String, fmt::Error> {
    let mut entries: Vec<(&str, bool, Vec<String>)> = Vec::new();
    for source in all.iter().filter(|s| !s.standby && (!s.active || !s.reason.is_empty())) {
        let mut name = format!("<b>{}</b> ({}", Safe(&source.source), Safe(&source.mechanism));
        let instead = all.iter().find(|s| s.active && s.source == source.source);
        if let Some(instead) = instead.filter(|_| !source.active) {
            write!(name, ", {} instead", Safe(&instead.mechanism))?;
        }
        name.push(')');
        match entries.iter_mut().find(|e| e.0 == source.reason && e.1 == source.active) {
            Some(entry) => entry.2.push(name),
            None => entries.push((&source.reason, source.active, vec![name])),
        }
    }
    let mut list = String::new();
    for (reason, active, names) in entries {
        let what = if active { "Limited" } else { "Not to be had" };
        write!(list, "<li>{what}: {}. {}</li>", names.join(", "), Safe(reason))?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::night;

    fn state(source: &str, mechanism: &str, active: bool, reason: &str) -> SourceState {
        SourceState {
            source: source.into(),
            mechanism: mechanism.into(),
            active,
            standby: false,
            reason: reason.into(),
        }
    }

    #[test]
    fn one_reason_is_said_once_and_a_way_around_is_named() {
        let said = sources(&[
            state("census", "iter/task_file", false, "EPERM"),
            state("census", "proc", true, "2 of 3 denied"),
            state("task_probes", "tp_btf", false, "EPERM"),
            state("cgroups", "cgroupfs", true, ""),
            SourceState { standby: true, ..state("fd_probes", "tp_btf", false, "waits") },
        ]);
        assert_eq!(
            said.unwrap(),
            "<li>Not to be had: <b>census</b> (iter/task_file, proc instead), <b>task_probes</b> \
             (tp_btf). EPERM</li><li>Limited: <b>census</b> (proc). 2 of 3 denied</li>"
        );
    }

    #[test]
    fn losses_send_nobody_to_doctor() {
        let mut snapshot = night();
        snapshot.sources.clear();
        snapshot.units.iter_mut().for_each(|unit| unit.denied_processes = 0);
        let mut out = String::new();
        section(&mut out, &snapshot).unwrap();
        assert_eq!(
            out,
            "<p class=\"soft\">Annotations lost since the start: tasks 7. Counts are right.</p>"
        );
    }

    #[test]
    fn a_census_that_sees_a_part_is_partial() {
        let mut snapshot = night();
        assert!(is_partial(&snapshot), "a process of vault.service is denied");
        snapshot.units.iter_mut().for_each(|unit| unit.denied_processes = 0);
        assert!(!is_partial(&snapshot));
        snapshot.sources[0] = state("census", "proc", true, "2 of 3 denied");
        assert!(is_partial(&snapshot));
    }
}
