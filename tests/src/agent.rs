//! The agent under test: the real binary, with a config and a state directory of
//! its own, on loopback.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use leakwatch::detection::verdict::{Leak, State};
use serde_json::Value;
use tempfile::TempDir;

use crate::component::say;
use crate::http::{self, Answer};
use crate::install;
use crate::metrics::Scrape;
use crate::started::{inherit_nothing, program_dir};
use crate::wait::{SOON, patience, wait_until};

/// Everything fast: verdicts take seconds where the defaults take an hour.
pub const FAST: &str = r#"
[watch]
census_interval = "250ms"
census_cpu_budget = 1.0

[detection]
window = "1s"
windows = 4
warmup = "1s"
stale_after = "2s"
min_held = 5
min_share = 0
"#;

/// The agent's binary: `LEAKWATCH_BIN`, else the one beside this package's programs.
///
/// # Panics
/// There is none.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("LEAKWATCH_BIN")
        .map_or_else(|| program_dir().join("leakwatch"), PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `cargo build -p leakwatch`", path.display());
    path
}

/// Runs the agent's binary to its end.
///
/// # Panics
/// It cannot be started.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("it starts")
}

/// The same under another program, such as `env VARIABLE=value`.
///
/// # Panics
/// It cannot be started.
pub fn run_under(wrapper: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(binary()).args(arguments);
    command.stdin(Stdio::null()).output().expect("it starts")
}

/// A loopback address that was free a moment ago.
///
/// # Panics
/// Loopback has no free port.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound")
}

/// How to start an agent.
pub struct Plan {
    config: String,
    wrapper: Vec<String>,
    arguments: Vec<String>,
    state_dir: Option<PathBuf>,
}

impl Plan {
    /// With this config file.
    pub fn new(config: impl Into<String>) -> Self {
        Self { config: config.into(), wrapper: Vec::new(), arguments: Vec::new(), state_dir: None }
    }

    /// Under another program, such as `setpriv --bounding-set -bpf`.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper.extend(wrapper.iter().map(ToString::to_string));
        self
    }

    /// With further flags.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// With the state that another has left there.
    pub fn with_state_in(mut self, dir: &Path) -> Self {
        self.state_dir = Some(dir.to_owned());
        self
    }

    /// Starts it, and waits until it says that it is ready.
    ///
    /// # Panics
    /// It does not get ready.
    #[track_caller]
    pub fn start(self) -> Agent {
        let mut agent = self.launch();
        wait_until("the agent to be ready", SOON, || {
            if let Some(status) = agent.ended() {
                panic!("the agent ended with {status}\n{}", agent.log());
            }
            let answer = http::get(agent.address, "/-/ready").ok()?;
            (answer.status == 200).then_some(())
        });
        agent
    }

    /// Starts it, ready or not.
    ///
    /// # Panics
    /// The binary cannot be started.
    #[track_caller]
    pub fn launch(self) -> Agent {
        let dir = TempDir::with_prefix("leakwatch-test-").expect("a temporary directory");
        // An agent without privileges must reach its files.
        let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(dir.path(), open_to_all).expect("it is ours");
        let config = dir.path().join("leakwatch.toml");
        fs::write(&config, &self.config).expect("the config can be written");
        let log = dir.path().join("agent.log");
        let address = free_address();
        let mut line: Vec<String> = self.wrapper;
        if line.is_empty() {
            line.push(binary().display().to_string());
        } else {
            // Another user may not reach into the build directory.
            let copy = dir.path().join("leakwatch");
            install::copy(binary(), &copy);
            line.push(copy.display().to_string());
        }
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg("watch").arg("--config").arg(&config);
        let state_dir = self.state_dir.unwrap_or_else(|| dir.path().join("state"));
        command.arg("--state-dir").arg(state_dir);
        command.arg("--web.listen-address").arg(address.to_string()).args(&self.arguments);
        let file = File::create(&log).expect("the log can be written");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a copy")).stderr(file);
        inherit_nothing(&mut command);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {line:?}: {e}"));
        Agent { child, dir, address, status: None }
    }
}

