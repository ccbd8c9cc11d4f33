//! What a `struct file` is, as far as its filesystem says.
//!
//! The kinds are those that the system call would have told, so that the counts
//! mean the same however they were made: whatever was opened by path is a file.

use leakwatch_common::KernelKind;

use crate::kernel::{off, probed, typed};

/// Filesystems of descriptors that have no path: `include/uapi/linux/magic.h`,
/// and `ipc/mqueue.c` for the last.
const SOCKFS: u64 = 0x534f_434b;
const PIPEFS: u64 = 0x5049_5045;
const ANON_INODE: u64 = 0x0904_1934;
const PIDFS: u64 = 0x5049_4446;
const TMPFS: u64 = 0x0102_1994;
const SECRETMEM: u64 = 0x5345_434d;
const MQUEUE: u64 = 0x1980_0202;
/// `include/linux/fs.h`: mounted by the kernel for itself, so a tmpfs file on it
/// is a memfd.
const SB_KERNMOUNT: u64 = 1 << 22;

/// The kind of a file.
///
/// # Safety
/// `file` is a pointer whose type the verifier knows.
#[inline(always)]
pub unsafe fn kind_of_file(file: *const u8) -> u16 {
    // SAFETY: typed, and so is what is loaded from it.
    let (sb, magic) = unsafe {
        let inode: *const u8 = typed(file, off!(file_f_inode));
        let sb: *const u8 = typed(inode, off!(inode_i_sb));
        (sb, typed::<u64>(sb, off!(super_s_magic)))
    };
    let kind = match magic {
        SOCKFS => KernelKind::Socket,
        PIPEFS => KernelKind::Pipe,
        PIDFS => KernelKind::Pidfd,
        SECRETMEM => KernelKind::Memfd,
        MQUEUE => KernelKind::Other,
        // SAFETY: a typed `super_block`.
        TMPFS if unsafe { typed::<u64>(sb, off!(super_s_flags)) } & SB_KERNMOUNT != 0 => {
            KernelKind::Memfd
        }
        // SAFETY: as the caller says.
        ANON_INODE => unsafe { anonymous(file) },
        _ => KernelKind::File,
    };
    kind as u16
}

/// All anonymous files share an inode or look alike; their names differ.
#[inline(always)]
unsafe fn anonymous(file: *const u8) -> KernelKind {
    // SAFETY: typed `struct file`, typed `struct dentry`.
    let name: *const u8 = unsafe {
        let dentry: *const u8 = typed(file, off!(file_dentry));
        typed(dentry, off!(dentry_name))
    };
    // Every name has room for eight bytes: it lies in the dentry or is longer.
    let Some(start) = probed::<[u8; 8]>(name, 0) else { return KernelKind::Other };
    let start = u64::from_le_bytes(start);
    const fn word(name: [u8; 8]) -> u64 {
        u64::from_le_bytes(name)
    }
    if start == word(*b"[eventpo") {
        KernelKind::Epoll
    } else if start == word(*b"[eventfd") {
        KernelKind::Eventfd
    } else if start == word(*b"[timerfd") {
        KernelKind::Timerfd
    } else if start == word(*b"[signalf") {
        KernelKind::Signalfd
    } else if start == word(*b"inotify\0") || start == word(*b"[fanotif") {
        KernelKind::Inotify
    } else if start == word(*b"[pidfd]\0") {
        KernelKind::Pidfd
    } else if start == word(*b"[io_urin") {
        KernelKind::IoUring
    } else if start == word(*b"[perf_ev") {
        KernelKind::Perf
    } else if start & 0xff_ffff == word(*b"bpf\0\0\0\0\0") || start == word(*b"btf\0\0\0\0\0") {
        KernelKind::Bpf
    } else {
        KernelKind::Other
    }
}
