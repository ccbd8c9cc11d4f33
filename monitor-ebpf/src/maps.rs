//! The maps, and why each is what it is.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::StackTrace,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use leakwatch_common::{
    AsyncCounts, AsyncTask, AsyncTaskKey, AsyncTypeKey, Birth, BirthKey, CENSUS_PATH_MAX,
    CHOSEN_WORDS, CensusHeader, CopyKey, CopyTurn, Flow, KernelKind, LIFETIME_BUCKETS, Loss,
    MAX_SLOTS, NEAR_PLACES, NearBirth, ProcessEntry, Settings, TaskRecord,
};

/// What the agent tells all programs. An array of one, for its lookup is inlined.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Acquisitions, by number, of those that found no place in [`NEAR`]. Not LRU: an
/// LRU map would drop the oldest, which are the leaks. Preallocated: an allocation
/// per open would cost more than the probe. A birth that finds no room is counted,
/// and the census still finds the descriptor.
///
/// A release does not delete the entry but marks it (`at_ns` 0), and the next
/// acquisition of the number writes over it: the common pair of open and close
/// then costs two lookups and neither of the two bucket locks. The entries of a
/// process go when it exits.
#[map]
pub static BIRTHS: HashMap<BirthKey, Birth> = HashMap::with_max_entries(131_072, 0);

/// Births, too, and most of them: a number that is alone in wanting its place has it here
/// (`near.rs`). An array, for its look-up is inlined: a fifth of what the hash takes. The
/// agent reads it as memory, not by a system call for each place.
#[map]
pub static NEAR: Array<NearBirth> = Array::with_max_entries(NEAR_PLACES, BPF_F_MMAPABLE);

/// What the agent says about a process. Inherited over fork in the kernel, so
/// that short-lived children count for their unit.
#[map]
pub static PROCESSES: HashMap<u32, ProcessEntry> = HashMap::with_max_entries(32_768, 0);

/// Counters per (unit slot, kind). Per CPU, so that no cache line is fought for;
/// yet added to atomically, for where the kernel preempts a program, another one
/// may count on the same CPU before it goes on.
#[map]
pub static FLOWS: PerCpuArray<Flow> =
    PerCpuArray::with_max_entries(MAX_SLOTS * KernelKind::COUNT, 0);

/// User stacks by id, 32 frames deep: who opened is told by the innermost. The
/// id is a hash over this many buckets, and a bucket that is taken by another
/// stack loses the new one, so there are many more than call sites.
#[btf_map]
pub static STACKS: StackTrace<16_384, 0, 32> = StackTrace::new();

/// Process events. A ring, for their order matters and rates are low.
#[map]
pub static TASKS: RingBuf = RingBuf::with_byte_size(TASKS_BYTES, 0);
const TASKS_BYTES: u32 = 256 * 1024;

/// Pieces of stacks, for the unwinder. A ring, for it needs no room of its own to make a
/// record of 32 KiB in: 63 of them wait for the agent, which comes with each census, and
/// that is also all that a census interval can cost. Nobody is woken.
#[map]
pub static COPIES: RingBuf = RingBuf::with_byte_size(2 * 1024 * 1024, 0);

/// When the next one of its kind may be copied. LRU: who is forgotten is copied once more.
#[map]
pub static TURNS: LruHashMap<CopyKey, CopyTurn> = LruHashMap::with_max_entries(4_096, 0);

/// Async tasks that have begun and not ended. Preallocated, as [`BIRTHS`] is; the agent
/// loads it with room only where a unit asks for it.
#[map]
pub static TOKIO_TASKS: HashMap<AsyncTaskKey, AsyncTask> = HashMap::with_max_entries(65_536, 0);

/// How many there were, by process and type of future.
#[map]
pub static TOKIO_COUNTS: HashMap<AsyncTypeKey, AsyncCounts> = HashMap::with_max_entries(8_192, 0);

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

/// Which paths the agent has from earlier passes of the census: a cache of four
/// ways, 4 MiB, in which the marks of 200,000 open files seldom displace each
/// other. A displaced one only has its path sent again. An array: what a hash
/// table would cost per descriptor is a third of what making a path costs.
#[map]
pub static PATHS: Array<PathSet> = Array::with_max_entries(PATH_SETS, 0);

/// Sets of `PATHS`, a power of two.
pub const PATH_SETS: u32 = 1 << 18;

/// Marks of the files in one set, the newest first.
pub type PathSet = [u32; 4];

/// The processes that a census in part is of, a bit for each number. An array, for
/// its look-up is inlined, and the pass asks it for every descriptor of the host.
#[map]
pub static CHOSEN: Array<u64> = Array::with_max_entries(CHOSEN_WORDS, 0);

