//! `leakwatch status`.

use std::process::ExitCode;

use super::agent;
use super::failure::Failure;
use super::flags::StatusFlags;
use super::output;
use crate::export::terminal;

/// Shows units and verdicts.
pub(super) fn run(flags: &StatusFlags) -> Result<ExitCode, Failure> {
    let documents = agent::documents(&flags.agent)?;
    if flags.json {
        output::write_json(&documents)?;
    } else {
        let text = terminal::status(&documents.units, &documents.leaks, output::width());
        output::write(text.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}
