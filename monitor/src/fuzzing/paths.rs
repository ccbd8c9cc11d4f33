//! Paths: of cgroups, which name units, and of files, which name cohorts.

use super::assert_printable;
use crate::attribution::{cgroup as path, hierarchy};
use crate::ledger::patterns::log_family;
use crate::ledger::template as templates;

/// Longest unit name, bytes: a label of a series.
const MAX_NAME: usize = 200;

/// Deleted cgroups keep their path with this behind it.
const DELETED: &[u8] = b" (deleted)";

/// `data` as a cgroup path, and as the content of `/proc/PID/cgroup`.
pub fn cgroup(data: &[u8]) {
    named(data);
    let chosen = hierarchy::choose(data);
    let chosen = chosen.as_bytes();
    assert!(!chosen.contains(&b'\n'), "a path of two lines");
    if chosen != b"/" {
        assert!(
            data.split(|b| *b == b'\n').any(|line| line.ends_with(chosen)),
            "a path that is in no line"
        );
        assert!(!path::is_root(chosen), "the root, where it could have been left out");
        named(chosen);
    }
}

fn named(data: &[u8]) {
    let Some(unit) = path::parse(data) else {
        assert!(path::is_root(data), "no name, though it is not the root");
        return;
    };
    assert!(!path::is_root(data), "the root has a name");
    assert!(!unit.name.is_empty() && unit.name.len() <= MAX_NAME, "{} bytes", unit.name.len());
    assert_printable(&unit.name);
    assert!((1..=data.len()).contains(&unit.own), "its own cgroup ends at {}", unit.own);
    // The unit's own cgroup names the same unit. A cgroup whose real name ends
    // like the mark of a deleted one cannot be told from one that is deleted.
    let own = &data[..unit.own];
    if !own.ends_with(DELETED) {
        assert_eq!(path::parse(own).as_ref(), Some(&unit), "of its own cgroup");
    }
    let deleted = [own, DELETED].concat();
    assert_eq!(path::parse(&deleted).map(|n| n.own), Some(unit.own), "of a removed cgroup");
}

/// `data` as the path of a file.
pub fn template(data: &[u8]) {
    let family = log_family(data);
    assert!(data.starts_with(family), "the family is no part of the path");
    for path in [data, family] {
        let template = templates::of_path(path);
        assert_printable(&template);
        // No byte takes more than an escape (`\u{1b}`) with its number named.
        assert!(template.len() <= 8 * path.len() + 8, "{} bytes", template.len());
        let left = without_escapes(&template).bytes().any(|b| b.is_ascii_digit());
        assert!(!left, "a number is left: one cohort for each member: {template}");
        let slashes = |text: &[u8]| text.iter().filter(|b| **b == b'/').count();
        assert_eq!(slashes(template.as_bytes()), slashes(path), "directories");
        let directory = templates::directory(&template);
        assert!(directory.is_none_or(|d| template.starts_with(d)));
    }
}

/// Without what stands for a character that cannot be shown: `\u{1b}`.
fn without_escapes(template: &str) -> String {
    let mut parts = template.split("\\u{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escape = part
            .split_once('}')
            .filter(|(code, _)| !code.is_empty() && code.bytes().all(|b| b.is_ascii_hexdigit()));
        match escape {
            Some((_, rest)) => out.push_str(rest),
            None => out.push_str(part),
        }
    }
    out
}