/// A running agent; ended when dropped. Where the test fails, its log is shown.
pub struct Agent {
    child: Child,
    dir: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    status: Option<ExitStatus>,
}

impl Agent {
    /// Process id (of the wrapper's, where that does not exec).
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read(self.dir.path().join("agent.log"))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// The binary it runs as, or may run as under another user.
    pub fn binary(&self) -> PathBuf {
        let copy = self.dir.path().join("leakwatch");
        if copy.is_file() { copy } else { binary() }
    }

    /// Its config file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("leakwatch.toml")
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A directory that lives as long as it does.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `--url` for the commands that ask a running agent.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// GET.
    ///
    /// # Panics
    /// It does not answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        http::get(self.address, path).unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.log()))
    }

    /// GET, 200, JSON.
    ///
    /// # Panics
    /// Anything else came.
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "GET {path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// A scrape.
    ///
    /// # Panics
    /// It does not answer, or not in the format.
    #[track_caller]
    pub fn metrics(&self) -> Scrape {
        Scrape::read(self.get("/metrics").text())
    }

    /// Every verdict.
    ///
    /// # Panics
    /// The answer is not what the API promises.
    #[track_caller]
    pub fn leaks(&self) -> Vec<Leak> {
        let mut answer = self.json("/api/v1/leaks");
        serde_json::from_value(answer["leaks"].take())
            .unwrap_or_else(|e| panic!("/api/v1/leaks: {e}: {answer}"))
    }

    /// Confirmed verdicts of units whose names start with `prefix`.
    #[track_caller]
    pub fn confirmed(&self, prefix: &str) -> Vec<Leak> {
        let mut leaks = self.leaks();
        leaks.retain(|l| l.state == State::Confirmed && l.unit.starts_with(prefix));
        leaks
    }

    /// Waits until of the units that are `ours` these are confirmed and no others,
    /// each with one leak of so many.
    ///
    /// # Panics
    /// It never comes to that.
    #[track_caller]
    pub fn confirms(&self, ours: impl Fn(&str) -> bool, want: &[(String, u64)]) {
        let mut last = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < 3 * SOON * patience() {
            last = self.confirmed("");
            last.retain(|leak| ours(&leak.unit));
            let mut found: Vec<_> =
                last.iter().map(|leak| (leak.unit.to_string(), leak.held)).collect();
            found.sort();
            if found == want {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("instead of {want:?} these are confirmed: {last:#?}");
    }

    /// The unit called `name` as `/api/v1/units/NAME` gives it; `None` where it
    /// gives 404.
    ///
    /// # Panics
    /// The agent does not answer.
    #[track_caller]
    pub fn unit(&self, name: &str) -> Option<Value> {
        let answer = self.get(&format!("/api/v1/units/{}", http::escape(name)));
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits for a census that began after this call.
    ///
    /// # Panics
    /// None came.
    #[track_caller]
    pub fn census(&self) {
        let stamp = || self.metrics().one("leakwatch_census_timestamp_seconds", &[]);
        // The next to end may have begun before; the one after that has not.
        let mut seen = stamp();
        for _ in 0..2 {
            seen =
                Some(wait_until("another census", SOON, || stamp().filter(|t| Some(*t) != seen)));
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It has ended.
    #[track_caller]
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes no address; the child is not reaped before `status` is set.
        let sent = unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
        assert!(self.status.is_none() && sent == 0, "the agent has ended\n{}", self.log());
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    /// The kernel does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    /// Asks it to stop, and gives how it ended and how long that took.
    ///
    /// # Panics
    /// It did not end.
    #[track_caller]
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        self.signal(libc::SIGTERM);
        let status = wait_until("the agent to stop", SOON, || self.ended());
        (status, begun.elapsed())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            say(format_args!("--- the agent's log ends so:\n{}\n---", tail.join("\n")));
        }
    }
}
