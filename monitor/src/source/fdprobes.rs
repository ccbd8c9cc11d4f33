//! Which fd probes the running kernel allows, best first.

/// A set of programs that together see every way in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdProbes {
    /// `fentry` on the kernel's functions for descriptor tables; `release` is the
    /// one that takes a number out of a table.
    Table {
        /// Its name on the running kernel.
        release: &'static str,
    },
    /// `tp_btf` on the exit of every system call, which all of them pay for.
    Syscall,
}

/// What takes a number out of a table, by kernel: split off from `close_fd` in
/// Linux 6.7, called `pick_file` before, since 5.9. Where the compiler inlined
/// it, it can be attached to and stays silent: the self-test finds that out.
const RELEASES: [&str; 2] = ["file_close_fd_locked", "pick_file"];

impl FdProbes {
    /// All sets, in the order they are to be tried.
    pub fn all() -> impl Iterator<Item = Self> {
        RELEASES.into_iter().map(|release| Self::Table { release }).chain([Self::Syscall])
    }

    /// The kernel functions that it attaches to.
    pub fn functions(self) -> impl Iterator<Item = &'static str> {
        let table = self != Self::Syscall;
        self.programs().into_iter().filter(move |_| table).map(|(_, function)| function)
    }

    /// As in `leakwatch_source_state`.
    pub fn mechanism(self) -> &'static str {
        match self {
            Self::Table { .. } => "fentry",
            Self::Syscall => "tp_btf",
        }
    }

    /// System calls that touch no descriptor pay nothing, so the probes may stay.
    pub fn nearly_free(self) -> bool {
        matches!(self, Self::Table { .. })
    }

    /// (program, what it is attached to), in the order of attachment: releases
    /// first, so that none is missed of what the others see.
    pub fn programs(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Table { release } => vec![
                ("table_release", release),
                ("table_exec", "do_close_on_exec"),
                ("table_replace", "do_dup2"),
                ("table_install", "fd_install"),
            ],
            Self::Syscall => vec![("syscall_exit", "sys_exit")],
        }
    }
}
