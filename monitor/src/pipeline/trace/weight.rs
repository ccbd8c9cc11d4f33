//! About how much memory things take, so that no trace takes more than a bound.

use std::sync::Arc;

use crate::source::model::{
    FdSample, Flow, Frame, KernelStr, Opener, ProcessTasks, SystemdUnit, TaskCount, UnitFlows,
};

/// What all of a look may weigh, bytes. A million descriptors weigh a quarter of it.
pub(super) const MOST: usize = 1 << 30;

/// An allocation and its place in a map, bytes.
const NODE: usize = 48;

/// Something that takes memory.
pub(super) trait Weigh {
    /// About how much, bytes.
    fn weight(&self) -> usize;
}

impl Weigh for u32 {
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

impl Weigh for u64 {
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

impl Weigh for Vec<u64> {
    fn weight(&self) -> usize {
        NODE + self.len() * size_of::<u64>()
    }
}

impl Weigh for Arc<str> {
    fn weight(&self) -> usize {
        NODE + self.len()
    }
}

impl Weigh for KernelStr {
    fn weight(&self) -> usize {
        NODE + self.0.len()
    }
}

impl Weigh for Opener {
    fn weight(&self) -> usize {
        let frame = |f: &Frame| {
            let texts = [Some(&f.function), f.file.as_ref(), f.module.as_ref()];
            size_of::<Frame>() + texts.into_iter().flatten().map(String::len).sum::<usize>()
        };
        let note = self.note.as_ref().map_or(0, String::len);
        size_of::<Self>() + note + self.frames.iter().map(frame).sum::<usize>()
    }
}

impl Weigh for FdSample {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.path.weight()
    }
}

impl Weigh for Flow {
    fn weight(&self) -> usize {
        NODE + size_of::<Self>() + self.lifetimes.buckets.weight()
    }
}

impl Weigh for UnitFlows {
    fn weight(&self) -> usize {
        let flows = self.fds.values().chain(&self.threads).chain(&self.processes);
        size_of::<Self>() + flows.map(Weigh::weight).sum::<usize>()
    }
}

impl Weigh for ProcessTasks {
    fn weight(&self) -> usize {
        let kind = |(name, count): (&Arc<str>, &TaskCount)| {
            let file = count.file.as_ref().map_or(0, Weigh::weight);
            NODE + size_of::<TaskCount>() + name.weight() + file
        };
        let blind = self.blind.as_ref().map_or(0, String::len);
        size_of::<Self>() + blind + self.kinds.iter().map(kind).sum::<usize>()
    }
}

impl Weigh for Arc<SystemdUnit> {
    fn weight(&self) -> usize {
        let state = self.active_state.as_ref().map_or(0, Weigh::weight);
        size_of::<SystemdUnit>() + self.id.weight() + state
    }
}
