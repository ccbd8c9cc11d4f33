//! Commands and flags.
//!
//! Each command is a function in a file of its own that returns its exit status
//! or a [`Failure`]; only [`main`] turns those into words.

mod agent;
mod client;
mod config;
mod doctor;
mod explain;
mod failure;
mod flags;
mod listen;
mod logging;
mod output;
mod pages;
mod paths;
mod record;
mod replay;
mod run;
mod size;
mod status;
mod url;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::source::symbols::confined;
use failure::Failure;
use flags::{Cli, Command};

/// Runs the command line and gives the exit status: 0, 1 for a failure, 2 for
/// a bad flag or configuration; of `run`, that of the command it ran.
pub fn main() -> ExitCode {
    // How the agent starts a reader of symbol files: nothing that people type.
    let mut arguments = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    if arguments.next().as_deref() == Some(confined::COMMAND) {
        let read = confined::run(&arguments.collect::<Vec<_>>());
        return if read { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help for `head -1`, say: there is nobody to tell that nobody reads.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    dispatch(&cli.command).unwrap_or_else(|failure| failure.report())
}

fn dispatch(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Watch(flags) => watch::run(flags),
        Command::Run(flags) => run::run(flags),
        Command::Status(flags) => status::run(flags),
        Command::Explain(flags) => explain::run(flags),
        Command::Record(flags) => record::run(flags),
        Command::Replay(flags) => replay::run(flags),
        Command::Doctor(flags) => doctor::run(flags),
        Command::Config(command) => config::run(command),
        Command::Completions { shell } => pages::completions(*shell),
        Command::Man { dir } => pages::man(dir.as_deref()),
    }
}
