//! Resolves every kernel offset the programs need, or says which is missing.

use leakwatch_common::Offsets;

use super::btf::{Btf, BtfError};

/// All offsets for the running kernel.
///
/// # Errors
/// No BTF, or a member that is not there.
pub fn resolve(btf: &Btf) -> Result<Offsets, BtfError> {
    let at = |of: &str, member: &str| btf.offset(of, member);
    let (regs_args, regs_syscall, regs_cs) = registers(btf)?;
    let (regs_sp, regs_size) = user_space(btf)?;
    Ok(Offsets {
        task_tgid: at("task_struct", "tgid")?,
        task_pid: at("task_struct", "pid")?,
        task_start_boottime: at("task_struct", "start_boottime")?,
        task_group_leader: at("task_struct", "group_leader")?,
        task_real_parent: at("task_struct", "real_parent")?,
        task_flags: at("task_struct", "flags")?,
        task_exit_state: at("task_struct", "exit_state")?,
        task_comm: at("task_struct", "comm")?,
        task_exit_code: at("task_struct", "exit_code")?,
        task_signal: at("task_struct", "signal")?,
        signal_live: at("signal_struct", "live.counter")?,
        signal_nr_threads: at("signal_struct", "nr_threads")?,
        task_files: at("task_struct", "files")?,
        files_fdt: at("files_struct", "fdt")?,
        fdt_max_fds: at("fdtable", "max_fds")?,
        fdt_fd: at("fdtable", "fd")?,
        fdt_close_on_exec: at("fdtable", "close_on_exec")?,
        fdt_open_fds: at("fdtable", "open_fds")?,
        file_f_pos: at("file", "f_pos")?,
        file_f_flags: at("file", "f_flags")?,
        file_f_inode: at("file", "f_inode")?,
        file_f_path: at("file", "f_path")?,
        file_dentry: at("file", "f_path.dentry")?,
        dentry_name: at("dentry", "d_name.name")?,
        // `seqcount_spinlock_t` wraps a `seqcount_t` since Linux 5.10.
        dentry_seq: at("dentry", "d_seq.seqcount.sequence")
            .or_else(|_| at("dentry", "d_seq.sequence"))?,
        dentry_hash: at("dentry", "d_name.hash")?,
        file_f_op: at("file", "f_op")?,
        file_private_data: at("file", "private_data")?,
        inode_i_ino: at("inode", "i_ino")?,
        inode_i_mode: at("inode", "i_mode")?,
        inode_i_nlink: at("inode", "i_nlink")?,
        inode_i_size: at("inode", "i_size")?,
        inode_i_blocks: at("inode", "i_blocks")?,
        inode_i_sb: at("inode", "i_sb")?,
        super_s_dev: at("super_block", "s_dev")?,
        super_s_magic: at("super_block", "s_magic")?,
        super_s_flags: at("super_block", "s_flags")?,
        socket_sk: at("socket", "sk")?,
        sock_family: at("sock", "__sk_common.skc_family")?,
        sock_state: at("sock", "__sk_common.skc_state")?,
        sock_type: at("sock", "sk_type")?,
        sock_num: at("sock", "__sk_common.skc_num")?,
        sock_dport: at("sock", "__sk_common.skc_dport")?,
        sock_daddr: at("sock", "__sk_common.skc_daddr")?,
        sock_v6_daddr: at("sock", "__sk_common.skc_v6_daddr").unwrap_or(u32::MAX),
        sock_protocol: at("sock", "sk_protocol")?,
        tcp_bytes_sent: at("tcp_sock", "bytes_sent").unwrap_or(u32::MAX),
        tcp_bytes_received: at("tcp_sock", "bytes_received").unwrap_or(u32::MAX),
        regs_args,
        regs_syscall,
        regs_cs,
        regs_sp,
        regs_size,
        task_stack: at("task_struct", "stack")?,
        stack_regs: saved_at(btf)?,
    })
}

/// Helpers that tell where the registers of user space are saved (Linux 5.11 and 5.15).
const TELL: [&str; 2] = ["bpf_get_current_task_btf", "bpf_task_pt_regs"];

