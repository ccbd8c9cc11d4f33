//! What a suite needs of the machine and may not find there.

use std::path::PathBuf;

/// Passes `found` on. Where it is `None` the test cannot be made: it is skipped,
/// and says so, on a developer's machine; under `CI=true` that is a failure, for
/// a suite that is always skipped proves nothing.
///
/// # Panics
/// Nothing was found and this is CI.
#[track_caller]
pub fn need<T>(what: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        let ci = std::env::var("CI").is_ok_and(|v| v == "true" || v == "1");
        assert!(!ci, "{what} is missing: `cargo xtask setup` installs what the suites need");
        say(format_args!("SKIPPED: {what} is missing"));
    }
    found
}

/// As [`need`], for a program on the search path or in `sbin`.
#[track_caller]
pub fn need_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    need(&format!("the program {name}"), found)
}

/// As [`need`], for being root.
#[track_caller]
pub fn need_root() -> Option<()> {
    need(
        "root (the suites watch with all privileges)",
        rustix::process::geteuid().is_root().then_some(()),
    )
}

/// A line on standard error that the test runner does not swallow.
pub fn say(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    // Whether anybody reads it is not this program's business.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
