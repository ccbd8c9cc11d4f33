//! Holds on to what a stack needs: which files its addresses are of, open. What
//! is held so can be read after the process has died or its files were replaced.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};

use super::Job;
use super::language::Language;
use super::maps::{self, Mapping};
use super::perfmap;
use crate::source::processes::parse_stat;
use crate::text;

/// Tells files apart, also those that were replaced under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
}

/// A file with code.
#[derive(Debug)]
pub struct Module {
    /// Its path as the process sees it, printable.
    pub path: String,
    /// The same, as it is.
    pub raw_path: PathBuf,
    /// It is the executable itself.
    pub is_exe: bool,
    /// Its first address in the process, which tells it from others.
    start: u64,
    /// The file, or why it cannot be opened.
    pub file: Result<(FileKey, File), String>,
}

/// What an address lies in.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file, so many bytes from its beginning.
    InFile(Arc<Module>, u64),
    /// Something of the kernel's, such as `[vdso]`.
    Named(String),
    /// Memory without a file, and its name in the perf map where there is one.
    Made(Option<String>),
    /// Nothing that is mapped (any more).
    Nowhere,
}

/// A stack and all that is needed to name its functions.
#[derive(Debug)]
pub struct Pinned {
    /// What was asked for.
    pub job: Job,
    /// One for each address.
    pub places: Vec<Place>,
    /// The runtime that the program runs in, if any.
    pub language: Option<Language>,
    /// What is wrong with its perf map, where there is one.
    pub perf_map: Option<String>,
    /// The root of its file system.
    pub root: Option<OwnedFd>,
}

/// Looks at the process as it is now.
///
/// # Errors
/// A sentence: the process has gone, or may not be read.
pub fn pin(job: Job) -> Result<Pinned, (Job, String)> {
    let dir = PathBuf::from(format!("/proc/{}", job.process.pid));
    match look(&dir, &job) {
        Ok((places, language, perf_map, root)) => {
            Ok(Pinned { job, places, language, perf_map, root })
        }
        Err(_) if !lives(&dir, &job) => {
            Err((job, "the process ended before its stack could be looked up".to_owned()))
        }
        Err(e) => {
            let hint = if e.kind() == io::ErrorKind::PermissionDenied {
                "; grant CAP_SYS_PTRACE"
            } else {
                ""
            };
            let what = format!("the stack cannot be looked up: {}/maps: {e}{hint}", dir.display());
            Err((job, what))
        }
    }
}

type Seen = (Vec<Place>, Option<Language>, Option<String>, Option<OwnedFd>);

