//! The census: what is open now.
//!
//! | | |
//! |---|---|
//! | event | `iter/task_file` (`kernel/bpf/task_iter.c`, Linux 5.8) |
//! | fallback | the agent reads `/proc/PID/fd` and `fdinfo` |
//! | cost | nothing until it is read; then about 0.2 µs per descriptor, twice that with its path |
//! | blind | tables of threads that unshared theirs; descriptors of io_uring's fixed table |

use core::ffi::c_void;

use aya_ebpf::{
    bindings::path,
    helpers::generated::{bpf_d_path, bpf_seq_write},
};
use leakwatch_common::{
    BirthKey, CENSUS_PATH_MAX, CensusHeader, NO_STACK, PATH_EPOCHS, PATH_KNOWN, PATH_REFUSED,
    SOCKET_NONE, Settings,
};

use crate::{
    births::known,
    kernel::{IterMeta, off, probed, typed},
    maps::{CensusRecord, PATH_SETS, PATHS, PathSet, SCRATCH, chosen, settings},
};

/// `struct bpf_iter__task_file` of `kernel/bpf/task_iter.c`. Its layout is part
/// of the interface between kernel and iterator programs.
#[repr(C)]
pub struct TaskFile {
    meta: *const IterMeta,
    task: *const u8,
    fd: u32,
    file: *const u8,
}

const S_IFMT: u16 = 0o170_000;
/// `include/linux/socket.h`.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `include/uapi/linux/in.h`.
const IPPROTO_TCP: u16 = 6;
const SOCK_STREAM: u16 = 1;
const S_IFSOCK: u16 = 0o140_000;

/// Called once per (task, descriptor), and once with neither at the end.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn census(ctx: *mut TaskFile) -> i32 {
    // SAFETY: the kernel passes this context; the verifier checks each load.
    let _ = unsafe { try_census::<true>(ctx) };
    0
}

/// The same where `bpf_d_path` is not for iterators (before Linux 5.12).
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn census_pathless(ctx: *mut TaskFile) -> i32 {
    // SAFETY: as above.
    let _ = unsafe { try_census::<false>(ctx) };
    0
}

#[inline(always)]
unsafe fn try_census<const NAMED: bool>(ctx: *mut TaskFile) -> Option<()> {
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
        let settings = settings()?;
        let part = settings.chosen != 0;
        if part && !chosen(tgid) {
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
            sock_family: SOCKET_NONE,
            sock_type: 0,
            sock_state: 0,
            pad: [0; 3],
            path_len: 0,
        };
        if settings.births != 0
            && let Some(birth) = known(BirthKey { tgid, fd })
        {
            (*header).birth_ns = (*birth).at_ns;
            (*header).birth_stack = (*birth).stack;
            (*header).birth_tid = (*birth).tid;
        }
        if mode & S_IFMT == S_IFSOCK {
            socket(file, header);
        }
        let (set, mark) = mark(settings, record, file)?;
        let [a, b, c, d] = *set;
        // What a pass in part sends is not kept for later passes.
        let known = !part && (a == mark || b == mark || c == mark || d == mark);
        let seq = (*(*ctx).meta).seq;
        let fixed = size_of::<CensusHeader>() as u32;
        if known || !NAMED {
            (*header).path_len = if known { PATH_KNOWN } else { PATH_REFUSED };
            if bpf_seq_write(seq, record.cast::<c_void>(), fixed) == 0 && !known && !part {
                *set = [mark, a, b, c];
            }
            return Some(());
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
        // Where the buffer is full the kernel drops the record and comes again
        // with the same descriptor: nobody has its path yet.
        let written = bpf_seq_write(seq, record.cast::<c_void>(), fixed + (len as u32 & 0xfff));
        if written == 0 && !part {
            *set = [mark, a, b, c];
        }
    }
    Some(())
}

