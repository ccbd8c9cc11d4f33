//! Takes hold of what a stack needs: which files its addresses are of. What is held
//! so can be read after the process has died or its files were replaced.
//!
//! This is done by the thread of the census, at once, and must not wait for anybody:
//! so files are held by `O_PATH`, which asks nothing of the file system that they are
//! on, were it one that never answers. [`Module::open`], which may wait, is not for it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};

use super::Job;
use super::language::Language;
use super::maps::{self, Mapping};
use super::perfmap;
use super::skipped::hides;
use super::trail::End;
use crate::source::processes::parse_stat;
use crate::text;

/// Files that are held for one stack, at most: so many descriptors for each that
/// waits. Those past it are opened by their names.
const MAX_HELD: usize = 6;
/// The same for one that is to be unwound, of which few wait.
const MAX_HELD_CODE: usize = 12;

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
    inode: u64,
    deleted: bool,
    held: Option<OwnedFd>,
}

/// What an address lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file, by its number among the modules, so many bytes from its beginning.
    InFile(usize, u64),
    /// Something of the kernel's, such as `[vdso]`.
    Named(String),
    /// Memory without a file.
    Made,
    /// Nothing that is mapped (any more).
    Nowhere,
}

/// What a mapping is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Within {
    /// A file, by its number among the modules.
    Module(usize),
    /// Something of the kernel's.
    Named(String),
    /// Memory without a file.
    Made,
}

/// A stack and all that is needed to name its functions.
#[derive(Debug)]
pub struct Pinned {
    /// What was asked for.
    pub job: Job,
    /// One for each address.
    pub places: Vec<Place>,
    /// What of the process was looked at.
    pub mappings: Vec<(Mapping, Within)>,
    /// Its addresses are those of an unwinder, which ended so; else frame pointers tell
    /// them.
    pub unwound: Option<End>,
    /// Each file once.
    pub modules: Vec<Module>,
    /// The runtime that the program runs in, if any.
    pub language: Option<Language>,
    /// The root of its file system.
    pub root: Option<OwnedFd>,
    /// Its pid for itself.
    own_pid: Option<u32>,
    owner: u32,
}

/// Looks at the process as it is now.
///
/// # Errors
/// A sentence: the process has gone, or may not be read.
pub fn pin(job: &Job) -> Result<Pinned, String> {
    let wanted: Vec<u64> = job.addresses.iter().map(|a| called_from(*a)).collect();
    let has = |m: &Mapping| wanted.iter().any(|a| (m.start..m.end).contains(a));
    hold(job, MAX_HELD, has)
}

/// Looks at it for an unwinder, which may come through all code that a word of the
/// stack, or a register, points to.
///
/// # Errors
/// As [`pin`].
pub fn pin_code(job: &Job, mut words: Vec<u64>) -> Result<Pinned, String> {
    words.sort_unstable();
    let has = |m: &Mapping| {
        // A return address can be the first one past a mapping.
        let next = words.partition_point(|word| *word < m.start);
        m.code && words.get(next).is_some_and(|word| *word <= m.end)
    };
    hold(job, MAX_HELD_CODE, has)
}

fn hold(job: &Job, most: usize, wanted: impl Fn(&Mapping) -> bool) -> Result<Pinned, String> {
    let dir = PathBuf::from(format!("/proc/{}", job.process.pid));
    look(&dir, job, most, wanted).map_err(|e| {
        if !lives(&dir, job) {
            return "the process ended before its stack could be looked up".to_owned();
        }
        let denied = e.kind() == io::ErrorKind::PermissionDenied;
        let hint = if denied { "; grant CAP_SYS_PTRACE" } else { "" };
        format!("the stack cannot be looked up: {}/maps: {e}{hint}", dir.display())
    })
}

