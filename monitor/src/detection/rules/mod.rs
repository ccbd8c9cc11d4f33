//! The rules: each a pure function of the ledger.

pub mod close_wait;
pub mod deleted_file_held;
pub mod excess;
pub mod headroom;
pub mod inherited_unused;
pub mod orphan;
pub mod outlived;
pub mod rising_floor;
pub mod task_growth;
pub mod thread_growth;
pub mod unclosed_log_handle;
pub mod zombie;

use crate::config::model::Detection;
use crate::detection::finding::Finding;
use crate::detection::verdict::Rule;
use crate::ledger::Ledger;
use crate::ledger::process::{Held, Process};
use crate::time::Boottime;

/// Asks every rule.
pub fn judge(ledger: &Ledger, config: &Detection, now: Boottime) -> Vec<Finding> {
    [
        unclosed_log_handle::judge,
        deleted_file_held::judge,
        close_wait::judge,
        inherited_unused::judge,
        rising_floor::judge,
        outlived::judge,
        excess::judge,
        thread_growth::judge,
        task_growth::judge,
        zombie::judge,
        orphan::judge,
        headroom::judge,
    ]
    .iter()
    .flat_map(|rule| rule(ledger, config, now))
    .collect()
}

/// A descriptor that the config leaves out of a rule.
fn leaves_out(ledger: &Ledger, rule: Rule, held: &Held) -> bool {
    ledger.patterns().leaves_out(held.ignored, rule.as_str())
}

/// A unit that the config leaves out of a rule.
fn leaves_out_unit(ledger: &Ledger, rule: Rule, process: &Process) -> bool {
    ledger.patterns().leaves_out(process.ignored, rule.as_str())
}
