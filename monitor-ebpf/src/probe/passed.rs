//! Descriptors that arrive over a unix socket (`SCM_RIGHTS`).
//!
//! recvmsg is common and passing is not, so a message without control data
//! costs one read. recvmmsg is not followed: the census finds what it brings.

use aya_ebpf::programs::BtfTracePointContext;
use leakwatch_common::{KernelKind, Loss};

use super::{owner::acquire, syscall::user};
use crate::{
    kernel::{WALK, constant},
    maps::lost,
};

/// `struct user_msghdr` of `include/linux/socket.h`, 64 bit.
#[repr(C)]
#[derive(Clone, Copy)]
struct MsgHdr {
    name: u64,
    name_len: u64,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
    flags: u64,
}

/// `struct cmsghdr`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CmsgHdr {
    len: u64,
    level: u32,
    kind: u32,
}

const HEADER: u64 = size_of::<CmsgHdr>() as u64;
const SOL_SOCKET: u32 = 1;
const SCM_RIGHTS: u32 = 1;
/// Descriptors of one message that are followed, of up to 253 (`SCM_MAX_FD` of
/// `include/net/scm.h`): the verifier walks every round of the loop.
const MAX_FDS: u64 = 16;
/// Control messages looked at; credentials and timestamps may come first.
const MAX_CMSGS: usize = 4;

/// After a successful recvmsg: finds SCM_RIGHTS and remembers its descriptors.
#[inline(always)]
pub fn receive(ctx: &BtfTracePointContext, msg: *const u8) -> Option<()> {
    let (at, count) = find(msg)?;
    let most = u64::from(constant(&WALK)).min(MAX_FDS);
    for i in 0..MAX_FDS {
        if i >= count {
            return Some(());
        }
        if i >= most {
            break;
        }
        let fd: u32 = user((at + i * 4) as *const u8)?;
        acquire(ctx, fd, KernelKind::Other as u16);
    }
    if count > most {
        lost(Loss::Passed);
    }
    Some(())
}

/// Where the descriptors are and how many. The kernel joins all that a message
/// passes in one control message.
#[inline(always)]
fn find(msg: *const u8) -> Option<(u64, u64)> {
    let msg: MsgHdr = user(msg)?;
    // The kernel has written back how much control data there is.
    let end = msg.control.wrapping_add(msg.control_len);
    let mut at = msg.control;
    for _ in 0..MAX_CMSGS {
        if at == 0 || at.wrapping_add(HEADER) >= end {
            return None;
        }
        let cmsg: CmsgHdr = user(at as *const u8)?;
        if cmsg.len < HEADER {
            return None;
        }
        if cmsg.level == SOL_SOCKET && cmsg.kind == SCM_RIGHTS {
            return Some((at + HEADER, (cmsg.len - HEADER) / 4));
        }
        at += (cmsg.len + 7) & !7;
    }
    None
}