fn look(
    dir: &Path,
    job: &Job,
    most: usize,
    wanted: impl Fn(&Mapping) -> bool,
) -> io::Result<Pinned> {
    let root = open(dir.join("root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
    let exe = fs::read_link(dir.join("exe")).ok();
    let exe = exe.as_ref().map(|p| without_deleted(p.as_os_str().as_bytes()));
    let maps = maps::read_those(BufReader::new(File::open(dir.join("maps"))?), wanted)?;
    let mut modules: Vec<Module> = Vec::new();
    let mut mappings = Vec::new();
    for m in maps.mappings {
        let within = if m.of_file() {
            let known = modules.iter().position(|known| known.is(&m));
            Within::Module(known.unwrap_or_else(|| {
                let is_exe = exe == Some(m.path.as_slice());
                modules.push(Module::hold(dir, &m, is_exe, modules.len() < most));
                modules.len() - 1
            }))
        } else if m.path.starts_with(b"[v") {
            Within::Named(text::printable(&m.path))
        } else {
            Within::Made
        };
        mappings.push((m, within));
    }
    let exe = exe.map(text::printable).unwrap_or_default();
    let mut pinned = Pinned {
        job: job.clone(),
        places: Vec::new(),
        mappings,
        unwound: None,
        modules,
        language: Language::of(&exe, maps.runtime.as_deref()),
        root,
        own_pid: own_pid(&fs::read(dir.join("status"))?),
        owner: fs::metadata(dir)?.uid(),
    };
    // Another process by now would have other mappings at these addresses.
    if !lives(dir, job) {
        return Err(io::ErrorKind::NotFound.into());
    }
    pinned.locate(job.addresses.clone());
    Ok(pinned)
}

impl Module {
    fn hold(dir: &Path, m: &Mapping, is_exe: bool, hold: bool) -> Self {
        let link = dir.join(format!("map_files/{:x}-{:x}", m.start, m.end));
        let held = hold.then(|| open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok());
        Self {
            path: text::printable(&m.path),
            raw_path: PathBuf::from(std::ffi::OsStr::from_bytes(&m.path)),
            is_exe,
            inode: m.inode,
            deleted: m.deleted,
            held: held.flatten(),
        }
    }

    /// It is the file of this mapping, too.
    fn is(&self, m: &Mapping) -> bool {
        self.inode == m.inode && self.raw_path.as_os_str().as_bytes() == m.path
    }

    /// The file: the very one that is mapped, where the kernel let us hold it, else what
    /// has its name now if that has its inode.
    ///
    /// # Errors
    /// A sentence.
    pub fn open(&self, root: Option<&OwnedFd>) -> Result<(FileKey, File), String> {
        let opened = match &self.held {
            Some(held) => reopen(held),
            None if self.deleted => Err(io::Error::other(
                "the file was deleted or replaced; grant CAP_CHECKPOINT_RESTORE",
            )),
            None => inside(root, &self.raw_path).map(File::from),
        };
        let about = opened.and_then(|file| Ok((regular(&file)?, file)));
        match about {
            Ok((about, _)) if about.ino() != self.inode => Err("the file was replaced".to_owned()),
            Ok((about, file)) => Ok((key(&about), file)),
            Err(e) => Err(e.to_string()),
        }
    }
}

/// Opens for reading what is held; nothing but a regular file, for others do things
/// when they are opened.
fn reopen(held: &OwnedFd) -> io::Result<File> {
    regular(&File::from(held.try_clone()?))?;
    Ok(File::from(open(format!("/proc/self/fd/{}", held.as_raw_fd()), READ, Mode::empty())?))
}

impl Pinned {
    /// It is a stack of these addresses.
    pub fn locate(&mut self, addresses: Vec<u64>) {
        let find = |address: u64| {
            let has = |(m, _): &&(Mapping, Within)| (m.start..m.end).contains(&address);
            match self.mappings.iter().find(has) {
                None => Place::Nowhere,
                Some((m, Within::Module(number))) => Place::InFile(*number, m.file_offset(address)),
                Some((_, Within::Named(name))) => Place::Named(name.clone()),
                Some((_, Within::Made)) => Place::Made,
            }
        };
        self.places = addresses.iter().map(|a| find(called_from(*a))).collect();
        self.job.addresses = addresses;
    }

    /// Where in this module the call ends that the second address returns to, if the
    /// first one is in the C library.
    pub fn after_the_c_library(&self, number: usize) -> Option<u64> {
        if self.unwound.is_some() {
            return None;
        }
        match self.places.as_slice() {
            [Place::InFile(first, _), Place::InFile(second, at), ..]
                if *second == number && first != second && hides(&self.modules[*first].path) =>
            {
                Some(at + 1)
            }
            _ => None,
        }
    }

    /// What the runtime of the process says of the code that it makes, for each
    /// address: `/tmp/perf-PID.map` in its own mount namespace, PID being the one in
    /// its own pid namespace. Nothing where it publishes none.
    ///
    /// # Errors
    /// A sentence: there is one, and it is not to be believed.
    pub fn names(&self) -> Result<Vec<Option<String>>, String> {
        let none = vec![None; self.places.len()];
        if !self.places.contains(&Place::Made) {
            return Ok(none);
        }
        match self.perf_map() {
            Ok(names) => Ok(names),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(none),
            Err(e) => Err(format!("its perf map cannot be read: {e}")),
        }
    }

    /// It has a perf map, whatever is in there.
    pub fn publishes(&self) -> bool {
        self.open_perf_map().is_ok()
    }

    fn open_perf_map(&self) -> io::Result<File> {
        let pid = self.own_pid.ok_or(io::ErrorKind::NotFound)?;
        let path = format!("/tmp/perf-{pid}.map");
        Ok(File::from(inside(self.root.as_ref(), Path::new(&path))?))
    }

    fn perf_map(&self) -> io::Result<Vec<Option<String>>> {
        let file = self.open_perf_map()?;
        let about = regular(&file)?;
        // /tmp is everybody's: another user could give this process whatever names.
        if about.uid() != self.owner && about.uid() != 0 {
            return Err(io::Error::other(format!(
                "it belongs to user {}, and the process to user {}",
                about.uid(),
                self.owner
            )));
        }
        if about.size() > perfmap::MAX_BYTES {
            let (is, most) = (text::bytes(about.size()), text::bytes(perfmap::MAX_BYTES));
            return Err(io::Error::other(format!("it has {is}; more than {most} is not read")));
        }
        let wanted: Vec<u64> = self.job.addresses.iter().map(|a| called_from(*a)).collect();
        perfmap::read(BufReader::with_capacity(64 << 10, file), &wanted)
    }
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
