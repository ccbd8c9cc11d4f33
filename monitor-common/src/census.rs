//! The census record: one open descriptor, as `iter/task_file` writes it.

/// Longest path the census copies, `PATH_MAX` of `include/uapi/linux/limits.h`.
pub const CENSUS_PATH_MAX: usize = 4096;

/// 64 bits each for the numbers that processes can have: `PID_MAX_LIMIT` of
/// `include/linux/threads.h`.
pub const CHOSEN_WORDS: u32 = (4 << 20) / 64;

/// [`CensusHeader::sock_family`] where the file is not a socket.
pub const SOCKET_NONE: u16 = 0xffff;

/// [`CensusHeader::path_len`] where an earlier pass has sent this path.
pub const PATH_KNOWN: i16 = i16::MIN;

/// [`CensusHeader::path_len`] where this kernel lets no iterator make a path
/// (before Linux 5.12): the agent asks `/proc` for it.
pub const PATH_REFUSED: i16 = i16::MIN + 1;

/// Fixed part of a record; `path_len` bytes of path follow, no terminator.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CensusHeader {
    /// Thread-group id of the owner.
    pub tgid: u32,
    /// The descriptor.
    pub fd: u32,
    /// Address of `struct file`: the identity of the open file description.
    /// It never leaves the agent.
    pub file: u64,
    /// `inode->i_ino`.
    pub inode: u64,
    /// `inode->i_size`, bytes. Of a socket, which has none, the first half of its peer's
    /// address (`skc_daddr`, `skc_v6_daddr`), in network order as it lies in memory.
    pub size: u64,
    /// `file->f_pos`, bytes. Of a socket `skc_num` in the lowest 16 bits, and in the next
    /// `skc_dport`, in network order.
    pub position: u64,
    /// `task->start_boottime` of the group leader, nanoseconds.
    pub start_ns: u64,
    /// `Birth::at_ns`, 0 where the probes saw no birth.
    pub birth_ns: u64,
    /// `Birth::stack`.
    pub birth_stack: i32,
    /// `Birth::tid`.
    pub birth_tid: u32,
    /// `inode->i_blocks`, units of 512 bytes. Of a socket the second half of its peer's
    /// address, where that is of IPv6.
    pub blocks: u64,
    /// `super_block->s_dev`, kernel encoding (major << 20 | minor).
    pub device: u32,
    /// `inode->i_nlink`. Of a TCP socket the bytes that it has sent and received, the lowest
    /// 32 bits of their sum.
    pub nlink: u32,
    /// `file->f_flags`.
    pub flags: u32,
    /// `inode->i_mode`.
    pub mode: u16,
    /// `sk->__sk_common.skc_family`, or [`SOCKET_NONE`].
    pub sock_family: u16,
    /// `sk->sk_type`.
    pub sock_type: u16,
    /// `sk->__sk_common.skc_state` (`include/net/tcp_states.h`).
    pub sock_state: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Bytes of path behind this header; negative errno where `bpf_d_path`
    /// refused; or [`PATH_KNOWN`]; or [`PATH_REFUSED`].
    pub path_len: i16,
}

const _: () = assert!(size_of::<CensusHeader>() == 96);
