//! `leakwatch doctor`.

use std::process::ExitCode;

use super::failure::Failure;
use super::flags::DoctorFlags;
use super::{output, paths};
use crate::attribution::hierarchy;
use crate::source::doctor;

/// Says what this host allows; status 1 where nothing can be seen.
pub(super) fn run(flags: &DoctorFlags) -> Result<ExitCode, Failure> {
    let (_, config) = paths::read_config(&flags.config)?;
    let report = doctor::examine(&config, hierarchy::choose).map_err(Failure::failed)?;
    if flags.json {
        output::write_json(&report)?;
    } else {
        output::write(report.render(output::width()).as_bytes())?;
    }
    Ok(if report.is_blind() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
