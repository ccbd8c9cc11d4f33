//! `cargo xtask run`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::shell::{self, say};
use crate::{build, workspace};

/// Where the agent keeps its state once it is installed.
const INSTALLED_STATE: &str = "/var/lib/leakwatch";
/// The agent's default listen address.
const LISTEN: &str = "127.0.0.1:19970";

/// As whom the agent runs.
#[derive(Debug, PartialEq, Eq)]
enum As {
    /// The caller is root.
    Root,
    /// Sudo makes it root.
    Sudo(Sudo),
    /// The caller, for this reason.
    Caller(&'static str),
}

/// A sudo that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sudo {
    program: PathBuf,
    /// Somebody is there to type a password.
    terminal: bool,
}

/// Builds the agent and becomes it. Only the agent is given root, never the build.
///
/// # Errors
/// When the build fails or the agent cannot be started.
pub fn run(args: &[OsString]) -> Result<()> {
    build::run()?;
    let agent = workspace::release_agent();
    let uid = rustix::process::geteuid();
    let terminal = io::stdin().is_terminal();
    let sudo = shell::which("sudo").map(|program| Sudo { program, terminal });
    let who = decide(uid.is_root(), sudo, |sudo| {
        say("asking sudo for the agent alone: it reads every process of the host");
        sudo.grants(&agent)
    });
    let mut command = match &who {
        As::Root => shell::command(&agent),
        As::Sudo(sudo) => sudo.command(&agent),
        As::Caller(why) => {
            say(&format!(
                "not root, and {why}: going on without BPF; of other users' processes leakwatch \
                 sees at most how many descriptors they have (`target/release/leakwatch doctor` \
                 says what is missing)"
            ));
            shell::command(&agent)
        }
    };
    command.arg("watch");
    let root = !matches!(who, As::Caller(_));
    if value_of(args, "--state-dir").is_none() && !(root && installed()) {
        let state = trial_state(if root { 0 } else { uid.as_raw() });
        fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
        command.arg("--state-dir").arg(state);
    }
    command.args(args);
    let address = value_of(args, "--web.listen-address").unwrap_or_else(|| LISTEN.into());
    say(&format!("open http://{}/ (Ctrl-C stops)", reachable(&address.to_string_lossy())));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", agent.display()))
}

/// Root if it can be had; `grants` asks sudo.
fn decide(root: bool, sudo: Option<Sudo>, grants: impl FnOnce(&Sudo) -> bool) -> As {
    match sudo {
        _ if root => As::Root,
        None => As::Caller("there is no sudo"),
        Some(sudo) if grants(&sudo) => As::Sudo(sudo),
        Some(_) => As::Caller("sudo does not grant it"),
    }
}

impl Sudo {
    /// `program` as root; without a terminal never by a password.
    fn command(&self, program: &Path) -> Command {
        let mut command = shell::command(&self.program);
        if !self.terminal {
            command.arg("-n");
        }
        command.arg("--").arg(program);
        command
    }

    /// Whether the caller may run `agent` as root: asked with the agent itself, for
    /// the right may be for that alone, and before becoming sudo, for after a refusal
    /// nobody would be left to go on without it.
    fn grants(&self, agent: &Path) -> bool {
        let mut trial = self.command(agent);
        trial.arg("--version").stdout(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    }
}

/// The state of a trial from a clone, which leaves nothing behind in the system.
/// One for each user: what root wrote, nobody else may open.
fn trial_state(uid: u32) -> PathBuf {
    workspace::target().join("leakwatch-state").join(uid.to_string())
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

    fn sudo(terminal: bool) -> Sudo {
        Sudo { program: "/bin/sudo".into(), terminal }
    }

    #[test]
    fn whoever_is_not_given_root_goes_on_as_the_caller() {
        let never = |_: &Sudo| panic!("nobody is to be asked");
        assert_eq!(decide(true, None, never), As::Root);
        assert_eq!(decide(true, Some(sudo(true)), never), As::Root);
        assert_eq!(decide(false, None, never), As::Caller("there is no sudo"));
        for terminal in [true, false] {
            assert_eq!(decide(false, Some(sudo(terminal)), |_| true), As::Sudo(sudo(terminal)));
            let refused = decide(false, Some(sudo(terminal)), |_| false);
            assert_eq!(refused, As::Caller("sudo does not grant it"));
        }
    }

    #[test]
    fn sudo_is_asked_with_the_agent_and_for_no_password_unattended() {
        let agent = Path::new("/x/leakwatch");
        for (terminal, want) in
            [(true, &["--", "/x/leakwatch"][..]), (false, &["-n", "--", "/x/leakwatch"])]
        {
            let command = sudo(terminal).command(agent);
            assert_eq!(command.get_program(), "/bin/sudo");
            assert_eq!(command.get_args().collect::<Vec<_>>(), want);
        }
        let granted =
            |program: &str| Sudo { program: program.into(), terminal: false }.grants(agent);
        assert!(granted("/bin/true") && !granted("/bin/false") && !granted("/none/such"));
    }

    #[test]
    fn no_user_is_in_the_way_of_another() {
        assert_ne!(trial_state(0), trial_state(1000));
        assert!(trial_state(0).starts_with(workspace::target()));
    }

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
