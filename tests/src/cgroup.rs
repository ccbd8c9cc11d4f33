//! Control groups made for a test, so that a program runs as `leaky.service` on a
//! machine without systemd.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::component::need;
use crate::wait::{SOON, wait_until};

/// Where the version 2 hierarchy is mounted, from the mount table.
pub fn mount() -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // ID PARENT MAJOR:MINOR ROOT WHERE OPTIONS… - TYPE SOURCE OPTIONS
    let mounted = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4).map(PathBuf::from))?
    };
    table.lines().find_map(mounted)
}

/// A control group; removed when dropped, with those above it that this made.
pub struct Cgroup {
    /// Its path as /proc/PID/cgroup gives it: `/system.slice/x.service`.
    pub path: String,
    dir: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes one. `None` where the machine does not let us: see [`need`].
    #[track_caller]
    pub fn make(path: &str) -> Option<Self> {
        let mount = need("a cgroup v2 hierarchy", mount())?;
        let dir = mount.join(path.trim_start_matches('/'));
        let mut made = Vec::new();
        for ancestor in dir.ancestors().take_while(|a| *a != mount && !a.exists()) {
            made.push(ancestor.to_owned());
        }
        let path = format!("/{}", path.trim_start_matches('/'));
        let group = fs::create_dir_all(&dir).ok().map(|()| Self { path, dir, made });
        need("the right to make cgroups", group)
    }

    /// Lets `command` start inside.
    pub fn hold(&self, command: &mut Command) {
        let procs = self.dir.join("cgroup.procs");
        // SAFETY: opens, writes and closes one file, and allocates nothing: the
        // path was built before the fork.
        unsafe { command.pre_exec(move || enter(&procs)) };
    }

    /// Pids inside.
    pub fn members(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }
}

/// Writes `0`, which means the writer.
fn enter(procs: &Path) -> std::io::Result<()> {
    fs::write(procs, "0")
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // A group can be removed once its last process is gone.
            let what = format!("the processes of {} to end", self.path);
            wait_until(&what, SOON, || self.members().is_empty().then_some(()));
        }
        for dir in &self.made {
            // The group above may be in use by another test by now.
            let _ = fs::remove_dir(dir);
        }
    }
}
