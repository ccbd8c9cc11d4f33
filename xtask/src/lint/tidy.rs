//! House rules that no other tool knows.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Lines of a source file. One idea per file rarely needs half of it.
const LONGEST: usize = 450;

/// Files that may be longer, and why.
const LONG: [(&str, &str); 0] = [];

/// Directories with sources.
const SOURCES: [&str; 6] = ["fuzz", "monitor", "monitor-common", "monitor-ebpf", "tests", "xtask"];

/// What is never committed. Split, so that this file passes.
const FORBIDDEN: [(&str, &str); 4] = [
    (concat!("to", "do!("), "finish it or leave it out"),
    (concat!("unimple", "mented!("), "finish it or leave it out"),
    (concat!("#[", "ignore"), "a test that does not run proves nothing"),
    (concat!("db", "g!("), "use tracing"),
];

/// Checks sources and the changelog.
///
/// # Errors
/// Lists everything that is wrong, not only the first.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let mut wrong = Vec::new();
    for source in SOURCES {
        for file in workspace::files_below(&root.join(source))? {
            if file.extension().is_none_or(|ext| ext != "rs") {
                continue;
            }
            let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
            if name.contains("/target/") {
                continue;
            }
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
            wrong.extend(judge(&name, &text));
        }
    }
    for (name, _) in LONG {
        if !root.join(name).is_file() {
            wrong.push(format!("{name}: may be long, but is not there"));
        }
    }
    let changelog = fs::read_to_string(root.join("CHANGELOG.md")).context("no CHANGELOG.md")?;
    if !changelog.lines().any(|line| line.trim() == "## [Unreleased]") {
        wrong.push("CHANGELOG.md: no section `## [Unreleased]`".to_owned());
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

fn judge(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST && !LONG.iter().any(|(long, _)| *long == name) {
        wrong.push(format!("{name}: {lines} lines, at most {LONGEST}: split it"));
    }
    for (number, line) in text.lines().enumerate() {
        for (needle, advice) in FORBIDDEN {
            if line.contains(needle) {
                wrong.push(format!("{name}:{}: `{needle}`: {advice}", number + 1));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_unfinished_ones_are_named() {
        assert!(judge("a.rs", "fn a() {}\n").is_empty());
        let long = "x\n".repeat(LONGEST + 1);
        assert_eq!(judge("a.rs", &long).len(), 1);
        let unfinished = format!("fn a() {{\n    {})\n}}\n", FORBIDDEN[0].0);
        let wrong = judge("a.rs", &unfinished);
        assert!(wrong[0].starts_with("a.rs:2: "), "{wrong:?}");
    }
}
