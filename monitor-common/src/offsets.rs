//! Where the running kernel keeps what the programs read.

/// Byte offsets into kernel structures, resolved from `/sys/kernel/btf/vmlinux`
/// when the agent starts and handed to the programs as a read-only global.
///
/// rustc emits no CO-RE relocations, so nothing is compiled in: the object is
/// the same on every kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is named STRUCT_MEMBER after the kernel's own")]
pub struct Offsets {
    pub task_tgid: u32,
    pub task_pid: u32,
    pub task_start_boottime: u32,
    pub task_group_leader: u32,
    pub task_real_parent: u32,
    pub task_comm: u32,
    pub task_exit_code: u32,
    pub task_signal: u32,
    pub signal_live: u32,
    pub file_f_pos: u32,
    pub file_f_flags: u32,
    pub file_f_inode: u32,
    pub file_f_path: u32,
    pub file_private_data: u32,
    pub inode_i_ino: u32,
    pub inode_i_mode: u32,
    pub inode_i_nlink: u32,
    pub inode_i_size: u32,
    pub inode_i_blocks: u32,
    pub inode_i_sb: u32,
    pub super_s_dev: u32,
    pub socket_sk: u32,
    pub sock_family: u32,
    pub sock_state: u32,
    pub sock_type: u32,
    /// Bytes of `f_pos`, always 8; kept so that a change is refused, not misread.
    pub sock_type_size: u32,
    /// Offsets of the six system-call arguments in `struct pt_regs`.
    pub regs_args: [u32; 6],
    /// Offset of the system-call number in `struct pt_regs`.
    pub regs_syscall: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Offsets>() == 34 * 4);