fn look(dir: &Path, job: &Job) -> io::Result<Seen> {
    let root = open(dir.join("root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
    let exe = fs::read_link(dir.join("exe")).ok();
    let exe = exe.as_ref().map(|p| without_deleted(p.as_os_str().as_bytes()));
    let wanted: Vec<u64> = job.addresses.iter().map(|a| called_from(*a)).collect();
    let maps = maps::read(BufReader::new(File::open(dir.join("maps"))?), &wanted)?;
    let mut modules: Vec<Arc<Module>> = Vec::new();
    let mut places = Vec::new();
    for address in &wanted {
        places.push(match maps.find(*address) {
            None => Place::Nowhere,
            Some(m) if m.of_file() => {
                let known = modules.iter().find(|known| known.start == m.start);
                let module = known.cloned().unwrap_or_else(|| {
                    Arc::new(module(dir, root.as_ref(), m, exe == Some(m.path.as_slice())))
                });
                modules.push(Arc::clone(&module));
                Place::InFile(module, m.file_offset(*address))
            }
            Some(m) if m.path.starts_with(b"[v") => Place::Named(text::printable(&m.path)),
            Some(_) => Place::Made(None),
        });
    }
    let exe = exe.map(text::printable).unwrap_or_default();
    let language = Language::of(&exe, maps.runtime.as_deref());
    let mut complaint = None;
    if places.iter().any(|p| matches!(p, Place::Made(_))) {
        match perf_map(dir, root.as_ref(), &wanted) {
            Ok(names) => {
                for (place, name) in places.iter_mut().zip(names) {
                    if let Place::Made(known) = place {
                        *known = name;
                    }
                }
            }
            // That there is none is the usual thing.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => complaint = Some(format!("its perf map cannot be read: {e}")),
        }
    }
    // Another process by now would have other mappings at these addresses.
    if !lives(dir, job) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok((places, language, complaint, root))
}

/// An address on a stack is where to go on after a call; the call is before it.
fn called_from(address: u64) -> u64 {
    address.saturating_sub(1)
}

fn lives(dir: &Path, job: &Job) -> bool {
    let stat = fs::read(dir.join("stat")).ok();
    stat.and_then(|s| parse_stat(&s)).is_some_and(|s| s.start_ticks == job.process.start_ticks)
}

fn without_deleted(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

fn module(dir: &Path, root: Option<&OwnedFd>, m: &Mapping, is_exe: bool) -> Module {
    let raw_path = PathBuf::from(std::ffi::OsStr::from_bytes(&m.path));
    let file = code(dir, root, m, &raw_path).map_err(|e| e.to_string());
    Module { path: text::printable(&m.path), raw_path, is_exe, start: m.start, file }
}

/// The file of a mapping: the very one, where the kernel lets us have it, and else
/// what has its name now if that has its inode.
fn code(
    dir: &Path,
    root: Option<&OwnedFd>,
    m: &Mapping,
    path: &Path,
) -> io::Result<(FileKey, File)> {
    let link = dir.join(format!("map_files/{:x}-{:x}", m.start, m.end));
    let opened = File::from(match open(link, READ, Mode::empty()) {
        Ok(file) => file,
        Err(_) if m.deleted => {
            return Err(io::Error::other(
                "the file was deleted or replaced; grant CAP_CHECKPOINT_RESTORE",
            ));
        }
        Err(_) => inside(root, path)?,
    });
    let about = regular(&opened)?;
    if about.ino() != m.inode {
        return Err(io::Error::other("the file was replaced"));
    }
    Ok((key(&about), opened))
}

/// Never waits, as for the writer of a fifo, and becomes no terminal of ours.
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens a path below the root of a process; no link leads out of it.
pub fn inside(root: Option<&OwnedFd>, path: &Path) -> io::Result<OwnedFd> {
    let root = root.ok_or(io::ErrorKind::NotFound)?.as_fd();
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, READ, Mode::empty(), how)?)
}

/// As [`inside`], below our own root.
pub fn here(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat2(CWD, path, READ, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?)
}

/// What is known of a file; an error where it is something else.
pub fn regular(file: &File) -> io::Result<fs::Metadata> {
    let about = file.metadata()?;
    if about.is_file() { Ok(about) } else { Err(io::Error::other("it is no regular file")) }
}

/// What tells it from others.
pub fn key(about: &fs::Metadata) -> FileKey {
    FileKey {
        device: about.dev(),
        inode: about.ino(),
        modified: (about.mtime(), about.mtime_nsec()),
        changed: (about.ctime(), about.ctime_nsec()),
        size: about.size(),
    }
}

/// What the runtime of a process says of the code that it makes: `/tmp/perf-PID.map`
/// in its own mount namespace, PID being the one in its own pid namespace.
fn perf_map(dir: &Path, root: Option<&OwnedFd>, wanted: &[u64]) -> io::Result<Vec<Option<String>>> {
    let status = fs::read(dir.join("status"))?;
    let pid = own_pid(&status).ok_or(io::ErrorKind::NotFound)?;
    let file = File::from(inside(root, Path::new(&format!("/tmp/perf-{pid}.map")))?);
    let about = regular(&file)?;
    // /tmp is everybody's: another user could give this process whatever names.
    let owner = fs::metadata(dir)?.uid();
    if about.uid() != owner && about.uid() != 0 {
        return Err(io::Error::other(format!(
            "it belongs to user {}, and the process to user {owner}",
            about.uid()
        )));
    }
    if about.size() > perfmap::MAX_BYTES {
        let (is, most) = (text::bytes(about.size()), text::bytes(perfmap::MAX_BYTES));
        return Err(io::Error::other(format!("it has {is}; more than {most} is not read")));
    }
    perfmap::read(BufReader::with_capacity(64 << 10, file), wanted)
}

/// The pid in the innermost namespace: the last of `NSpid`.
fn own_pid(status: &[u8]) -> Option<u32> {
    let line = status.lines().map_while(Result::ok).find(|l| l.starts_with("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_is_the_one_that_the_process_has_for_itself() {
        assert_eq!(own_pid(b"Name:\tx\nNSpid:\t4242\t17\t1\nThreads:\t2\n"), Some(1));
        assert_eq!(own_pid(b"NSpid:\t4242\n"), Some(4242));
        assert_eq!(own_pid(b"Name:\tx\xff\nNSpid:\t1\n"), None);
        assert_eq!(own_pid(b""), None);
    }

    #[test]
    fn no_link_leads_out_of_a_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("app"), "inside").unwrap();
        std::os::unix::fs::symlink("/app", dir.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", dir.path().join("out")).unwrap();
        let root = open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let read = |path: &str| {
            let file = File::from(inside(Some(&root), Path::new(path))?);
            io::read_to_string(file)
        };
        assert_eq!(read("/app").unwrap(), "inside");
        assert_eq!(read("/absolute").unwrap(), "inside");
        assert!(read("/out").is_err(), "there is no such file below it");
        assert!(inside(None, Path::new("/app")).is_err());
    }

    #[test]
    fn a_fifo_keeps_nobody_waiting_and_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a string that ends in NUL.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        let file = File::from(here(&dir.path().join("fifo")).unwrap());
        assert!(regular(&file).is_err());
    }
}
