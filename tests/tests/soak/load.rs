//! The churn, and what it says that it did.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leakwatch_tests::cgroup::Cgroup;
use leakwatch_tests::started::{Started, program};

const LIMIT: Duration = Duration::from_secs(30);

/// What the churn did, by its own count.
#[derive(Debug)]
pub struct Did {
    /// Descriptors it opened in its own process.
    pub opens: u64,
    /// Of which so many were eventfds.
    pub eventfds: u64,
    /// Processes it started.
    pub forks: u64,
}

/// A running churn with its services.
pub struct Load {
    // Ended first: its services go with it, and then their cgroups.
    churn: Started,
    groups: Groups,
}

impl Load {
    /// Starts it; it waits for [`Self::go`].
    pub fn start(slice: &Path, home: &Cgroup, prefix: &str, time: Duration) -> Self {
        let mut command = program("churn");
        let rate = units_per_second(time).to_string();
        command.args(["--tag", "t-soak", "--units", &rate, "--prefix", prefix, "--cgroup"]);
        command.arg(slice);
        home.hold(&mut command);
        let mut churn = Started::new(&mut command);
        churn.ready(LIMIT);
        Self { churn, groups: Groups { slice: slice.to_owned(), prefix: prefix.to_owned() } }
    }

    /// Lets it storm.
    pub fn go(&mut self) {
        self.churn.tell("go");
    }

    /// Lets it stand still.
    pub fn still(&mut self) -> Did {
        self.churn.tell("still");
        let said = self.churn.hear("quiet", LIMIT);
        let numbers: Vec<u64> = said.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [opens, eventfds, forks] = numbers[..] else { panic!("it said {said:?}") };
        Did { opens, eventfds, forks }
    }

    /// The process that opened.
    pub fn pid(&self) -> u32 {
        self.churn.pid()
    }

    /// How the names of its services begin.
    pub fn prefix(&self) -> &str {
        &self.groups.prefix
    }

    /// Its living services, with their processes.
    pub fn services(&self) -> Vec<(String, Vec<u32>)> {
        self.groups
            .all()
            .iter()
            .filter_map(|dir| {
                let pids = members(dir);
                let name = dir.file_name()?.to_str()?.to_owned();
                (!pids.is_empty()).then_some((name, pids))
            })
            .collect()
    }
}

/// Of units that have gone the agent keeps 4096. A long run fills them up in its
/// first third, so that what grows after that is something else.
fn units_per_second(time: Duration) -> f64 {
    const KEPT: f64 = 4096.0;
    if time < Duration::from_secs(300) {
        2.0
    } else {
        (KEPT * 1.2 * 3.0 / time.as_secs_f64()).max(2.0)
    }
}

/// The cgroups of services in a slice, by how their names begin; removed when it is
/// dropped.
struct Groups {
    slice: PathBuf,
    prefix: String,
}

impl Groups {
    fn all(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.slice) else { return Vec::new() };
        let is = |e: &fs::DirEntry| e.file_name().to_string_lossy().starts_with(&self.prefix);
        entries.flatten().filter(is).map(|e| e.path()).filter(|path| path.is_dir()).collect()
    }
}

fn members(dir: &Path) -> Vec<u32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

impl Drop for Groups {
    fn drop(&mut self) {
        // Processes are gone a moment after the kill that ended them.
        for _ in 0..200 {
            let left = self.all().into_iter().filter(|dir| fs::remove_dir(dir).is_err()).count();
            if left == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
