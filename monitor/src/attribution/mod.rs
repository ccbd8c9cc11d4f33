//! Stage 2: turns a process and its cgroup into a unit.
//!
//! [`hierarchy`] picks the cgroup path that says something, [`cgroup`] names the
//! unit of a path, [`rules`] holds the match rules of the config, and
//! [`Attribution`] puts them together and remembers who was whose child.
//! [`managed`] says which of them systemd has, too.

pub mod cgroup;
pub mod hierarchy;
mod lineage;
pub mod managed;
mod names;
mod rules;
pub mod unit;
mod users;

pub use lineage::Attribution;
pub use users::name_of;
