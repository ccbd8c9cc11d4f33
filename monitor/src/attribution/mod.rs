//! Stage 2: turns a process and its cgroup into a unit.

pub mod unit;
