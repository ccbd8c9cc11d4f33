//! What the agent may do, and how to say what it may not.

use std::error::Error;
use std::io;

/// A capability (`include/uapi/linux/capability.h`) that the source needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Load BPF programs and create maps (Linux 5.8; before it CAP_SYS_ADMIN).
    Bpf = 39,
    /// Tracing programs, and reading kernel memory from them.
    Perfmon = 38,
    /// Read descriptors and executables of other users' processes.
    SysPtrace = 19,
    /// List `/proc/PID/fd` of other users' processes.
    DacReadSearch = 2,
    /// Send signals to other users' processes.
    Kill = 5,
}

impl Capability {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::Kill => "CAP_KILL",
        }
    }
}

/// CAP_SYS_ADMIN implies CAP_BPF and CAP_PERFMON (`include/linux/capability.h`).
const SYS_ADMIN: u64 = 1 << 21;

/// The effective set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    effective: u64,
    root: bool,
}

impl Privileges {
    /// Those of this process, from `/proc/self/status`.
    pub fn of_self() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status
            .lines()
            .find_map(|l| l.strip_prefix("CapEff:"))
            .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
            .unwrap_or(0);
        Self { effective, root: rustix::process::geteuid().is_root() }
    }

    /// Whether `cap` is effective.
    pub fn has(self, cap: Capability) -> bool {
        let implied =
            matches!(cap, Capability::Bpf | Capability::Perfmon) && self.effective & SYS_ADMIN != 0;
        implied || self.effective & (1 << cap as u64) != 0
    }

    /// Those of `wanted` that are missing, by name.
    pub fn missing(self, wanted: &[Capability]) -> Vec<&'static str> {
        wanted.iter().filter(|c| !self.has(**c)).map(|c| c.name()).collect()
    }

    /// Why `what` was refused and what to grant, as one sentence.
    pub fn refusal(
        self,
        what: &str,
        error: &(dyn Error + 'static),
        wanted: &[Capability],
    ) -> String {
        let code = errno(error).map_or_else(|| root_cause(error), errno_name);
        let missing = self.missing(wanted);
        if missing.is_empty() {
            let hint = match errno(error) {
                Some(libc::EPERM | libc::EACCES) if self.root => {
                    "; the capabilities are there, so the kernel itself refuses \
                     (lockdown, a seccomp filter or a security module)"
                }
                _ => "",
            };
            return format!("{what}: {code}{hint}");
        }
        let list = missing.join(" and ");
        format!(
            "{what}: {code}; {list} missing: run as root, or grant with \
             AmbientCapabilities={} in the unit",
            missing.join(" ")
        )
    }
}

/// The errno at the bottom of an error chain.
pub fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(code) = e.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        next = e.source();
    }
    None
}

fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// `EPERM (Operation not permitted)`.
pub fn errno_name(code: i32) -> String {
    let name = match code {
        libc::EPERM => "EPERM",
        libc::EACCES => "EACCES",
        libc::ENOSYS => "ENOSYS",
        libc::EINVAL => "EINVAL",
        libc::ENOMEM => "ENOMEM",
        libc::ENOENT => "ENOENT",
        libc::ENOTSUP => "ENOTSUP",
        libc::E2BIG => "E2BIG",
        libc::EBUSY => "EBUSY",
        libc::EMFILE => "EMFILE",
        libc::EINTR => "EINTR",
        _ => return io::Error::from_raw_os_error(code).to_string(),
    };
    let text = io::Error::from_raw_os_error(code).to_string();
    format!("{name} ({})", text.split(" (os error").next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_errno_capability_and_remedy() {
        let nobody = Privileges { effective: 0, root: false };
        let error = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(
            nobody.refusal("loading BPF", &error, &[Capability::Bpf, Capability::Perfmon]),
            "loading BPF: EPERM (Operation not permitted); CAP_BPF and CAP_PERFMON missing: \
             run as root, or grant with AmbientCapabilities=CAP_BPF CAP_PERFMON in the unit"
        );
        let admin = Privileges { effective: SYS_ADMIN, root: true };
        assert!(admin.refusal("x", &error, &[Capability::Bpf]).contains("lockdown"));
        assert_eq!(admin.missing(&[Capability::Bpf, Capability::Kill]), ["CAP_KILL"]);
    }
}
