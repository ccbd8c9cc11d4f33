//! The census: what is open now.
//!
//! | | |
//! |---|---|
//! | event | `iter/task_file` (`kernel/bpf/task_iter.c`, Linux 5.8) |
//! | fallback | the agent reads `/proc/PID/fd` and `fdinfo` |
//! | cost | nothing until it is read; then about 0.6 µs per descriptor with its path |
//! | blind | tables of threads that unshared theirs; descriptors of io_uring's fixed table |

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{path, seq_file},
    helpers::generated::{bpf_d_path, bpf_seq_write},
};
use leakwatch_common::{BirthKey, CENSUS_PATH_MAX, CensusHeader, NO_STACK, SOCKET_NONE};

use crate::{
    kernel::{off, probed, typed},
    maps::{BIRTHS, SCRATCH},
};

/// `struct bpf_iter__task_file` of `kernel/bpf/task_iter.c`. Its layout is part
/// of the interface between kernel and iterator programs.
#[repr(C)]
pub struct TaskFile {
    meta: *const Meta,
    task: *const u8,
    fd: u32,
    file: *const u8,
}

/// `struct bpf_iter_meta` of `include/linux/bpf.h`.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// Called once per (task, descriptor), and once with neither at the end.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn census(ctx: *mut TaskFile) -> i32 {
    // SAFETY: the kernel passes this context; the verifier checks each load.
    let _ = unsafe { try_census(ctx) };
    0
}

#[inline(always)]
unsafe fn try_census(ctx: *mut TaskFile) -> Option<()> {
    // SAFETY: loads of the context, which the verifier types.
    let (task, file, fd) = unsafe { ((*ctx).task, (*ctx).file, (*ctx).fd) };
    if task.is_null() || file.is_null() {
        return None;
    }
    // SAFETY: `task` and `file` are typed and not null; members by offset.
    unsafe {
        let tgid: u32 = typed(task, off!(task_tgid));
        // A thread is only listed when it has a table of its own, and then its
        // numbers would be mistaken for those of the process.
        if tgid != typed::<u32>(task, off!(task_pid)) {
            return None;
        }
        let record = SCRATCH.get_ptr_mut(0)?;
        let inode: *const u8 = typed(file, off!(file_f_inode));
        let sb: *const u8 = typed(inode, off!(inode_i_sb));
        let mode: u16 = typed(inode, off!(inode_i_mode));
        let header = &raw mut (*record).header;
        *header = CensusHeader {
            tgid,
            fd,
            file: file as u64,
            inode: typed(inode, off!(inode_i_ino)),
            size: typed(inode, off!(inode_i_size)),
            position: typed(file, off!(file_f_pos)),
            start_ns: typed(task, off!(task_start_boottime)),
            birth_ns: 0,
            birth_stack: NO_STACK,
            birth_tid: 0,
            blocks: typed(inode, off!(inode_i_blocks)),
            device: typed(sb, off!(super_s_dev)),
            nlink: typed(inode, off!(inode_i_nlink)),
            flags: typed(file, off!(file_f_flags)),
            mode,
            birth_syscall: 0,
            sock_family: SOCKET_NONE,
            sock_type: 0,
            sock_state: 0,
            pad: 0,
            path_len: 0,
        };
        if let Some(birth) = BIRTHS.get_ptr(BirthKey { tgid, fd }) {
            (*header).birth_ns = (*birth).at_ns;
            (*header).birth_stack = (*birth).stack;
            (*header).birth_tid = (*birth).tid;
            (*header).birth_syscall = (*birth).syscall;
        }
        if mode & S_IFMT == S_IFSOCK {
            socket(file, header);
        }
        let buffer = &raw mut (*record).path;
        let written = bpf_d_path(
            file.add(off!(file_f_path)).cast_mut().cast::<path>(),
            buffer.cast(),
            CENSUS_PATH_MAX as u32,
        );
        // The helper counts the terminator.
        let len = if written > 0 && written <= CENSUS_PATH_MAX as i64 { written - 1 } else { 0 };
        (*header).path_len = if written > 0 { len as i16 } else { written as i16 };
        let total = size_of::<CensusHeader>() as u32 + (len as u32 & 0xfff);
        bpf_seq_write((*(*ctx).meta).seq, record.cast::<c_void>(), total);
    }
    Some(())
}

/// `struct socket` behind `private_data`; `struct sock` behind that.
#[inline(always)]
unsafe fn socket(file: *const u8, header: *mut CensusHeader) {
    // SAFETY: `file` is typed; the rest is probed, for `private_data` has no type.
    unsafe {
        let socket: *const u8 = typed(file, off!(file_private_data));
        let Some(sk) = probed::<*const u8>(socket, off!(socket_sk)) else { return };
        if sk.is_null() {
            return;
        }
        if let Some(family) = probed::<u16>(sk, off!(sock_family)) {
            (*header).sock_family = family;
        }
        if let Some(state) = probed::<u8>(sk, off!(sock_state)) {
            (*header).sock_state = state;
        }
        if let Some(kind) = probed::<u16>(sk, off!(sock_type)) {
            (*header).sock_type = kind;
        }
    }
}
