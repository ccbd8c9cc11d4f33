//! What was lost on the way, by source.

use std::collections::BTreeMap;

use leakwatch_common::Loss;

use super::bpf::Bpf;

/// What the programs do not count themselves.
pub(super) struct Beside {
    /// Stacks that had to wait for a later look.
    pub symbols: u64,
    /// Async tasks that found no room.
    pub async_tasks: u64,
    /// Processes that were told of, and found none.
    pub unplaced: u64,
}

/// Adds what was lost since the start.
pub(super) fn add(bpf: &Bpf, beside: &Beside, lost: &mut BTreeMap<String, u64>) {
    for (index, loss) in Loss::ALL.into_iter().enumerate() {
        if let Ok(per_cpu) = bpf.losses.get(&(index as u32), 0) {
            lost.insert(name(loss).into(), per_cpu.iter().sum());
        }
    }
    lost.insert("symbols".into(), beside.symbols);
    // By an object of their own.
    lost.insert(name(Loss::AsyncTasks).into(), beside.async_tasks);
    *lost.entry(name(Loss::Processes).into()).or_default() += beside.unplaced;
    if let Some(misses) = bpf.recursion_misses() {
        lost.insert("recursion".into(), misses);
    }
}

fn name(loss: Loss) -> &'static str {
    match loss {
        Loss::Births => "births",
        Loss::Stacks => "stacks",
        Loss::Tasks => "tasks",
        Loss::Processes => "processes",
        Loss::CloseRange => "close_range",
        Loss::UserMemory => "user_memory",
        Loss::Passed => "passed_fds",
        Loss::CloseOnExec => "close_on_exec",
        Loss::AsyncTasks => "async_tasks",
        Loss::Copies => "stack_copies",
    }
}
