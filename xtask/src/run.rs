//! `cargo xtask run`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::shell::{self, say};
use crate::{build, workspace};

/// Where the agent keeps its state once it is installed.
const INSTALLED_STATE: &str = "/var/lib/leakwatch";
/// The agent's default listen address.
const LISTEN: &str = "127.0.0.1:19970";

/// Builds the agent and becomes it. Only the agent is given root, never the build.
///
/// # Errors
/// When the build fails or the agent cannot be started.
pub fn run(args: &[OsString]) -> Result<()> {
    build::run()?;
    let root = rustix::process::geteuid().is_root();
    let agent = workspace::release_agent();
    let sudo = !root && io::stdin().is_terminal() && shell::which("sudo").is_some();
    let mut command = if sudo {
        say("asking sudo for the agent alone: it reads every process of the host");
        let mut sudo = shell::command("sudo");
        sudo.arg("--").arg(&agent);
        sudo
    } else {
        if !root {
            say("not root and no sudo at hand: only your own processes are seen, without BPF \
                 (`target/release/leakwatch doctor` says what is missing)");
        }
        shell::command(&agent)
    };
    command.arg("watch");
    if value_of(args, "--state-dir").is_none() && !((root || sudo) && installed()) {
        // A trial from a clone leaves nothing behind in the system.
        let state = workspace::target().join("leakwatch-state");
        fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
        command.arg("--state-dir").arg(state);
    }
    command.args(args);
    let address = value_of(args, "--web.listen-address").unwrap_or_else(|| LISTEN.into());
    say(&format!("open http://{}/ (Ctrl-C stops)", reachable(&address.to_string_lossy())));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", agent.display()))
}

fn installed() -> bool {
    Path::new(INSTALLED_STATE).is_dir()
}

/// The first value of a flag, as `--flag value` or `--flag=value`.
fn value_of(args: &[OsString], flag: &str) -> Option<OsString> {
    let with_equals = format!("{flag}=");
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == OsStr::new(flag) {
            return rest.next().cloned();
        }
        if let Some(value) = arg.to_str().and_then(|arg| arg.strip_prefix(&with_equals)) {
            return Some(value.into());
        }
    }
    None
}

/// An address to connect to, for one to listen on.
fn reachable(listen: &str) -> String {
    for any in ["0.0.0.0:", "[::]:", ":"] {
        if let Some(port) = listen.strip_prefix(any) {
            return format!("localhost:{port}");
        }
    }
    listen.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_in_both_spellings() {
        let args = ["--a=1", "--b", "2", "--c"].map(OsString::from);
        assert_eq!(value_of(&args, "--a"), Some("1".into()));
        assert_eq!(value_of(&args, "--b"), Some("2".into()));
        assert_eq!(value_of(&args, "--c"), None);
        assert_eq!(value_of(&args, "--d"), None);
    }

    #[test]
    fn the_url_is_one_that_a_browser_can_open() {
        assert_eq!(reachable("0.0.0.0:1"), "localhost:1");
        assert_eq!(reachable("[::]:1"), "localhost:1");
        assert_eq!(reachable(":1"), "localhost:1");
        assert_eq!(reachable("127.0.0.1:1"), "127.0.0.1:1");
    }
}