/// Where they are on the stack of a kernel that does not tell: at its end. How large the
/// stack is, no type says: `THREAD_SIZE` of x86-64 without KASAN, and of arm64, where it
/// is no less than a page. Such kernels leave no padding at the end, which came with FRED
/// in Linux 6.9.
fn saved_at(btf: &Btf) -> Result<u32, BtfError> {
    if btf.functions(|name| TELL.contains(&name)).len() == TELL.len() {
        return Ok(0);
    }
    let size = (16 << 10).max(rustix::param::page_size() as u32);
    Ok(size - btf.size("pt_regs")?)
}

/// What the unwinder wants: by number of DWARF, where `struct pt_regs` has it.
pub type Saved = Vec<(u16, u32)>;

/// Callee-saved registers and the stack pointer by the numbers of DWARF, and the address
/// of the instruction as that of the return address (x86-64 psABI 1.0, figure 3.36).
///
/// # Errors
/// A register that is not there.
#[cfg(target_arch = "x86_64")]
pub fn saved(btf: &Btf) -> Result<Saved, BtfError> {
    let names = [
        (3, "bx"),
        (6, "bp"),
        (7, "sp"),
        (12, "r12"),
        (13, "r13"),
        (14, "r14"),
        (15, "r15"),
        (16, "ip"),
    ];
    names.into_iter().map(|(n, name)| Ok((n, btf.offset("pt_regs", name)?))).collect()
}

/// As they are numbered anyhow; the address of the instruction as 32 (DWARF for the Arm
/// 64-bit architecture, 4.1).
///
/// # Errors
/// A register that is not there.
#[cfg(not(target_arch = "x86_64"))]
pub fn saved(btf: &Btf) -> Result<Saved, BtfError> {
    let first =
        btf.offset("pt_regs", "user_regs.regs").or_else(|_| btf.offset("pt_regs", "regs"))?;
    let mut saved: Saved = (19..=30).map(|n| (n, first + 8 * u32::from(n))).collect();
    for (n, name) in [(31, "sp"), (32, "pc")] {
        let of = |name: &str| btf.offset("pt_regs", name);
        saved.push((n, of(&format!("user_regs.{name}")).or_else(|_| of(name))?));
    }
    Ok(saved)
}

/// Where the stack pointer is, and how much there is of user space.
#[cfg(target_arch = "x86_64")]
fn user_space(btf: &Btf) -> Result<(u32, u32), BtfError> {
    Ok((btf.offset("pt_regs", "sp")?, btf.offset("pt_regs", "ss")? + 8))
}

/// The same on arm64.
#[cfg(not(target_arch = "x86_64"))]
fn user_space(btf: &Btf) -> Result<(u32, u32), BtfError> {
    let of = |name: &str| {
        btf.offset("pt_regs", &format!("user_regs.{name}")).or_else(|_| btf.offset("pt_regs", name))
    };
    Ok((of("sp")?, of("pstate")? + 8))
}

/// The registers of the six arguments, of the number, and the code segment.
#[cfg(target_arch = "x86_64")]
fn registers(btf: &Btf) -> Result<([u32; 6], u32, u32), BtfError> {
    let mut args = [0; 6];
    for (slot, name) in args.iter_mut().zip(["di", "si", "dx", "r10", "r8", "r9"]) {
        *slot = btf.offset("pt_regs", name)?;
    }
    Ok((args, btf.offset("pt_regs", "orig_ax")?, btf.offset("pt_regs", "cs")?))
}

/// On arm64 and others `pt_regs` holds an array, and the first argument's
/// register takes the return value, so the saved copy is read instead.
#[cfg(not(target_arch = "x86_64"))]
fn registers(btf: &Btf) -> Result<([u32; 6], u32, u32), BtfError> {
    let base =
        btf.offset("pt_regs", "user_regs.regs").or_else(|_| btf.offset("pt_regs", "regs"))?;
    let mut args = [0; 6];
    for (i, slot) in args.iter_mut().enumerate() {
        *slot = base + 8 * i as u32;
    }
    args[0] = btf.offset("pt_regs", "orig_x0")?;
    Ok((args, btf.offset("pt_regs", "syscallno")?, u32::MAX))
}
