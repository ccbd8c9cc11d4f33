//! A process's descriptor table, as the kernel keeps it (`struct fdtable` of
//! `include/linux/fdtable.h`).

use crate::kernel::{off, probed};

/// Where the table is now; a larger one may take its place at any time, and
/// then this is the state of a moment ago.
#[derive(Clone, Copy)]
pub struct Table {
    fdt: *const u8,
    max_fds: u32,
}

impl Table {
    /// That of a `task_struct`; `None` when the task has let go of it.
    #[inline(always)]
    pub fn of_task(task: *const u8) -> Option<Self> {
        let files: *const u8 = probed(task, off!(task_files))?;
        if files.is_null() { None } else { Self::of_files(files) }
    }

    /// That of a `files_struct`.
    #[inline(always)]
    pub fn of_files(files: *const u8) -> Option<Self> {
        let fdt: *const u8 = probed(files, off!(files_fdt))?;
        Some(Self { fdt, max_fds: probed(fdt, off!(fdt_max_fds))? })
    }

    /// Whether `fd` is open.
    #[inline(always)]
    pub fn is_open(&self, fd: u32) -> bool {
        if fd >= self.max_fds {
            return false;
        }
        let Some(array) = probed::<*const u8>(self.fdt, off!(fdt_fd)) else { return false };
        probed::<u64>(array, fd as usize * 8).is_some_and(|file| file != 0)
    }

    /// 64 bits of the close-on-exec set, from number `64 * word` on.
    #[inline(always)]
    pub fn close_on_exec(&self, word: u32) -> u64 {
        if word * 64 >= self.max_fds {
            return 0;
        }
        let Some(set) = probed::<*const u8>(self.fdt, off!(fdt_close_on_exec)) else { return 0 };
        probed(set, word as usize * 8).unwrap_or(0)
    }
}
