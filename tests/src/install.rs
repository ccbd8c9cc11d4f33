//! Programs that a test puts where it needs them, ready to be executed.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::wait::{SOON, wait_until};

/// Copies a program (or a script), with its mode.
///
/// # Panics
/// It cannot be copied, or somebody keeps the copy open for writing.
#[track_caller]
pub fn copy(from: impl AsRef<Path>, to: &Path) {
    let from = from.as_ref();
    fs::copy(from, to).unwrap_or_else(|e| panic!("cannot copy {}: {e}", from.display()));
    settle(to);
}

/// Writes a program from its bytes.
///
/// # Panics
/// It cannot be written, or somebody keeps it open for writing.
#[track_caller]
pub fn write(to: &Path, bytes: &[u8]) {
    fs::write(to, bytes).expect("room for a program");
    fs::set_permissions(to, PermissionsExt::from_mode(0o755)).expect("it is ours");
    settle(to);
}

/// Waits until nobody has it open for writing, without which it cannot be executed
/// (`ETXTBSY`): what another thread starts has it so between its fork and its exec.
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::settle;

    #[test]
    fn a_program_is_ready_when_its_last_writer_has_closed_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("program");
        let writer = File::create(&path).expect("room for a file");
        let inherited = writer.try_clone().expect("a descriptor");
        let waits = std::thread::spawn(move || settle(&path));
        drop(writer);
        assert!(!waits.is_finished(), "a writer is left");
        drop(inherited);
        waits.join().expect("it is ready");
    }
}
