//! Reads the census iterator: one record per open descriptor of the host.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use leakwatch_common::{CENSUS_PATH_MAX, CensusHeader, PATH_KNOWN, PATH_REFUSED, SOCKET_NONE};

use super::fdkind::classify;
use super::known::{KnownFile, KnownFiles};
use super::model::{FdBirth, FdKind, FdSample, SocketState};
use crate::time::Boottime;

/// The descriptors of one process, as (start time in ns, descriptors).
pub type Tables = HashMap<u32, (u64, Vec<FdSample>)>;

/// The kernel fills 32 KiB per read (`kernel/bpf/bpf_iter.c`).
const READ: usize = 64 * 1024;

/// Reads censuses. The kernel sends the path of a file once and then only that
/// it is known, so the reader keeps the files of the last pass.
#[derive(Default)]
pub struct Reader {
    known: KnownFiles,
    /// Descriptors of each process at the last pass: what to make room for.
    sizes: HashMap<u32, usize>,
}

impl Reader {
    /// Reads one pass to its end. `None` where the kernel relied on a path that
    /// is not known here: then it must be made to send all of them again, as
    /// after an error.
    ///
    /// # Errors
    /// The kernel's; or `InvalidData` if the records are not of this version.
    pub fn read(&mut self, pass: File) -> io::Result<Option<Tables>> {
        let tables = self.tables(pass);
        match &tables {
            Ok(Some(tables)) => {
                self.known.turn();
                self.sizes = tables.iter().map(|(tgid, (_, fds))| (*tgid, fds.len())).collect();
            }
            _ => self.known = KnownFiles::default(),
        }
        tables
    }

    fn tables(&mut self, mut pass: File) -> io::Result<Option<Tables>> {
        let mut tables = Tables::new();
        // The iterator gives one process after the other.
        let mut open: Option<(u32, u64, Vec<FdSample>)> = None;
        let mut buffer = vec![0; READ];
        let mut filled = 0;
        loop {
            let n = match pass.read(&mut buffer[filled..]) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if n == 0 {
                break;
            }
            filled += n;
            let mut at = 0;
            while let Some((header, path)) = record(&buffer[at..filled])? {
                at += size_of::<CensusHeader>() + path.len();
                let Some(file) = self.file(&header, path) else { return Ok(None) };
                let sample = sample(&header, file);
                match &mut open {
                    Some((tgid, _, fds)) if *tgid == header.tgid => fds.push(sample),
                    _ => {
                        let room = self.sizes.get(&header.tgid).map_or(8, |n| n + 8);
                        let mut fds = Vec::with_capacity(room);
                        fds.push(sample);
                        if let Some(done) = open.replace((header.tgid, header.start_ns, fds)) {
                            close(&mut tables, done);
                        }
                    }
                }
            }
            buffer.copy_within(at..filled, 0);
            filled -= at;
        }
        if let Some(done) = open {
            close(&mut tables, done);
        }
        if filled == 0 { Ok(Some(tables)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// What is told of a file by name: from this record or from an earlier pass.
    fn file(&mut self, header: &CensusHeader, path: &[u8]) -> Option<&KnownFile> {
        if header.path_len == PATH_KNOWN {
            return self.known.again(header.file, header.inode, header.device);
        }
        let asked;
        let path = if header.path_len == PATH_REFUSED {
            // Closed meanwhile, or hidden: then it stays without a name.
            asked = fs::read_link(format!("/proc/{}/fd/{}", header.tgid, header.fd))
                .unwrap_or_default();
            text(header, asked.as_os_str().as_bytes())
        } else {
            text(header, path)
        };
        Some(self.known.named(header.file, path, |path| KnownFile {
            file: header.file,
            inode: header.inode,
            device: header.device,
            kind: classify(header.mode, path.as_bytes()),
            path,
        }))
    }
}

/// Puts the descriptors of one process with those it may already have: its pid
/// can have changed hands during the pass, and then the later process counts.
fn close(tables: &mut Tables, (tgid, start, fds): (u32, u64, Vec<FdSample>)) {
    match tables.entry(tgid) {
        Entry::Occupied(mut known) if known.get().0 == start => known.get_mut().1.extend(fds),
        Entry::Occupied(mut known) => *known.get_mut() = (start, fds),
        Entry::Vacant(free) => {
            free.insert((start, fds));
        }
    }
}

/// The record at the start of `bytes`; `None` if it is not whole yet.
fn record(bytes: &[u8]) -> io::Result<Option<(CensusHeader, &[u8])>> {
    const SIZE: usize = size_of::<CensusHeader>();
    let Some(head) = bytes.get(..SIZE) else { return Ok(None) };
    // SAFETY: as many bytes as the type has, which is plain data without
    // padding; read without regard to alignment.
    let header: CensusHeader = unsafe { std::ptr::read_unaligned(head.as_ptr().cast()) };
    let len = usize::try_from(header.path_len).unwrap_or(0);
    if len > CENSUS_PATH_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "census record of another version"));
    }
    Ok(bytes.get(SIZE..SIZE + len).map(|path| (header, path)))
}

/// What to call it: the path without the kernel's mark for deleted files,
/// which `nlink` says better; what could not be named is named by its inode.
fn text<'a>(header: &CensusHeader, path: &'a [u8]) -> &'a [u8] {
    if path.is_empty() {
        // ENAMETOOLONG and the like; kind and inode still identify it.
        return b"(path unavailable)";
    }
    path.strip_suffix(b" (deleted)").filter(|_| header.nlink == 0).unwrap_or(path)
}

/// Bytes on disk. What was written a moment ago has no block yet where blocks are
/// given out late (ext4, xfs, btrfs), and `i_blocks` is then 0, unlike in stat(2),
/// which asks the filesystem: until writeback the size stands in for it.
fn disk_bytes(h: &CensusHeader, kind: FdKind) -> u64 {
    if h.blocks == 0 && kind == FdKind::Regular { h.size } else { h.blocks * 512 }
}

fn sample(h: &CensusHeader, file: &KnownFile) -> FdSample {
    let (kind, path) = (file.kind, file.path.clone());
    FdSample {
        fd: h.fd,
        file: h.file,
        kind,
        device: h.device,
        inode: h.inode,
        flags: h.flags,
        nlink: h.nlink,
        position: h.position,
        size: h.size,
        disk_bytes: disk_bytes(h, kind),
        path,
        socket: (kind == FdKind::Socket && h.sock_family != SOCKET_NONE).then_some(SocketState {
            family: h.sock_family,
            sock_type: h.sock_type,
            state: h.sock_state,
        }),
        birth: (h.birth_ns != 0).then(|| FdBirth {
            at: Boottime(h.birth_ns),
            tid: h.birth_tid,
            stack: u32::try_from(h.birth_stack).ok(),
        }),
    }
}
