//! Starting programs and saying so.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// One line for the user. A closed stdout is no reason to stop.
pub fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// One line of complaint.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Cargo, in the root of the clone. Under `cargo xtask` this is the very cargo
/// that started us; the toolchain that rustup chose is inherited with it.
pub fn cargo<I, S>(args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = command(&program);
    command.args(args);
    command
}

/// A program, in the root of the clone.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    // What cargo told this xtask about its own package is not meant for others.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    // For whichever cargo it is, or starts.
    if workspace::is_ci() && env::var_os("CARGO_INCREMENTAL").is_none() {
        // A tree that is built once has no use for what a second build could reuse.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Runs a program in the foreground.
///
/// # Errors
/// When it cannot be started or does not end with status 0.
pub fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs a program and returns what it printed, trimmed; its stderr is part of
/// the error.
///
/// # Errors
/// When it cannot be started or does not end with status 0.
pub fn capture(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed: {}\n{}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The first file of that name in `PATH`.
pub fn which(name: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH")?;
    // Debian keeps daemons in sbin, which a normal user's PATH may leave out.
    env::split_paths(&paths)
        .chain(["/usr/sbin", "/usr/bin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| is_executable(path))
}

/// A program that `cargo xtask setup` installs.
///
/// # Errors
/// When it is missing; says what to do.
pub fn need(name: &str) -> Result<PathBuf> {
    which(name).with_context(|| format!("`{name}` is missing: run `cargo xtask setup`"))
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let mut line = name.into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}
