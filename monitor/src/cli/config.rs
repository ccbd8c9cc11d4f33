//! `leakwatch config check | example | show`.

use std::path::Path;
use std::process::ExitCode;

use super::failure::Failure;
use super::flags::ConfigCommand;
use super::{output, paths};
use crate::config;
use crate::text::printable;

/// Runs one of them.
pub(super) fn run(command: &ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Check { file } => output::write(check(file)?.as_bytes())?,
        ConfigCommand::Example => output::write(config::EXAMPLE.as_bytes())?,
        ConfigCommand::Show(flag) => {
            let (path, config) = paths::read_config(flag)?;
            let from = path.map_or_else(
                || "built-in defaults".to_owned(),
                |path| printable(path.display().to_string().as_bytes()),
            );
            let text = format!("# In effect from: {from}\n{}", config::to_toml(&config));
            output::write(text.as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path) -> Result<String, Failure> {
    let config = config::load(file)?;
    Ok(format!(
        "{}: valid; {} unit rules, {} ignore rules, {} cleanup rules",
        printable(file.display().to_string().as_bytes()),
        config.units.len(),
        config.ignore.len(),
        config.cleanup.len()
    ))
}
