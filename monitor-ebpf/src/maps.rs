//! The maps, and why each is what it is.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf, StackTrace},
};
use leakwatch_common::{
    Birth, BirthKey, CENSUS_PATH_MAX, CensusHeader, Flow, KernelKind, LIFETIME_BUCKETS, Loss,
    MAX_SLOTS, MAX_SYSCALLS, ProcessEntry, Role, TaskRecord,
};

/// What each system call does. An array: its lookup is two inlined
/// instructions, and every system call of the host pays it.
#[map]
pub static ROLES: Array<Role> = Array::with_max_entries(MAX_SYSCALLS, 0);

/// Acquisitions not yet released. Not LRU: an LRU map would drop the oldest,
/// which are the leaks. Preallocated: an allocation per open would cost more
/// than the probe. A birth that finds no room is counted and the census still
/// finds the descriptor. The agent sets the size.
#[map]
pub static BIRTHS: HashMap<BirthKey, Birth> = HashMap::with_max_entries(131_072, 0);

/// What the agent says about a process. Inherited over fork in the kernel, so
/// that short-lived children count for their unit.
#[map]
pub static PROCESSES: HashMap<u32, ProcessEntry> = HashMap::with_max_entries(32_768, 0);

/// Counters per (unit slot, kind). Per CPU, so that the cache line stays;
/// atomic all the same, for a program may be preempted by another on its CPU.
#[map]
pub static FLOWS: PerCpuArray<Flow> =
    PerCpuArray::with_max_entries(MAX_SLOTS * KernelKind::COUNT, 0);

/// User stacks by id.
#[map]
pub static STACKS: StackTrace = StackTrace::with_max_entries(4096, 0);

/// Process events. A ring, for their order matters and rates are low.
#[map]
pub static TASKS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// What full maps cost.
#[map]
pub static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);

/// The census record under construction: too large for the 512-byte stack.
#[map]
pub static SCRATCH: PerCpuArray<CensusRecord> = PerCpuArray::with_max_entries(1, 0);

/// A census record with room for the longest path.
#[repr(C)]
pub struct CensusRecord {
    /// Fixed part.
    pub header: CensusHeader,
    /// Path.
    pub path: [u8; CENSUS_PATH_MAX],
}

/// Counts a loss.
#[inline(always)]
pub fn lost(what: Loss) {
    if let Some(n) = LOSSES.get_ptr_mut(what as u32) {
        add(n, 1);
    }
}

/// Sends a process event, or counts that it was lost.
#[inline(always)]
pub fn send(record: &TaskRecord) {
    if TASKS.output::<TaskRecord>(record, 0).is_err() {
        lost(Loss::Tasks);
    }
}

/// What the agent says about `tgid`.
#[inline(always)]
pub fn process(tgid: u32) -> Option<ProcessEntry> {
    PROCESSES.get_ptr(tgid).map(|p| {
        // SAFETY: a map value of this type.
        unsafe { *p }
    })
}

/// Counts an acquisition.
#[inline(always)]
pub fn count_opened(slot: u16, kind: u16) {
    if let Some(flow) = flow(slot, kind) {
        // SAFETY: `flow` points at a map value.
        add(unsafe { &raw mut (*flow).opened }, 1);
    }
}

/// Counts a release after `lifetime` nanoseconds.
#[inline(always)]
pub fn count_closed(slot: u16, kind: u16, lifetime: u64) {
    let Some(flow) = flow(slot, kind) else { return };
    let bucket = log2_bucket(lifetime / 1000);
    // SAFETY: `flow` points at a map value; the bucket is bounded.
    unsafe {
        add(&raw mut (*flow).closed, 1);
        add(&raw mut (*flow).lifetime_ns, lifetime);
        add((&raw mut (*flow).buckets).cast::<u64>().add(bucket), 1);
    }
}

#[inline(always)]
fn flow(slot: u16, kind: u16) -> Option<*mut Flow> {
    FLOWS.get_ptr_mut(u32::from(slot) * KernelKind::COUNT + u32::from(kind & 15))
}

#[inline(always)]
fn add(counter: *mut u64, n: u64) {
    // `core` has no atomics for this target, the machine has (Linux 3.18).
    // SAFETY: aligned, inside a map value, which outlives the program's run.
    unsafe {
        core::arch::asm!("lock *(u64 *)({at} + 0) += {n}", at = in(reg) counter, n = in(reg) n);
    }
}

/// Position of the highest bit, plus one: bucket `i` is below `2^i`. In steps,
/// since BPF has no instruction for leading zeros.
#[inline(always)]
fn log2_bucket(mut v: u64) -> usize {
    let mut bucket = 0;
    if v >= 1 << 32 {
        v >>= 32;
        bucket += 32;
    }
    if v >= 1 << 16 {
        v >>= 16;
        bucket += 16;
    }
    if v >= 1 << 8 {
        v >>= 8;
        bucket += 8;
    }
    if v >= 1 << 4 {
        v >>= 4;
        bucket += 4;
    }
    if v >= 1 << 2 {
        v >>= 2;
        bucket += 2;
    }
    if v >= 1 << 1 {
        v >>= 1;
        bucket += 1;
    }
    bucket += v as usize;
    if bucket >= LIFETIME_BUCKETS { LIFETIME_BUCKETS - 1 } else { bucket }
}
