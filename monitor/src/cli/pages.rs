//! `leakwatch completions` and `leakwatch man`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::failure::Failure;
use super::flags::Cli;
use super::output;

/// Prints the completion script of a shell.
pub(super) fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    output::write(&script(shell))?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "leakwatch", &mut script);
    script
}

/// Prints the manual pages one after another, or writes each into `dir`.
pub(super) fn man(dir: Option<&Path>) -> Result<ExitCode, Failure> {
    match dir {
        Some(dir) => clap_mangen::generate_to(Cli::command(), dir).map_err(|e| {
            Failure::Failed(format!("cannot write manual pages into {}: {e}", dir.display()))
        })?,
        None => {
            let pages = pages().map_err(|e| Failure::Failed(format!("cannot render: {e}")))?;
            output::write(&pages)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pages() -> io::Result<Vec<u8>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut out = Vec::new();
    render(command, &mut out)?;
    Ok(out)
}

fn render(command: clap::Command, out: &mut dyn Write) -> io::Result<()> {
    let below: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    Man::new(command).render(out)?;
    below.into_iter().try_for_each(|command| render(command, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_know_the_dotted_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            assert!(script.contains("web.listen-address"), "{shell}");
            assert!(script.contains("completions"), "{shell}");
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let pages = String::from_utf8(pages().unwrap()).unwrap();
        for name in ["leakwatch", "leakwatch-watch", "leakwatch-config-check", "leakwatch-man"] {
            assert!(pages.contains(&format!("\n.TH {name} 1")), "{name} in\n{pages}");
        }
        let dir = tempfile::tempdir().unwrap();
        man(Some(dir.path())).unwrap();
        assert!(dir.path().join("leakwatch-watch.1").exists());
        assert_eq!(man(Some(&dir.path().join("none"))).unwrap_err().status(), 1);
    }
}
