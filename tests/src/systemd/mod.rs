//! A machine with a real systemd as PID 1: not virtual, but with its own pids,
//! mounts and cgroups, over the host's own root. It starts in about a second.
//!
//! Whoever ends it, and be it a panic, takes every process of it along: PID 1 is
//! killed with its parent, and with PID 1 the whole of its pid namespace.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::agent::{Agent, Plan};
use crate::cgroup;
use crate::component::{need, need_program, need_root};
use crate::started::{inherit_nothing, program_dir};
use crate::wait::{SOON, wait_until};

/// Booting, at most: a busy machine takes its time.
const BOOT: Duration = Duration::from_secs(60);

/// What the names of their cgroups begin with; the pid of the suite follows.
const PREFIX: &str = "leakwatch-systemd-";

const TARGET: &str = "[Unit]\nRequires=dbus.socket dbus.service\nAfter=dbus.socket dbus.service\n";

/// The machine; gone when dropped.
pub struct Machine {
    unshare: Child,
    pid1: u32,
    cgroup: PathBuf,
    dir: TempDir,
}

impl Machine {
    /// Boots one with these unit files, none of them started. `None` where the
    /// host does not let us: see [`need`].
    ///
    /// # Panics
    /// It does not come up.
    #[track_caller]
    pub fn boot(units: &[(&str, &str)]) -> Option<Self> {
        need_root()?;
        for program in ["unshare", "nsenter", "pivot_root", "setpriv", "dbus-daemon", "systemctl"] {
            need_program(program)?;
        }
        let systemd = Path::new("/lib/systemd/systemd");
        need("systemd", systemd.exists().then_some(()))?;
        let mount = need("a cgroup v2 hierarchy", cgroup::mount())?;
        sweep(&mount);
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = mount.join(format!("{PREFIX}{}-{number}", std::process::id()));
        need("the right to make cgroups", fs::create_dir(&cgroup).ok())?;

        let dir = TempDir::with_prefix("leakwatch-systemd-").expect("a temporary directory");
        let (box_dir, units_dir) = (dir.path().join("box"), dir.path().join("units"));
        for made in [&box_dir, &units_dir] {
            fs::create_dir(made).expect("a directory");
        }
        let target = [("leakwatch-test.target", TARGET)];
        for (name, text) in units.iter().chain(&target) {
            fs::write(units_dir.join(name), text).expect("a unit file");
        }
        // What the suite and the agent have made may lie on other filesystems.
        let keep = [std::env::temp_dir(), program_dir()].map(|d| d.display().to_string());
        let mut command = Command::new("unshare");
        command.args(["--cgroup", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc"]);
        command.args(["sh", "-c", include_str!("boot.sh")]);
        command.env("BOX", &box_dir).env("UNITS", &units_dir).env("KEEP", keep.join(" "));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        inherit_nothing(&mut command);
        let procs = cgroup.join("cgroup.procs");
        let enter = move || {
            fs::write(&procs, "0")?;
            // SAFETY: takes no address.
            match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: opens, writes and closes one file and makes a system call; the
        // path was built before the fork.
        unsafe { command.pre_exec(enter) };
        let unshare = command.spawn().expect("unshare starts");
        let mut machine = Self { unshare, pid1: 0, cgroup, dir };
        machine.pid1 = machine.wait_for_boot();
        Some(machine)
    }

    #[track_caller]
    fn wait_for_boot(&mut self) -> u32 {
        let parent = self.unshare.id();
        let children = format!("/proc/{parent}/task/{parent}/children");
        let pid1 = wait_until("systemd to start", BOOT, || {
            if let Some(status) = self.unshare.try_wait().expect("a child can be waited for") {
                panic!("systemd did not start: {status}; its errors are above");
            }
            let child: u32 = fs::read_to_string(&children).ok()?.trim().parse().ok()?;
            (fs::read_to_string(format!("/proc/{child}/comm")).ok()? == "systemd\n")
                .then_some(child)
        });
        self.pid1 = pid1;
        wait_until("the target to be reached", BOOT, || {
            let state = self.command(&["systemctl", "is-active", "leakwatch-test.target"]).output();
            (state.ok()?.stdout == b"active\n").then_some(())
        });
        pid1
    }

    /// A command line that runs `line` inside.
    pub fn inside(&self, line: &[&str]) -> Vec<String> {
        let pid1 = self.pid1.to_string();
        let enter = ["nsenter", "-t", &pid1, "-a"];
        enter.iter().chain(line).map(ToString::to_string).collect()
    }

    /// The command that runs `line` inside.
    pub fn command(&self, line: &[&str]) -> Command {
        let line = self.inside(line);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).stdin(Stdio::null());
        inherit_nothing(&mut command);
        command
    }

    /// Runs `line` inside and gives what it wrote.
    ///
    /// # Panics
    /// It failed.
    #[track_caller]
    pub fn run(&self, line: &[&str]) -> String {
        let output = self.command(line).output().expect("nsenter starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line:?}: {}: {errors}", output.status);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// A property as `systemctl show` has it.
    #[track_caller]
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.run(&["systemctl", "show", "--value", "-p", property, unit])
    }

    /// Starts an agent inside. It does without BPF: programs that it loads would see
    /// the host's pids, which are others than its own /proc has.
    #[track_caller]
    pub fn agent(&self, config: &str) -> Agent {
        let wrapper = self.inside(&["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin"]);
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        Plan::new(config).under(&wrapper).start()
    }

    /// Sends systemd itself a signal.
    ///
    /// # Panics
    /// It has ended.
    #[track_caller]
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes no address; PID 1 lives as long as its namespace.
        let sent = unsafe { libc::kill(self.pid1 as libc::pid_t, signal) };
        assert_eq!(sent, 0, "systemd cannot be signalled");
    }

    /// A directory of the host that is seen inside, too.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The machine's cgroup, as a path in the host's hierarchy.
    ///
    /// # Panics
    /// It has no name.
    pub fn cgroup(&self) -> String {
        self.cgroup.file_name().expect("it has a name").to_string_lossy().into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Takes PID 1 along, and that all others.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // The kernel empties them soon. A second panic would hide the first.
        let (begun, gone) = (Instant::now(), || remove_tree(&self.cgroup).is_ok());
        while !gone() {
            if begun.elapsed() > SOON {
                assert!(std::thread::panicking(), "{} stays", self.cgroup.display());
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Cgroups of machines whose suite was killed: no process is in them any more.
fn sweep(mount: &Path) {
    let Ok(entries) = fs::read_dir(mount) else { return };
    for dir in entries.flatten().map(|e| e.path()) {
        let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = remove_tree(&dir);
        }
    }
}

/// Removes a cgroup and those below it.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}
