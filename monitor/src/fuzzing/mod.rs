//! What the fuzzers call: the parsers of outside bytes, with what must hold of
//! any bytes at all.
//!
//! Each function takes bytes that nobody has chosen with care and panics where
//! an invariant breaks; that a parser itself never panics is the first of them.
//! `fuzz/` calls these functions under libFuzzer, and a unit test replays the
//! seeds and thousands of mutations of them, so the invariants hold on stable
//! too. This is no interface: it may change at any time.

mod audit;
mod btf;
mod config;
mod http;
mod openers;
mod paths;
mod procfs;
mod records;
#[cfg(test)]
mod replay_tests;
mod tasks;
mod trace;
mod unwind;

pub use self::audit::audit;
pub use self::btf::btf;
pub use self::config::config;
pub use self::http::http;
pub use self::openers::openers;
pub use self::paths::{cgroup, template};
pub use self::procfs::procfs;
pub use self::records::records;
pub use self::tasks::tasks;
pub use self::trace::trace;
#[cfg(test)]
pub(crate) use self::unwind::question;
pub use self::unwind::unwind;

/// Takes bytes; panics where something does not hold of them.
pub type Target = fn(&[u8]);

/// Every target by name: `fuzz/fuzz_targets/NAME.rs`, seeds in `fuzz/seeds/NAME`.
pub const TARGETS: [(&str, Target); 12] = [
    ("audit", audit),
    ("btf", btf),
    ("cgroup", cgroup),
    ("config", config),
    ("http", http),
    ("openers", openers),
    ("procfs", procfs),
    ("records", records),
    ("tasks", tasks),
    ("template", template),
    ("trace", trace),
    ("unwind", unwind),
];

/// A name as it may be shown: nothing that drives a terminal or breaks a line.
fn assert_printable(shown: &str) {
    let control = shown.chars().find(|c| c.is_control());
    assert!(control.is_none(), "{control:?} in {shown:?}");
}
