//! What the suites share: [`program`] and [`raw`] are the inside of a leaker or
//! innocent, the rest is the outside of it, for the suites under `tests/tests/`.

pub mod agent;
pub mod bpf;
pub mod cgroup;
pub mod component;
pub mod corpus;
pub mod fixture;
pub mod http;
pub mod install;
pub mod maps;
pub mod metrics;
pub mod procfs;
pub mod program;
pub mod prometheus;
pub mod raw;
pub mod started;
pub mod systemd;
pub mod wait;
pub mod wire;
