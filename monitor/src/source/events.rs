//! Task events from the ring buffer.

use aya::maps::{MapData, RingBuf};
use leakwatch_common::{TaskRecord, task_what};

use super::model::{BootId, KernelStr, ProcessId, TaskEvent};
use crate::time::Boottime;

/// Takes what is in the ring, in order.
pub fn drain(ring: &mut RingBuf<MapData>, boot: BootId) -> Vec<TaskEvent> {
    let mut events = Vec::new();
    while let Some(item) = ring.next() {
        events.extend(event(&item, boot));
    }
    events
}

/// The event that a record says; none where it is too short or of no known kind.
pub(crate) fn event(item: &[u8], boot: BootId) -> Option<TaskEvent> {
    let head = item.get(..size_of::<TaskRecord>())?;
    // SAFETY: as many bytes as the type has, which is plain data without
    // padding; read without regard to alignment.
    let record: TaskRecord = unsafe { std::ptr::read_unaligned(head.as_ptr().cast()) };
    decode(&record, boot)
}

fn decode(r: &TaskRecord, boot: BootId) -> Option<TaskEvent> {
    let at = Boottime(r.at_ns);
    // `/proc` shows start times in ticks of 10 ms (`fs/proc/array.c`).
    let process = |pid, start_ns: u64| ProcessId { boot, pid, start_ticks: start_ns / 10_000_000 };
    let id = process(r.tgid, r.start_ns);
    let len = r.comm.iter().position(|b| *b == 0).unwrap_or(r.comm.len());
    let comm = KernelStr::from(&r.comm[..len]);
    match r.what {
        task_what::FORK => {
            let parent = process(r.parent_tgid, r.parent_start_ns);
            Some(TaskEvent::Fork { at, parent, child: id, comm })
        }
        task_what::EXEC => Some(TaskEvent::Exec { at, id, comm }),
        task_what::EXIT => Some(TaskEvent::Exit { at, id, status: r.exit_code }),
        _ => None,
    }
}
