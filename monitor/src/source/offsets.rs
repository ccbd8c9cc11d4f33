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
        regs_args,
        regs_syscall,
        regs_cs,
    })
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
