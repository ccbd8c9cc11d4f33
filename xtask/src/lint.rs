//! `cargo xtask lint`: everything that can be said without running the code.

mod arrows;
mod bpf;
mod deny;
mod msrv;
mod rules;
mod tidy;

use anyhow::{Context, Result, bail};

use crate::shell::{self, say};

type Check = (&'static str, fn() -> Result<()>);

/// Cheap ones first.
const CHECKS: [Check; 9] = [
    ("rustfmt", format),
    ("tidy", tidy::check),
    ("arrows", arrows::check),
    ("msrv", msrv::check),
    ("cargo-deny", deny::check),
    ("rules", rules::check),
    ("clippy", clippy),
    ("clippy on BPF", bpf::check),
    ("docs", docs),
];

/// Runs all checks, also after one has failed: who mends one wants to see the next.
///
/// # Errors
/// Names the checks that failed.
pub fn run() -> Result<()> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        say(&format!("lint: {name}"));
        if let Err(error) = check() {
            shell::complain(&format!("{error:#}"));
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    say("lint: clean");
    Ok(())
}

fn format() -> Result<()> {
    shell::run(&mut shell::cargo(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")
}

fn clippy() -> Result<()> {
    let mut command = shell::cargo(["clippy", "--locked", "--quiet", "--workspace"]);
    command.args(["--exclude", "leakwatch-ebpf", "--all-targets", "--", "-D", "warnings"]);
    shell::run(&mut command)
}

fn docs() -> Result<()> {
    let mut command = shell::cargo(["doc", "--locked", "--quiet", "--no-deps"]);
    command.args(["--package", "leakwatch", "--package", "leakwatch-common"]);
    // The library and the binary share a name. The library's page is the one wanted,
    // and its readers are those who work on it: private items too.
    command.args(["--lib", "--document-private-items"]);
    shell::run(command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
}
