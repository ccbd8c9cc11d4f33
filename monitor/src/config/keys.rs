//! Every table and key of the file: the one place that knows their names.

/// A table of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spec {
    /// Name between the brackets.
    pub(super) name: &'static str,
    /// Written `[[name]]`, any number of times, rather than `[name]`, once.
    pub(super) repeats: bool,
    /// Its keys, in the order they are documented.
    pub(super) keys: &'static [&'static str],
}

impl Spec {
    /// As it is written: `[watch]` or `[[unit]]`.
    pub(super) fn header(&self) -> String {
        if self.repeats { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

pub(super) static WATCH: Spec = Spec {
    name: "watch",
    repeats: false,
    keys: &["census_interval", "census_cpu_budget", "probes", "stacks", "max_units"],
};

pub(super) static UNIT: Spec = Spec {
    name: "unit",
    repeats: true,
    keys: &["name", "cgroup", "exe", "cmdline", "user", "logs", "orphans", "tasks"],
};

pub(super) static DETECTION: Spec = Spec {
    name: "detection",
    repeats: false,
    keys: &["window", "windows", "warmup", "stale_after", "min_held", "min_share"],
};

pub(super) static IGNORE: Spec =
    Spec { name: "ignore", repeats: true, keys: &["unit", "path", "rule"] };

pub(super) static CLEANUP: Spec = Spec {
    name: "cleanup",
    repeats: true,
    keys: &[
        "rule", "unit", "do", "signal", "mode", "cooldown", "budget", "protect", "grace", "timeout",
    ],
};

/// Every table.
pub(super) static TABLES: [&Spec; 5] = [&WATCH, &UNIT, &DETECTION, &IGNORE, &CLEANUP];
