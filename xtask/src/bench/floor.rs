//! The least that a BPF program at the exit of every system call can cost: one that
//! returns at once.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

// `enum bpf_cmd` and `enum bpf_prog_type` of `include/uapi/linux/bpf.h`.
const PROG_LOAD: c_long = 5;
const RAW_TRACEPOINT_OPEN: c_long = 17;
const RAW_TRACEPOINT: u32 = 17;

/// `r0 = 0; exit` (`struct bpf_insn`: code, registers, offset, immediate).
const RETURN: [u64; 2] = [0xb7, 0x95];

/// `union bpf_attr` as PROG_LOAD has it, up to what is used.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The same for RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    padding: u32,
}

/// An attached program that does nothing; it ends with this value.
pub struct Floor {
    _attached: OwnedFd,
}

impl Floor {
    /// Loads and attaches it.
    ///
    /// # Errors
    /// The kernel's refusal: without CAP_BPF and CAP_PERFMON.
    pub fn attach() -> Result<Self> {
        let load = Load {
            kind: RAW_TRACEPOINT,
            instructions: RETURN.len() as u32,
            code: RETURN.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
        };
        let program = bpf(PROG_LOAD, &load).context("cannot load an empty program")?;
        let open = Open {
            name: c"sys_exit".as_ptr() as u64,
            program: program.as_raw_fd() as u32,
            padding: 0,
        };
        let attached = bpf(RAW_TRACEPOINT_OPEN, &open).context("cannot attach to sys_exit")?;
        Ok(Self { _attached: attached })
    }
}

/// One call of bpf(2) that returns a descriptor.
fn bpf<T>(command: c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is what `command` reads, and all that it points to is static or
    // outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given it to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
