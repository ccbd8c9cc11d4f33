//! `leakwatch completions` and `leakwatch man`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::failure::Failure;
use super::flags::{Cli, EXIT_STATUS};
use super::output;
use crate::config::DEFAULT_PATH;

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
    let pages = pages().map_err(|e| Failure::Failed(format!("cannot render: {e}")))?;
    for (name, page) in &pages {
        match dir {
            Some(dir) => std::fs::write(dir.join(name), page).map_err(|e| {
                Failure::Failed(format!("cannot write manual pages into {}: {e}", dir.display()))
            })?,
            None => output::write(page)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The pages of all commands: the name of the file and its text.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(command, &mut pages)?;
    Ok(pages)
}

fn collect(command: clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let below: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    let man = Man::new(command)
        .source(concat!("leakwatch ", env!("CARGO_PKG_VERSION")))
        .manual("leakwatch manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if !below.is_empty() {
        man.render_subcommands_section(&mut page)?;
    }
    // `render` would put these under "EXTRA", where nobody looks for them.
    write!(page, ".SH \"EXIT STATUS\"\n{EXIT_STATUS}\n")?;
    write!(page, ".SH FILES\n.I {DEFAULT_PATH}\n")?;
    pages.push((man.get_filename(), page));
    below.into_iter().try_for_each(|command| collect(command, pages))
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
        let pages: Vec<String> = pages()
            .unwrap()
            .into_iter()
            .map(|(_, page)| String::from_utf8(page).unwrap())
            .collect();
        for page in &pages {
            assert!(page.contains(".SH \"EXIT STATUS\"\n0 for success"), "{page}");
            assert!(
                page.contains(&format!("\"leakwatch {}\"", env!("CARGO_PKG_VERSION"))),
                "{page}"
            );
            assert!(!page.contains("EXTRA"), "{page}");
        }
        let pages = pages.concat();
        for name in ["leakwatch", "leakwatch-watch", "leakwatch-config-check", "leakwatch-man"] {
            assert!(pages.contains(&format!("\n.TH {name} 1")), "{name} in\n{pages}");
        }
        let dir = tempfile::tempdir().unwrap();
        man(Some(dir.path())).unwrap();
        assert!(dir.path().join("leakwatch-watch.1").exists());
        assert_eq!(man(Some(&dir.path().join("none"))).unwrap_err().status(), 1);
    }
}