/// Whether a census in part is of `tgid`, too.
#[inline(always)]
pub fn chosen(tgid: u32) -> bool {
    CHOSEN.get(tgid / 64).is_some_and(|word| *word >> (tgid % 64) & 1 != 0)
}

/// Counts a loss.
#[inline(always)]
pub fn lost(what: Loss) {
    if let Some(n) = LOSSES.get_ptr_mut(what as u32) {
        add::<0>(n, 1);
    }
}

/// The agent's settings.
#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// Sends a process event, or counts that it was lost.
///
/// The agent looks into the ring every [`TASKS_PERIOD_MS`] and is woken only when
/// a quarter is full: waking it for each event takes an interrupt, which cost a
/// fork with its exit a third of their time. The wake-up is tried over a stretch
/// of records, for several CPUs may step over its beginning at once.
///
/// [`TASKS_PERIOD_MS`]: leakwatch_common::TASKS_PERIOD_MS
#[inline(always)]
pub fn send(record: &TaskRecord) {
    const FULL: u64 = TASKS_BYTES as u64 / 4;
    const STRETCH: u64 = 4096;
    let waiting = TASKS.query(u64::from(BPF_RB_AVAIL_DATA));
    let wake = waiting.wrapping_sub(FULL) < STRETCH;
    let flags = if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    if TASKS.output::<TaskRecord>(record, u64::from(flags)).is_err() {
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
        add::<{ offset_of!(Flow, opened) }>(flow.cast(), 1);
    }
}

/// Counts a release after `lifetime` nanoseconds.
#[inline(always)]
pub fn count_closed(slot: u16, kind: u16, lifetime: u64) {
    let Some(flow) = flow(slot, kind) else { return };
    let us = lifetime / 1000;
    // Most that is opened is closed again at once.
    let bucket = if us < SHORT.len() as u64 {
        let mut at = us as usize;
        // What the compiler knows of the quotient, the verifier does not.
        // SAFETY: changes nothing, and so stays inside.
        unsafe {
            asm!("{0} &= 63", inout(reg) at);
            usize::from(SHORT.as_ptr().add(at).read_volatile())
        }
    } else {
        log2_bucket(us)
    };
    let bucket = if bucket < LIFETIME_BUCKETS { bucket } else { LIFETIME_BUCKETS - 1 };
    let flow: *mut u64 = flow.cast();
    add::<{ offset_of!(Flow, closed) }>(flow, 1);
    add::<{ offset_of!(Flow, lifetime_ns) }>(flow, lifetime);
    add::<{ offset_of!(Flow, buckets) }>(flow.wrapping_add(bucket), 1);
}

/// Counts a release whose time nobody knows.
#[inline(always)]
pub fn count_unseen(slot: u16, kind: u16) {
    if let Some(flow) = flow(slot, kind) {
        add::<{ offset_of!(Flow, closed) }>(flow.cast(), 1);
    }
}

#[inline(always)]
fn flow(slot: u16, kind: u16) -> Option<*mut Flow> {
    FLOWS.get_ptr_mut(u32::from(slot) * KernelKind::COUNT + u32::from(kind))
}

/// Adds to a counter in a map, `AT` bytes behind `start`.
#[inline(always)]
pub fn add<const AT: usize>(start: *mut u64, n: u64) {
    // Core has no atomic addition for this target, for its first processor version
    // cannot return the old value; this instruction, which does not, it has.
    // SAFETY: aligned, inside a map value, which outlives the run.
    unsafe { asm!("lock *(u64 *)({0} + {2}) += {1}", in(reg) start, in(reg) n, const AT) };
}

/// [`log2_bucket`] of what is small, worked out.
#[unsafe(no_mangle)]
static SHORT: [u8; 64] = {
    let mut buckets = [0; 64];
    let mut v = 1;
    while v < buckets.len() {
        buckets[v] = (usize::BITS - v.leading_zeros()) as u8;
        v += 1;
    }
    buckets
};

/// Position of the highest bit, plus one: bucket `i` is below `2^i`.
///
/// BPF has no instruction for leading zeros, and without branches: the callers
/// loop, and the verifier would walk every path of every round.
#[inline(always)]
fn log2_bucket(mut v: u64) -> usize {
    let mut bucket = 0;
    let mut step = |limit: u64, shift: u32| {
        // 1 where `v` is over the limit: the difference is then negative.
        let shifted = (limit.wrapping_sub(v) >> 63) << shift;
        v >>= shifted;
        bucket |= shifted;
    };
    step(0xffff_ffff, 5);
    step(0xffff, 4);
    step(0xff, 3);
    step(0xf, 2);
    step(0x3, 1);
    step(0x1, 0);
    (bucket + v) as usize
}
