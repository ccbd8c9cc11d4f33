//! cargo-deny: licences, banned crates, sources; advisories where a copy of the
//! database is at hand.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::shell::{self, say};
use crate::workspace;

/// Checks the dependencies.
///
/// # Errors
/// When one of them breaks a rule of `deny.toml`.
pub fn check() -> Result<()> {
    if shell::capture(&mut shell::cargo(["deny", "--version"])).is_err() {
        bail!("cargo-deny is missing: run `cargo xtask setup`");
    }
    let mut command = shell::cargo(["deny", "--log-level", "warn", "--locked"]);
    shell::run(command.args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    // Fetching the database would make lint depend on the network and on the day.
    let database = workspace::cargo_home().map(|home| home.join("advisory-dbs"));
    let present = database
        .and_then(|dir| fs::read_dir(dir).ok())
        .is_some_and(|mut entries| entries.next().is_some());
    if !present {
        say("  advisories left out: no database here; `cargo deny fetch db` gets it");
        return Ok(());
    }
    let mut command = shell::cargo(["deny", "--log-level", "warn", "--locked"]);
    shell::run(command.args(["check", "--disable-fetch", "advisories"]))
        .context("`cargo deny fetch db` renews the database")
}
