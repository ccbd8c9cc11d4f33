//! The configuration as the stages use it: checked, with durations parsed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[watch]`.
    pub watch: Watch,
    /// `[[unit]]`, in file order: the first that matches wins.
    pub units: Vec<UnitRule>,
    /// `[detection]`.
    pub detection: Detection,
    /// `[[ignore]]`.
    pub ignore: Vec<Ignore>,
    /// `[[cleanup]]`, in file order.
    pub cleanup: Vec<Cleanup>,
}

/// When the fd probes are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeMode {
    /// Always where they are nearly free, else on suspicion.
    #[default]
    Auto,
    /// Always.
    Always,
    /// While a cohort is suspected.
    OnSuspicion,
    /// Never.
    Off,
}

/// When user stacks are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StackMode {
    /// With every birth.
    Always,
    /// With one birth of a descriptor in [`leakwatch_common::STACK_SAMPLE`] and every
    /// birth of a thread; with every birth for suspected units.
    Sampled,
    /// For suspected units.
    #[default]
    OnSuspicion,
    /// Never.
    Off,
}

/// `[watch]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Between two censuses; 100 ms to 1 h.
    pub census_interval: Duration,
    /// Share of one core that the census may use, above 0, at most 1.
    pub census_cpu_budget: f64,
    /// When the fd probes are attached.
    pub probes: ProbeMode,
    /// When stacks are taken.
    pub stacks: StackMode,
    /// Units with series of their own, at least 1.
    pub max_units: usize,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            census_interval: Duration::from_secs(5),
            census_cpu_budget: 0.01,
            probes: ProbeMode::default(),
            stacks: StackMode::default(),
            max_units: 500,
        }
    }
}

/// `[[unit]]`: a match rule. All given matchers must hold. They are globs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitRule {
    /// Unit name.
    pub name: String,
    /// Glob on the cgroup path.
    pub cgroup: Option<String>,
    /// Glob on the executable's path.
    pub exe: Option<String>,
    /// Glob on the arguments joined by one space.
    pub cmdline: Option<String>,
    /// User name or numeric id.
    pub user: Option<String>,
    /// Log path globs besides the built-in ones.
    pub logs: Vec<String>,
    /// Globs on command lines of processes that must not outlive the unit.
    pub orphans: Vec<String>,
    /// The runtime whose async tasks are counted.
    pub tasks: Option<TaskRuntime>,
}

/// A runtime of async tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRuntime {
    /// Rust's tokio.
    Tokio,
}

impl TaskRuntime {
    /// Every one, by its word.
    pub const ALL: [(&str, Self); 1] = [("tokio", Self::Tokio)];

    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
        }
    }
}

/// Lengths of windows: the config's, and three longer ones, for what grows by less than
/// one in a window.
pub const LEVELS: usize = 4;

/// Windows of one level that make one of the next.
const LONGER: u64 = 4;

/// Windows of the config that make one of a level.
pub const fn windows_of(level: usize) -> u64 {
    LONGER.pow(level as u32)
}

/// `[detection]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// One floor window.
    pub window: Duration,
    /// Rising floors needed.
    pub windows: u32,
    /// After a process start.
    pub warmup: Duration,
    /// Untouched for so long means stale.
    pub stale_after: Duration,
    /// Smaller cohorts are never confirmed.
    pub min_held: u64,
    /// What only grows in number is confirmed once it takes this share of the limit, 0 to
    /// 1, or has grown for long.
    pub min_share: f64,
}

impl Detection {
    /// How long the windows of each level are.
    pub fn lengths(&self) -> [Duration; LEVELS] {
        std::array::from_fn(|level| self.window * windows_of(level) as u32)
    }
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(300),
            windows: 6,
            warmup: Duration::from_secs(600),
            stale_after: Duration::from_secs(300),
            min_held: 5,
            min_share: 0.0625,
        }
    }
}

/// `[[ignore]]`: what is known and fine. All given matchers must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    /// Glob on the unit name.
    pub unit: Option<String>,
    /// Glob on the path of a descriptor.
    pub path: Option<String>,
    /// Rule name.
    pub rule: Option<String>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    /// Say so in the log.
    Notify,
    /// Send a signal that makes the service reopen its logs.
    Signal,
    /// End processes that outlived their service.
    KillOrphans,
}

impl ActionKind {
    /// The name in config, labels and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notify => "notify",
            Self::Signal => "signal",
            Self::KillOrphans => "kill-orphans",
        }
    }
}

/// Whether a rule acts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Say what would be done.
    #[default]
    DryRun,
    /// Do it.
    Enforce,
}

impl Mode {
    /// The name in config, labels and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DryRun => "dry-run",
            Self::Enforce => "enforce",
        }
    }
}

/// `[[cleanup]]`: what to do about a confirmed verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Cleanup {
    /// Glob on the rule name.
    pub rule: Option<String>,
    /// Glob on the unit name.
    pub unit: Option<String>,
    /// What.
    pub action: ActionKind,
    /// Signal number, for `signal`.
    pub signal: Option<i32>,
    /// Dry run or not.
    pub mode: Mode,
    /// Between two acts on the same verdict.
    pub cooldown: Duration,
    /// Acts per hour of this rule.
    pub budget: u32,
    /// Unit names (globs) that are never touched.
    pub protect: Vec<String>,
    /// SIGTERM to SIGKILL, for `kill-orphans`.
    pub grace: Duration,
    /// Longest wait for one act and its check.
    pub timeout: Duration,
}