/// Where it is noted whether the agent has the path from an earlier pass, and
/// the mark that says so.
///
/// The mark of a file changes with what its path is made of: the entry of its
/// directory, and the count that a rename of it raises (`fs/dcache.c: __d_move`).
/// Only the rename of a directory above goes unnoticed, until its epoch ends.
/// Addresses are given out again, and on a busy host all of a file's at once, so
/// what the file is has to be in it, too: the inode's number, the name's hash
/// (salted with its directory), and the operations, by which those without an
/// inode of their own differ (eventfd, timerfd).
#[inline(always)]
unsafe fn mark(
    settings: &Settings,
    record: *mut CensusRecord,
    file: *const u8,
) -> Option<(*mut PathSet, u32)> {
    // SAFETY: typed `struct file` and `struct dentry`; the record is a map value
    // whose header is complete and whose path is not made yet.
    let (inode, device) = unsafe { ((*record).header.inode, (*record).header.device) };
    // SAFETY: likewise.
    let (seq, hash, [file, dentry, operations]) = unsafe {
        let dentry: *const u8 = typed(file, off!(file_dentry));
        // The verifier lets nobody calculate with typed pointers; what is read
        // back from a map has no type.
        let plain = (&raw mut (*record).path).cast::<[u64; 3]>();
        let operations: *const u8 = typed(file, off!(file_f_op));
        core::ptr::write_volatile(plain, [file as u64, dentry as u64, operations as u64]);
        let seq: u32 = typed(dentry, off!(dentry_seq));
        (seq, typed::<u32>(dentry, off!(dentry_hash)), core::ptr::read_volatile(plain))
    };
    // Slab objects differ in their middle bits; a multiplication carries them up.
    let place = (file >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let epoch = settings.path_epochs[place as usize & (PATH_EPOCHS - 1)];
    let mark = (file >> 6)
        .wrapping_add((dentry >> 6).wrapping_mul(31))
        .wrapping_add(inode.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(u64::from(device) << 12)
        .wrapping_add(u64::from(hash).wrapping_mul(0xc2b2_ae3d_27d4_eb4f))
        .wrapping_add(operations >> 3)
        .wrapping_add(u64::from(seq) << 40)
        .wrapping_add(u64::from(epoch) << 20)
        .wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mark = (mark >> 32) as u32 | 1;
    let set = PATHS.get_ptr_mut((place as u32 >> 8) & (PATH_SETS - 1))?;
    Some((set, mark))
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
        let Some(family) = probed::<u16>(sk, off!(sock_family)) else { return };
        (*header).sock_family = family;
        (*header).size = 0;
        (*header).blocks = 0;
        (*header).position = 0;
        if family == AF_INET || family == AF_INET6 {
            peer(sk, family, header);
        }
        if let Some(state) = probed::<u8>(sk, off!(sock_state)) {
            (*header).sock_state = state;
        }
        let Some(kind) = probed::<u16>(sk, off!(sock_type)) else { return };
        (*header).sock_type = kind;
        if kind == SOCK_STREAM && (family == AF_INET || family == AF_INET6) {
            traffic(sk, header);
        }
    }
}

/// What has gone over a TCP socket, in a field that a socket has no use for. What the
/// kernel's keepalive sends is not in it.
#[inline(always)]
unsafe fn traffic(sk: *const u8, header: *mut CensusHeader) {
    // SAFETY: the header is of a map value; all else is probed. A `struct tcp_sock` begins
    // with its `struct sock` where that is of TCP.
    unsafe {
        // MPTCP and SCTP have such sockets, too.
        let counted = off!(tcp_bytes_sent) != u32::MAX as usize
            && off!(tcp_bytes_received) != u32::MAX as usize;
        if !counted || probed::<u16>(sk, off!(sock_protocol)) != Some(IPPROTO_TCP) {
            return;
        }
        let Some(sent) = probed::<u64>(sk, off!(tcp_bytes_sent)) else { return };
        let Some(received) = probed::<u64>(sk, off!(tcp_bytes_received)) else { return };
        (*header).nlink = sent.wrapping_add(received) as u32;
    }
}

/// Ports, and the peer's address, in the fields that a socket has no use for.
#[inline(always)]
unsafe fn peer(sk: *const u8, family: u16, header: *mut CensusHeader) {
    // SAFETY: the header is of a map value; all else is probed.
    unsafe {
        let Some(num) = probed::<u16>(sk, off!(sock_num)) else { return };
        let Some(port) = probed::<u16>(sk, off!(sock_dport)) else { return };
        (*header).position = u64::from(num) | u64::from(port) << 16;
        if family == AF_INET {
            if let Some(address) = probed::<u32>(sk, off!(sock_daddr)) {
                (*header).size = u64::from(address);
            }
        } else if off!(sock_v6_daddr) != u32::MAX as usize
            && let Some([first, second]) = probed::<[u64; 2]>(sk, off!(sock_v6_daddr))
        {
            ((*header).size, (*header).blocks) = (first, second);
        }
    }
}
