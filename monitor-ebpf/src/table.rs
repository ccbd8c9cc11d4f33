//! A process's descriptor table, as the kernel keeps it (`struct fdtable` of
//! `include/linux/fdtable.h`).

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use leakwatch_common::numbers_mixed;

use crate::kernel::{off, probed};

/// Words of a set that are read at once.
pub const CHUNK: u32 = 64;
/// A table with more numbers is not counted: the verifier follows every round.
const COUNTED_MAX: u32 = 262_144;

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

    /// How many numbers are in use, and a hash of which; `None` past
    /// [`COUNTED_MAX`] numbers. `words` is room to work in.
    #[inline(always)]
    pub fn in_use(&self, words: *mut [u64; CHUNK as usize]) -> Option<(u32, u64)> {
        let set = probed::<*const u8>(self.fdt, off!(fdt_open_fds))?;
        let all = self.max_fds / 64;
        let (mut count, mut hash, mut at) = (0, 0_u64, 0);
        for _ in 0..COUNTED_MAX / 64 / CHUNK {
            if at >= all {
                break;
            }
            let n = if all - at > CHUNK { CHUNK } else { all - at };
            // SAFETY: the helper checks the source; the room is that of `words`.
            let read = unsafe {
                bpf_probe_read_kernel(
                    words.cast(),
                    (n & (2 * CHUNK - 1)) * 8,
                    set.wrapping_add(at as usize * 8).cast(),
                )
            };
            if read != 0 {
                return None;
            }
            for i in 0..CHUNK {
                if i >= n {
                    break;
                }
                // SAFETY: `i` is in bounds.
                let word = unsafe { (*words)[i as usize] };
                count += word.count_ones();
                hash = hash.wrapping_add(numbers_mixed(word, at + i));
            }
            at += CHUNK;
        }
        (at >= all).then_some((count, hash))
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
