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
    let (config, name) = if file == Path::new("-") {
        let name = "standard input";
        (config::load_from(std::io::stdin().lock(), name)?, name.to_owned())
    } else {
        (config::load(file)?, printable(file.display().to_string().as_bytes()))
    };
    let rules = |kind: &str, count: usize| {
        format!("{count} {kind} {}", if count == 1 { "rule" } else { "rules" })
    };
    Ok(format!(
        "{name}: valid; {}, {}, {}",
        rules("unit", config.units.len()),
        rules("ignore", config.ignore.len()),
        rules("cleanup", config.cleanup.len())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_counted_in_words_that_fit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[[unit]]\nname = \"a\"\nuser = \"b\"\n").unwrap();
        let said = check(file.path()).unwrap();
        assert!(said.ends_with(": valid; 1 unit rule, 0 ignore rules, 0 cleanup rules"), "{said}");
    }
}
