//! PostgreSQL with a cluster of its own, on a Unix socket. It refuses to be root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Plan, find};
use crate::wire::postgres::Session;

/// `nobody` and `nogroup`, who are there on every Debian.
const NOBODY: u32 = 65534;

/// A cluster takes seconds to make: it is made once, and copied.
pub(super) fn prepare(dir: &Path, shared: &Path) -> Result<()> {
    let first = shared.join("cluster");
    if !first.is_dir() {
        fs::create_dir(&first)?;
        own(&first)?;
        let mut initdb = as_nobody("initdb")?;
        initdb.arg("-D").arg(&first).args(["--username", "postgres", "--auth", "trust"]);
        initdb.args(["--no-sync", "--encoding", "UTF8", "--locale", "C"]);
        run(&mut initdb)?;
    }
    run(Command::new("cp").arg("-a").arg(&first).arg(dir.join("data")))?;
    own(dir)
}

fn own(dir: &Path) -> Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    chown(dir, Some(NOBODY), Some(NOBODY)).context("only root can start PostgreSQL as nobody")
}

fn as_nobody(program: &str) -> Result<Command> {
    let mut command = Command::new(find(program)?);
    // Of the group first: afterwards it would not be allowed.
    command.gid(NOBODY).uid(NOBODY).current_dir("/");
    Ok(command)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(())
}

pub(super) fn plan(dir: &Path) -> Result<Plan> {
    let mut command = as_nobody("postgres")?;
    command.arg("-D").arg(dir.join("data"));
    let sockets = format!("unix_socket_directories={}", dir.display());
    for setting in ["listen_addresses=", &sockets, "max_connections=100", "fsync=off"] {
        command.args(["-c", setting]);
    }
    Ok(Plan {
        command,
        address: format!("unix:{}/.s.PGSQL.5432", dir.display()),
        // Ends its sessions at once, and in order.
        stop: libc::SIGINT,
        answers: |address| Session::connect(address).is_ok(),
    })
}
