//! Limits from the cgroup filesystem.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use procfs::process::Process;

use super::model::KernelStr;

/// Where `pids.max` is to be found: the v1 `pids` hierarchy where there is one
/// (v1 and hybrid hosts), else v2.
pub struct CgroupFs {
    pids: Option<PathBuf>,
}

impl CgroupFs {
    /// Finds the mounts.
    pub fn find() -> Self {
        let mounts = Process::myself().and_then(|p| p.mountinfo());
        let mounts = mounts.map(|m| m.0).unwrap_or_default();
        let v1 =
            mounts.iter().find(|m| m.fs_type == "cgroup" && m.super_options.contains_key("pids"));
        let v2 = mounts.iter().find(|m| m.fs_type == "cgroup2");
        Self { pids: v1.or(v2).map(|m| m.mount_point.clone()) }
    }

    /// Whether any hierarchy with the pids controller is mounted.
    pub fn found(&self) -> bool {
        self.pids.is_some()
    }

    /// `pids.max` of each cgroup that has one, and of those above: a service
    /// that delegates keeps its processes in cgroups below its own.
    pub fn pids_max(&self, cgroups: BTreeSet<&KernelStr>) -> BTreeMap<KernelStr, u64> {
        let Some(mount) = &self.pids else { return BTreeMap::new() };
        let with_parents: BTreeSet<KernelStr> = cgroups
            .into_iter()
            .flat_map(|path| {
                let bytes = path.as_bytes();
                let ends = (1..bytes.len()).filter(|i| bytes[*i] == b'/').chain([bytes.len()]);
                ends.map(|end| KernelStr::from(&bytes[..end]))
            })
            .collect();
        with_parents
            .into_iter()
            .filter_map(|path| {
                let relative = path.as_bytes().strip_prefix(b"/")?;
                // A path outside the agent's cgroup namespace has no file here.
                if relative.starts_with(b"..") {
                    return None;
                }
                let file = mount.join(OsStr::from_bytes(relative)).join("pids.max");
                // "max" is no number and no limit.
                let limit = fs::read_to_string(file).ok()?.trim().parse().ok()?;
                Some((path, limit))
            })
            .collect()
    }
}
