//! Why a command ends without having done its work.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{LoadError, Problems};
use crate::text::printable;

/// Each variant knows its exit status.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The configuration is wrong: status 2.
    #[error("{0}")]
    Config(Problems),
    /// Something did not work; one sentence: status 1.
    #[error("{0}")]
    Failed(String),
    /// Nobody reads the output any more, which is how `head` ends: status 0.
    #[error("the output was closed")]
    ClosedPipe,
}

impl Failure {
    pub(super) fn failed(why: impl std::fmt::Display) -> Self {
        Self::Failed(why.to_string())
    }

    pub(super) const fn status(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Failed(_) => 1,
            Self::ClosedPipe => 0,
        }
    }

    /// Says on stderr what happened and gives the exit status.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            // As compilers do, without a name before it, so that editors find the line.
            Self::Config(problems) => say_lines("", &problems.to_string()),
            Self::Failed(why) => say_lines("leakwatch: ", why),
            Self::ClosedPipe => {}
        }
        ExitCode::from(self.status())
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Invalid(problems) => Self::Config(problems),
            LoadError::Unreadable { .. } => Self::failed(error),
        }
    }
}

/// Says something on stderr beside the command's output.
pub(super) fn say(message: &str) {
    say_lines("leakwatch: ", message);
}

fn say_lines(prefix: &str, message: &str) {
    let mut stderr = io::stderr().lock();
    for (i, line) in message.lines().enumerate() {
        let prefix = if i == 0 { prefix } else { "" };
        // With stderr closed there is nowhere left to say it.
        let _ = writeln!(stderr, "{prefix}{}", printable(line.as_bytes()));
    }
}
