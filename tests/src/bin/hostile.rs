//! Files with names that break lines, quotes, terminals and pages, each opened
//! `--count N` times for writing and kept, under a process name that does too.
//!
//! `--dir D`. Says `ready` when all are open.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use leakwatch_tests::program::{Control, Flags, Pace, say};

/// File names; a 255-byte one and a path near `PATH_MAX` come on top.
const NAMES: &[&[u8]] = &[
    b"line\nbreak.log",
    b"quote\"s and 'more'.log",
    b"back\\slash.log",
    b"\x1b[2J\x1b]0;owned\x07.log",
    b"invalid \xff\xfe utf8.log",
    b"<img src=x onerror=alert(1)>.log",
    "right\u{202e}tfel.log".as_bytes(),
    b"{braces}=\"x\",y.log",
    b" .log",
    b"--help.log",
];

fn main() -> std::io::Result<()> {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    // SAFETY: the name is a C string; the kernel copies at most 16 bytes of it.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"\n\"}\x1b[31m<b>\\".as_ptr()) };
    // Relative paths from here on: one path below is too long to be given whole.
    std::env::set_current_dir(flags.need("dir"))?;

    let long_name = [vec![b'x'; 251], b".log".to_vec()].concat();
    let mut names: Vec<&OsStr> = NAMES.iter().map(|n| OsStr::from_bytes(n)).collect();
    names.push(OsStr::from_bytes(&long_name));
    let count = flags.get("count", 20_usize);
    let mut pace = Pace::new(flags.millis("pace", 200));
    let mut kept: Vec<File> = Vec::new();
    let deep = deepest()?;
    for _ in 0..count {
        pace.beat();
        for name in &names {
            kept.push(append(Path::new("/proc/self/cwd"), name)?);
        }
        kept.push(append(Path::new(&deep), OsStr::new("deep.log"))?);
    }
    say("ready");
    control.idle()
}

fn append(dir: &Path, name: &OsStr) -> std::io::Result<File> {
    let mut file = OpenOptions::new().append(true).create(true).open(dir.join(name))?;
    file.write_all(b"x")?;
    Ok(file)
}

/// A directory whose path is so long that a file in it is just below the kernel's
/// limit of 4,096 bytes; by a descriptor, through which it can be reached.
fn deepest() -> std::io::Result<String> {
    let start = std::env::current_dir()?;
    let mut length = start.as_os_str().len();
    let mut step = File::open(".")?;
    while length < 4_060 {
        let part = "d".repeat((4_080 - length).saturating_sub(1).clamp(1, 200));
        let within = format!("/proc/self/fd/{}/{part}", std::os::fd::AsRawFd::as_raw_fd(&step));
        std::fs::create_dir(&within)?;
        step = File::open(&within)?;
        length += part.len() + 1;
    }
    Ok(format!("/proc/self/fd/{}", std::os::fd::IntoRawFd::into_raw_fd(step)))
}
