//! Where things are in this clone.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};

/// The root of the clone. Cargo names the manifest's directory at run time too,
/// so a binary that was built before the clone was moved still finds it.
pub fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The agent as `cargo xtask build` makes it.
pub fn release_agent() -> PathBuf {
    target().join("release/leakwatch")
}

/// The agent as the suites use it.
pub fn debug_agent() -> PathBuf {
    target().join("debug/leakwatch")
}

/// The checked-in BPF object.
pub fn prebuilt_object() -> PathBuf {
    root().join("monitor-ebpf/prebuilt/leakwatch.bpf.o")
}

/// What the checked-in BPF object was built from, and with.
pub fn prebuilt_record() -> PathBuf {
    root().join("monitor-ebpf/prebuilt/leakwatch.bpf.toml")
}

/// `CARGO_HOME`, or what cargo takes without it.
pub fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

/// Whether this is a machine that builds one tree once, and has to have everything.
pub fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Bytes that may still be written to the file system of this clone, as `df` has
/// them; nothing where it does not say.
pub fn free_bytes() -> Option<u64> {
    let space = rustix::fs::statvfs(root()).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Every file below `dir`, sorted. Symbolic links are not followed.
pub fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        let entries =
            fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
