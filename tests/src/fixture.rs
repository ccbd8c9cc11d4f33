//! The fixture with frames that are known: see `fixtures/opener.rs`.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::wait::{SOON, wait_until};

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/opener"));
const SOURCE: &str = include_str!("../fixtures/opener.rs");

/// Puts the program into a directory under this name.
///
/// # Panics
/// It cannot be written.
pub fn put(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, PROGRAM).expect("room for a program");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it is ours");
    path
}

/// Waits until nobody has it open for writing, without which it cannot be executed:
/// what another thread starts has it so between its fork and its exec.
///
/// # Panics
/// Somebody keeps it open.
#[track_caller]
pub fn settle(path: &Path) {
    let file = fs::File::open(path).expect("it is there");
    wait_until("the last writer of a program to close it", SOON, || {
        // SAFETY: takes no address. A lease to read is only granted where nobody
        // writes (fcntl(2)), and goes with the descriptor.
        let lease = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
        (lease == 0).then_some(())
    });
}

/// The line of its source with this comment.
///
/// # Panics
/// There is none.
pub fn line(comment: &str) -> u32 {
    let comment = format!("// {comment}");
    let at = SOURCE.lines().position(|l| l.ends_with(&comment));
    at.unwrap_or_else(|| panic!("no line has {comment:?}")) as u32 + 1
}
