//! What the figures depend on.

use std::fs;

use super::tools;
use crate::shell;

/// Name and value of each fact.
pub fn collect() -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let version = |program: &str, args: &[&str]| {
        shell::capture(shell::command(program).args(args))
            .ok()
            .and_then(|text| text.lines().next().map(str::to_owned))
            .unwrap_or_else(|| "not installed".to_owned())
    };
    vec![
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("processor", field(&read("/proc/cpuinfo"), "model name")),
        ("cores", cores.to_string()),
        ("memory", field(&read("/proc/meminfo"), "MemTotal")),
        ("load average at start", read("/proc/loadavg").trim().to_owned()),
        ("compiler", version("rustc", &["--version"])),
        ("bpftrace", version("bpftrace", &["--version"])),
        ("opensnoop", opensnoop().unwrap_or_else(|| "not installed".to_owned())),
        ("strace", version("strace", &["--version"])),
        ("revision", version("git", &["rev-parse", "--short=12", "HEAD"])),
    ]
}

/// Which one, and of which package where dpkg knows.
fn opensnoop() -> Option<String> {
    let path = tools::opensnoop()?;
    let package = shell::capture(shell::command("dpkg").arg("-S").arg(&path)).ok();
    let package = package.and_then(|line| line.split(':').next().map(str::to_owned));
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some(package.map_or(name.clone(), |package| format!("{name} of {package}")))
}
