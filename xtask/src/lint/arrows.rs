//! The arrows between the stages of the agent point forward only, and `ledger`
//! and `detection` neither do I/O nor read a clock.
//!
//! A text scan: the compiler knows no arrows inside a crate. It reads `crate::X`
//! and `crate::{X, Y::Z}` outside comments and outside tests, which may bring
//! stages together that do not know each other.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The stages, in the order the data takes.
const STAGES: [&str; 6] = ["source", "attribution", "ledger", "detection", "cleanup", "export"];

/// Modules that every stage may use.
const SHARED: [&str; 4] = ["config", "glob", "text", "time"];

/// What a shared module may use besides: the config checks the names of rules.
const BESIDES: [(&str, &str); 1] = [("config", "detection")];

/// Stages that are functions of their arguments.
const PURE: [&str; 2] = ["ledger", "detection"];

/// How I/O and clocks look.
const IMPURE: [&str; 11] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "tokio::",
    "rustix::",
    "libc::",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

/// Checks `monitor/src`.
///
/// # Errors
/// Lists every arrow that points back.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let sources = root.join("monitor/src");
    let mut wrong = Vec::new();
    for file in workspace::files_below(&sources)? {
        let Ok(inside) = file.strip_prefix(&sources) else { continue };
        let Some(first) = inside.iter().next() else { continue };
        if is_test(inside) || inside.extension().is_none_or(|ext| ext != "rs") {
            continue;
        }
        let first = first.to_string_lossy();
        let stage = first.strip_suffix(".rs").unwrap_or(&first);
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for complaint in judge(stage, &text) {
            wrong.push(format!("monitor/src/{}: {complaint}", inside.display()));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// A file that is compiled for tests only, by its name.
fn is_test(inside: &Path) -> bool {
    inside.iter().any(|part| {
        let part = part.to_string_lossy();
        let name = part.strip_suffix(".rs").unwrap_or(&part);
        name == "tests" || name == "testing" || name.ends_with("_tests")
    })
}

/// What is wrong with a file of `stage`.
fn judge(stage: &str, text: &str) -> Vec<String> {
    let code = without_comments(text);
    // Tests come last in a file; a `mod tests;` is one line.
    let code = match code.find("#[cfg(test)]\nmod tests {") {
        Some(tests) => &code[..tests],
        None => &code,
    };
    let mut wrong = Vec::new();
    if let Some(allowed) = allowed(stage) {
        for used in uses(code) {
            if !allowed.contains(&used.as_str()) {
                wrong.push(format!("{stage} may not use crate::{used}"));
            }
        }
    }
    if PURE.contains(&stage) {
        for word in IMPURE {
            if code.contains(word) {
                wrong.push(format!("{stage} may not use {word}: time and data are arguments"));
            }
        }
    }
    wrong
}

/// The modules a stage may use; none for what stands outside the pipeline.
fn allowed(stage: &str) -> Option<Vec<&'static str>> {
    if SHARED.contains(&stage) {
        let besides = BESIDES.iter().filter(|(module, _)| *module == stage);
        return Some(SHARED.iter().copied().chain(besides.map(|(_, used)| *used)).collect());
    }
    let at = STAGES.iter().position(|name| *name == stage)?;
    let earlier = STAGES.iter().take(at + 1);
    Some(earlier.chain(&SHARED).copied().collect())
}

/// The modules right under `crate` that the code names, in order, each once.
fn uses(code: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(group) => heads(group),
            None => vec![head(rest)],
        };
        for name in names {
            // A capital starts a type or a constant, not a module.
            let module = name.starts_with(|c: char| c.is_ascii_lowercase());
            if module && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found
}

/// The identifier at the start.
fn head(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first identifier of each part of a `{…}` group whose brace is behind us.
fn heads(group: &str) -> Vec<String> {
    let mut names = vec![head(group)];
    let mut depth = 0_usize;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(head(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Without `//` comments, which may link wherever they like. A `//` inside a
/// string cuts the line short; no module is named behind one.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_forward() {
        let cases = [
            ("ledger", "use crate::source::model::X;", 0),
            ("ledger", "use crate::detection::verdict::X;", 1),
            ("ledger", "use crate::{glob::Glob, export::snapshot::{A, B}, time};", 1),
            ("ledger", "/// See [`crate::export`].\nfn a() {}", 0),
            ("ledger", "pub(crate) fn a() { crate::cleanup::run() }", 1),
            ("source", "use crate::attribution::unit::Unit;", 1),
            ("export", "use crate::{cleanup, ledger, source};", 0),
            ("config", "use crate::{detection, glob};", 0),
            ("config", "use crate::ledger;", 1),
            ("text", "use crate::detection;", 1),
            ("pipeline", "use crate::export;", 0),
            ("cli", "use crate::export;", 0),
            ("source", "use crate::pipeline;", 1),
        ];
        for (stage, code, expected) in cases {
            assert_eq!(judge(stage, code).len(), expected, "{stage}: {code}");
        }
    }

    #[test]
    fn tests_are_known_by_name() {
        for name in
            ["ledger/testing.rs", "config/tests.rs", "cleanup/engine_tests.rs", "a/tests/b.rs"]
        {
            assert!(is_test(Path::new(name)), "{name}");
        }
        assert!(!is_test(Path::new("ledger/contests.rs")));
    }

    #[test]
    fn pure_stages_read_no_clock() {
        let code = "let now = Instant::now();";
        assert_eq!(judge("detection", code).len(), 1);
        assert_eq!(judge("source", code).len(), 0);
        let in_test = "#[cfg(test)]\nmod tests {\n fn a() { std::fs::read(\"x\"); }\n}";
        assert_eq!(judge("detection", in_test).len(), 0);
    }
}
