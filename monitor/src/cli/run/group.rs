//! A cgroup for the command, so that whatever belongs to it is known by more than descent.
//!
//! It is made below the one that leakwatch is in, in the version 2 hierarchy, where that
//! may be written: by root, and by a user in a part that systemd has delegated. At the end
//! those who are left go where they would be without it, and it is removed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use procfs::process::Process;

/// Of its name, before the pid of leakwatch.
const PREFIX: &str = "leakwatch-run-";
/// Who forks while it is moved is moved again, so often.
const MOVES: u32 = 100;

/// The cgroup of the command; removed when dropped.
pub(super) struct Group {
    dir: PathBuf,
    removed: bool,
}

impl Group {
    /// Makes it and puts a process into it, which has started nothing yet.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn make(pid: libc::pid_t) -> Result<Self, String> {
        let above = own()?;
        sweep(&above);
        let dir = above.join(format!("{PREFIX}{}", std::process::id()));
        let refused = |e: io::Error| format!("{}: {e}", dir.display());
        fs::create_dir(&dir).map_err(refused)?;
        let group = Self { dir: dir.clone(), removed: false };
        // Dropped, and so removed, if that fails.
        fs::write(dir.join("cgroup.procs"), pid.to_string()).map_err(refused)?;
        Ok(group)
    }

    /// Who is in it, or in one that the command has made below it.
    pub(super) fn members(&self) -> Vec<libc::pid_t> {
        let mut members: Vec<libc::pid_t> = below(&self.dir).iter().flat_map(|d| pids(d)).collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Removes it, and those below it. Who is still there goes into the one above.
    ///
    /// # Errors
    /// It remains; where and why, in words.
    pub(super) fn remove(mut self) -> Result<(), String> {
        self.removed = true;
        removed(&self.dir)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.removed {
            // Of this way out there is an error to tell already.
            let _ = removed(&self.dir);
        }
    }
}

fn removed(dir: &Path) -> Result<(), String> {
    let remains = |e: io::Error| format!("the cgroup {} remains: {e}", dir.display());
    let above = dir.parent().unwrap_or(dir).join("cgroup.procs");
    let mut refused = None;
    for _ in 0..MOVES {
        // The deepest first: one that has others is not removed.
        for group in below(dir).iter().rev() {
            for pid in pids(group) {
                if let Err(e) = fs::write(&above, pid.to_string())
                    // It has ended.
                    && e.raw_os_error() != Some(libc::ESRCH)
                {
                    refused = Some(e);
                }
            }
            if let Err(e) = fs::remove_dir(group)
                && e.kind() != io::ErrorKind::NotFound
            {
                refused = Some(e);
            }
        }
        if !dir.exists() {
            return Ok(());
        }
    }
    Err(remains(refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))))
}

/// The cgroup that leakwatch is in, as a directory.
fn own() -> Result<PathBuf, String> {
    let own = Process::myself().map_err(|e| e.to_string())?;
    let mounts = own.mountinfo().map_err(|e| e.to_string())?.0;
    let mount = mounts.into_iter().find(|m| m.fs_type == "cgroup2");
    let mount = mount.ok_or("no version 2 hierarchy of cgroups is mounted")?;
    let text = fs::read("/proc/self/cgroup").map_err(|e| e.to_string())?;
    let path = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    let path = path.ok_or("leakwatch is in no cgroup of version 2")?;
    // Where but a part of the hierarchy is mounted, its root is what the path begins with.
    let path = path.strip_prefix(mount.root.as_bytes()).unwrap_or(path);
    let path = path.strip_prefix(b"/").unwrap_or(path);
    if path.starts_with(b"..") {
        return Err("leakwatch is in a cgroup that is not of the hierarchy that it sees".to_owned());
    }
    Ok(mount.mount_point.join(OsStr::from_bytes(path)))
}

/// Removes those of earlier runs that were killed. One that has processes stays, as the
/// kernel has it.
fn sweep(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(PREFIX));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// A cgroup and all below it, parents first.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut at = 0;
    while let Some(dir) = all.get(at) {
        let inside = fs::read_dir(dir).into_iter().flatten().flatten();
        let dirs = inside.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path());
        let dirs: Vec<PathBuf> = dirs.collect();
        all.extend(dirs);
        at += 1;
    }
    all
}

/// The processes right in a cgroup; those of another pid namespace have no number here.
fn pids(group: &Path) -> Vec<libc::pid_t> {
    // Bytes are digits and newlines.
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 0).collect()
}
