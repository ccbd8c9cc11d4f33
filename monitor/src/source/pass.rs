//! Passes of the census by iterator: over all descriptors of the host, or over those of
//! some processes.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::bpf::Bpf;
use super::census::{Reader, Tables};

/// Past so many processes, a pass over all descriptors of the host is cheaper as a rule:
/// one over a single process costs some 20 µs.
const MOST_SINGLE_PASSES: usize = 512;

/// Commands of bpf(2) and an attach type, of `include/uapi/linux/bpf.h`.
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
const BPF_TRACE_ITER: u32 = 28;

/// `link_create` of `union bpf_attr`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    pad: u32,
}

/// `iter_create` of `union bpf_attr`.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// `task` of `union bpf_iter_link_info`.
#[repr(C)]
struct TaskInfo {
    tid: u32,
    pid: u32,
}

/// The tables of all processes, or of those that are chosen.
///
/// # Errors
/// The kernel's refusal, or records of another version.
pub(super) fn read(
    bpf: &mut Bpf,
    reader: &mut Reader,
    chosen: Option<&[u32]>,
) -> Result<Tables, Box<dyn Error>> {
    if let Some(chosen) = chosen {
        return bpf.choosing(chosen, |bpf| match one_by_one(bpf, reader, chosen)? {
            Some(tables) => Ok(tables),
            None => Ok(reader.read_part(bpf.census_pass()?)?),
        });
    }
    bpf.next_path_epoch();
    let read = bpf.census_pass().and_then(|pass| Ok(reader.read(pass)?));
    if read.is_err() {
        bpf.forget_paths();
    }
    read
}

/// A pass over each of these processes; `None` where one over all is cheaper, or all
/// that this kernel can do.
fn one_by_one(bpf: &mut Bpf, reader: &mut Reader, pids: &[u32]) -> io::Result<Option<Tables>> {
    if pids.len() > MOST_SINGLE_PASSES {
        return Ok(None);
    }
    let mut tables = Tables::new();
    for pid in pids {
        match bpf.pass_over(*pid) {
            Ok(pass) => tables.extend(reader.read_part(pass)?),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(e) if [Some(libc::E2BIG), Some(libc::EINVAL)].contains(&e.raw_os_error()) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Some(tables))
}

/// A pass of the `iter/task_file` program over the descriptors of one process, which aya
/// cannot make: it attaches iterators to everything.
///
/// # Errors
/// `ESRCH`: it is gone. `E2BIG`: this kernel only passes over all (before Linux 6.1).
pub(super) fn over(program: BorrowedFd<'_>, pid: u32) -> io::Result<File> {
    let info = TaskInfo { tid: 0, pid };
    let link = bpf(
        BPF_LINK_CREATE,
        &LinkCreate {
            prog_fd: number(program.as_raw_fd()),
            target_fd: 0,
            attach_type: BPF_TRACE_ITER,
            flags: 0,
            iter_info: std::ptr::from_ref(&info) as u64,
            iter_info_len: size_of::<TaskInfo>() as u32,
            pad: 0,
        },
    )?;
    let pass = bpf(BPF_ITER_CREATE, &IterCreate { link_fd: number(link.as_raw_fd()), flags: 0 })?;
    Ok(File::from(pass))
}

/// A descriptor is never negative.
fn number(fd: libc::c_int) -> u32 {
    fd.unsigned_abs()
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: attributes of the command, as large as is said; what they point at
    // outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
