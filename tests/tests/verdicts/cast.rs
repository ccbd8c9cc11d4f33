//! The programs of the large test: who leaks what, and the innocent twins.

use std::process::Command;

use leakwatch::detection::verdict::Rule;
use leakwatch_tests::started::{Started, program, python};

/// What is to be said of a leaker once it has leaked all it will.
pub struct Expected {
    pub unit: &'static str,
    pub rule: Rule,
    pub kind: &'static str,
    pub held: u64,
    /// A word of the cohort or of the examples' paths.
    pub names: &'static str,
    pub pinned: u64,
}

pub fn tagged(mut command: Command, unit: &str, arguments: &[&str]) -> Started {
    Started::new(command.args(["--tag", &format!("t-{unit}")]).args(arguments))
}

pub const LEAKERS: &[Expected] = &[
    Expected {
        unit: "deployer-leaks",
        rule: Rule::UnclosedLogHandle,
        kind: "log",
        held: 20,
        names: "deployer-leaks.log",
        pinned: 0,
    },
    Expected {
        unit: "sqlite-leaks",
        rule: Rule::RisingFloor,
        kind: "regular",
        held: 40,
        names: "sqlite-leaks.db",
        pinned: 0,
    },
    Expected {
        unit: "threads-leak",
        rule: Rule::ThreadGrowth,
        kind: "thread",
        held: 40,
        names: "threads",
        pinned: 0,
    },
    Expected {
        unit: "children-leak",
        rule: Rule::Zombie,
        kind: "process",
        held: 20,
        names: "children",
        pinned: 0,
    },
    Expected {
        unit: "logger-holds",
        rule: Rule::DeletedFileHeld,
        kind: "log",
        held: 10,
        names: "logger-holds.log",
        pinned: 10 * 8192,
    },
    Expected {
        unit: "responses-leak",
        rule: Rule::CloseWait,
        kind: "socket",
        held: 20,
        names: "tcp",
        pinned: 0,
    },
    Expected {
        unit: "heirs-carry",
        rule: Rule::InheritedUnused,
        kind: "regular",
        held: 8,
        names: "heirloom",
        pinned: 0,
    },
    Expected {
        unit: "logger-until-hup",
        rule: Rule::UnclosedLogHandle,
        kind: "log",
        held: 20,
        names: "logger-until-hup.log",
        pinned: 0,
    },
];

pub const INNOCENTS: &[&str] = &[
    "deployer-closes",
    "sqlite-pool",
    "threads-pool",
    "children-reaped",
    "logger-reopens",
    "connection-pool",
    "responses-closed",
    "heirs-close",
    "heirs-once",
    "load",
    "file-burst",
];

pub fn start_leakers(dir: &str) -> Vec<Started> {
    let in_dir = |name: &str| format!("{dir}/{name}");
    vec![
        tagged(
            python("deployer.py"),
            "deployer-leaks",
            &["--log", &in_dir("deployer-leaks.log"), "--count", "20", "--pace", "400"],
        ),
        tagged(
            program("sqlite-connections"),
            "sqlite-leaks",
            &["--db", &in_dir("sqlite-leaks.db"), "--count", "40", "--pace", "250"],
        ),
        tagged(program("threads"), "threads-leak", &["--count", "40", "--pace", "250"]),
        tagged(program("children"), "children-leak", &["--count", "20", "--pace", "400"]),
        tagged(
            program("rotating-logger"),
            "logger-holds",
            &[
                "--log",
                &in_dir("logger-holds.log"),
                "--count",
                "10",
                "--pace",
                "600",
                "--bytes",
                "8192",
                "--wait",
                "1",
            ],
        ),
        tagged(
            program("connections"),
            "responses-leak",
            &["--mode", "forget", "--count", "20", "--pace", "400"],
        ),
        tagged(python("heirs.py"), "heirs-carry", &["--dir", &in_dir("heirs-carry")]),
        tagged(
            program("rotating-logger"),
            "logger-until-hup",
            &[
                "--mode",
                "until-hup",
                "--log",
                &in_dir("logger-until-hup.log"),
                "--count",
                "20",
                "--pace",
                "600",
            ],
        ),
    ]
}

pub fn start_innocents(dir: &str) -> Vec<Started> {
    let in_dir = |name: &str| format!("{dir}/{name}");
    vec![
        tagged(
            python("deployer.py"),
            "deployer-closes",
            &[
                "--mode",
                "close",
                "--log",
                &in_dir("deployer-closes.log"),
                "--count",
                "20",
                "--pace",
                "400",
            ],
        ),
        tagged(
            program("sqlite-connections"),
            "sqlite-pool",
            &["--mode", "pool", "--db", &in_dir("sqlite-pool.db"), "--pace", "250"],
        ),
        tagged(program("threads"), "threads-pool", &["--mode", "pool", "--pace", "250"]),
        tagged(program("children"), "children-reaped", &["--mode", "reap", "--pace", "250"]),
        tagged(
            program("rotating-logger"),
            "logger-reopens",
            &["--mode", "reopen", "--log", &in_dir("logger-reopens.log"), "--pace", "300"],
        ),
        tagged(program("connections"), "connection-pool", &["--count", "60", "--pace", "50"]),
        tagged(
            program("connections"),
            "responses-closed",
            &["--mode", "close", "--count", "40", "--pace", "200"],
        ),
        tagged(
            python("heirs.py"),
            "heirs-close",
            &["--mode", "close", "--dir", &in_dir("heirs-close"), "--pace", "100"],
        ),
        tagged(
            python("heirs.py"),
            "heirs-once",
            &["--mode", "once", "--dir", &in_dir("heirs-once"), "--pace", "100"],
        ),
        tagged(
            program("connections"),
            "load",
            &[
                "--mode", "load", "--count", "60", "--pace", "50", "--rise", "9000", "--stay",
                "2000",
            ],
        ),
        tagged(program("file-burst"), "file-burst", &["--dir", dir, "--times", "2"]),
    ]
}
