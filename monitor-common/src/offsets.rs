//! Where the running kernel keeps what the programs read.

/// Byte offsets into kernel structures, resolved from `/sys/kernel/btf/vmlinux`
/// when the agent starts and handed to the programs as a read-only global.
///
/// rustc emits no CO-RE relocations, so nothing is compiled in: the object is
/// the same on every kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is named STRUCT_MEMBER after the kernel's own")]
pub struct Offsets {
    pub task_tgid: u32,
    pub task_pid: u32,
    pub task_start_boottime: u32,
    pub task_group_leader: u32,
    pub task_real_parent: u32,
    pub task_flags: u32,
    pub task_exit_state: u32,
    pub task_comm: u32,
    pub task_exit_code: u32,
    pub task_signal: u32,
    pub signal_live: u32,
    pub signal_nr_threads: u32,
    pub task_files: u32,
    pub files_fdt: u32,
    pub fdt_max_fds: u32,
    pub fdt_fd: u32,
    pub fdt_close_on_exec: u32,
    pub fdt_open_fds: u32,
    pub file_f_pos: u32,
    pub file_f_flags: u32,
    pub file_f_inode: u32,
    pub file_f_path: u32,
    pub file_dentry: u32,
    pub dentry_name: u32,
    pub dentry_seq: u32,
    pub dentry_hash: u32,
    pub file_f_op: u32,
    pub file_private_data: u32,
    pub inode_i_ino: u32,
    pub inode_i_mode: u32,
    pub inode_i_nlink: u32,
    pub inode_i_size: u32,
    pub inode_i_blocks: u32,
    pub inode_i_sb: u32,
    pub super_s_dev: u32,
    pub super_s_magic: u32,
    pub super_s_flags: u32,
    pub socket_sk: u32,
    pub sock_family: u32,
    pub sock_state: u32,
    pub sock_type: u32,
    pub sock_num: u32,
    pub sock_dport: u32,
    pub sock_daddr: u32,
    /// `u32::MAX` where the kernel has no IPv6.
    pub sock_v6_daddr: u32,
    pub sock_protocol: u32,
    /// `u32::MAX` where the kernel does not count.
    pub tcp_bytes_sent: u32,
    /// Likewise.
    pub tcp_bytes_received: u32,
    /// Offsets of the six system-call arguments in `struct pt_regs`.
    pub regs_args: [u32; 6],
    /// Offset of the system-call number in `struct pt_regs`.
    pub regs_syscall: u32,
    /// Offset of the code segment in `struct pt_regs` on x86, whose 32-bit
    /// programs use other system-call numbers; `u32::MAX` elsewhere.
    pub regs_cs: u32,
    /// Offset of the stack pointer in `struct pt_regs`.
    pub regs_sp: u32,
    /// Bytes of `struct pt_regs` that are copied: all that is saved of user space.
    pub regs_size: u32,
    pub task_stack: u32,
    /// Where on the kernel's stack of a task the registers of its user space are saved; 0
    /// where the kernel tells by itself (`bpf_task_pt_regs`, Linux 5.15).
    pub stack_regs: u32,
}

impl Offsets {
    /// What the programs are compiled with; the agent replaces it.
    pub const ZERO: Self = Self {
        task_tgid: 0,
        task_pid: 0,
        task_start_boottime: 0,
        task_group_leader: 0,
        task_real_parent: 0,
        task_flags: 0,
        task_exit_state: 0,
        task_comm: 0,
        task_exit_code: 0,
        task_signal: 0,
        signal_live: 0,
        signal_nr_threads: 0,
        task_files: 0,
        files_fdt: 0,
        fdt_max_fds: 0,
        fdt_fd: 0,
        fdt_close_on_exec: 0,
        fdt_open_fds: 0,
        file_f_pos: 0,
        file_f_flags: 0,
        file_f_inode: 0,
        file_f_path: 0,
        file_dentry: 0,
        dentry_name: 0,
        dentry_seq: 0,
        dentry_hash: 0,
        file_f_op: 0,
        file_private_data: 0,
        inode_i_ino: 0,
        inode_i_mode: 0,
        inode_i_nlink: 0,
        inode_i_size: 0,
        inode_i_blocks: 0,
        inode_i_sb: 0,
        super_s_dev: 0,
        super_s_magic: 0,
        super_s_flags: 0,
        socket_sk: 0,
        sock_family: 0,
        sock_state: 0,
        sock_type: 0,
        sock_num: 0,
        sock_dport: 0,
        sock_daddr: 0,
        sock_v6_daddr: 0,
        sock_protocol: 0,
        tcp_bytes_sent: 0,
        tcp_bytes_received: 0,
        regs_args: [0; 6],
        regs_syscall: 0,
        regs_cs: 0,
        regs_sp: 0,
        regs_size: 0,
        task_stack: 0,
        stack_regs: 0,
    };
}

const _: () = assert!(size_of::<Offsets>() == 60 * 4);
