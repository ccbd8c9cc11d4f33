//! Reads the census iterator: one record per open descriptor of the host.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

use leakwatch_common::{CENSUS_PATH_MAX, CensusHeader, PATH_KNOWN, PATH_REFUSED, SOCKET_NONE};

use super::fdkind::classify;
use super::known::{KnownFile, KnownFiles};
use super::model::{FdBirth, FdKind, FdSample, KernelStr, SocketState};
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
    /// The pass is of some processes: it brings all paths, and is not remembered.
    part: bool,
}

impl Reader {
    /// Reads one pass to its end.
    ///
    /// # Errors
    /// The kernel's; or `InvalidData` if the records are not of this version. The
    /// kernel must then be made to send all paths again.
    pub fn read(&mut self, pass: impl Read) -> io::Result<Tables> {
        let tables = self.tables(pass);
        if let Ok(tables) = &tables {
            self.known.turn();
            self.sizes = tables.iter().map(|(tgid, (_, fds))| (*tgid, fds.len())).collect();
        } else {
            self.known = KnownFiles::default();
        }
        tables
    }

    /// Reads a pass over some processes to its end; what the reader knows of the
    /// others stays as it is.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_part(&mut self, pass: impl Read) -> io::Result<Tables> {
        self.part = true;
        let tables = self.tables(pass);
        self.part = false;
        tables
    }

    fn tables(&mut self, mut pass: impl Read) -> io::Result<Tables> {
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
                let sample = sample(&header, self.file(&header, path));
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
        if filled == 0 { Ok(tables) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// What is told of a file by name: from this record, from an earlier pass, or
    /// by /proc.
    ///
    /// The kernel can rely on a path that is not here: that of a file which was in
    /// no table at the last pass, for it was in flight over a socket, say.
    fn file(&mut self, header: &CensusHeader, path: &[u8]) -> KnownFile {
        let known = header.path_len == PATH_KNOWN;
        if known && let Some(file) = self.known.again(header.file, header.inode, header.device) {
            return file.clone();
        }
        let asked;
        let refused = known || header.path_len == PATH_REFUSED;
        let path = if refused {
            // Closed meanwhile, or hidden: then it has no name, this time.
            asked = fs::read_link(format!("/proc/{}/fd/{}", header.tgid, header.fd))
                .unwrap_or_default();
            Some(asked.as_os_str().as_bytes()).filter(|p| can_be_of(header, p)).unwrap_or_default()
        } else {
            path
        };
        let nameless = refused && path.is_empty();
        let path = text(header, path);
        let make = |path: KernelStr| KnownFile {
            file: header.file,
            inode: header.inode,
            device: header.device,
            kind: classify(header.mode, path.as_bytes()),
            path,
        };
        if nameless || self.part {
            make(path.into())
        } else {
            self.known.named(header.file, path, make).clone()
        }
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

/// When a process started, ns since boot, as the kernel shows it in a pass; `None`
/// if it has no descriptor there.
///
/// # Errors
/// As [`Reader::read`].
pub fn start_of(pid: u32, mut pass: impl Read) -> io::Result<Option<u64>> {
    let mut start = None;
    let mut buffer = vec![0; READ];
    let mut filled = 0;
    loop {
        let n = match pass.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(start),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        filled += n;
        let mut at = 0;
        while let Some((header, path)) = record(&buffer[at..filled])? {
            at += size_of::<CensusHeader>() + path.len();
            if header.tgid == pid {
                start = Some(header.start_ns);
            }
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
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

/// What /proc says of a descriptor can be of another file, which has been given the
/// number since: not where it shows an inode of its own or another type.
fn can_be_of(h: &CensusHeader, path: &[u8]) -> bool {
    let is = |what: &str| path == format!("{what}:[{}]", h.inode).as_bytes();
    match h.mode & 0o170_000 {
        0o140_000 => is("socket"),
        0o010_000 => is("pipe") || path.starts_with(b"/"),
        0 => path.starts_with(b"anon_inode:"),
        _ => !path.starts_with(b"socket:["),
    }
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
    if h.blocks == 0 && kind == FdKind::Regular { h.size } else { h.blocks.saturating_mul(512) }
}

/// State, ports and peer of a socket.
fn socket(h: &CensusHeader) -> SocketState {
    let state = SocketState::new(h.sock_family, h.sock_type, h.sock_state);
    if !matches!(i32::from(h.sock_family), libc::AF_INET | libc::AF_INET6) {
        return state;
    }
    let address = if i32::from(h.sock_family) == libc::AF_INET {
        let [a, b, c, d, ..] = h.size.to_ne_bytes();
        IpAddr::from([a, b, c, d])
    } else {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&h.size.to_ne_bytes());
        bytes[8..].copy_from_slice(&h.blocks.to_ne_bytes());
        IpAddr::from(bytes).to_canonical()
    };
    let port = u16::from_be((h.position >> 16) as u16);
    let peer = (port != 0).then(|| SocketAddr::new(address, port));
    SocketState { port: h.position as u16, peer, ..state }
}

fn sample(h: &CensusHeader, file: KnownFile) -> FdSample {
    let (kind, path) = (file.kind, file.path);
    if h.mode & 0o170_000 == 0o140_000 {
        // The fields of a file's contents tell of the peer, that of its names of the traffic.
        let socket = (h.sock_family != SOCKET_NONE).then(|| socket(h));
        let tcp = socket.is_some_and(|s| matches!((s.family, s.sock_type), (2 | 10, 1)));
        return FdSample {
            position: if tcp { h.nlink.into() } else { 0 },
            nlink: 1,
            size: 0,
            disk_bytes: 0,
            socket,
            ..plain(h, kind, path)
        };
    }
    plain(h, kind, path)
}

fn plain(h: &CensusHeader, kind: FdKind, path: KernelStr) -> FdSample {
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
        socket: None,
        birth: (h.birth_ns != 0).then(|| FdBirth {
            at: Boottime(h.birth_ns),
            tid: h.birth_tid,
            stack: u32::try_from(h.birth_stack).ok(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    /// What the kernel sends of a descriptor of this process.
    fn sent(fd: &File, inode: u64, path_len: i16, path: &str) -> Vec<u8> {
        // SAFETY: plain data, of which every bit pattern is a value.
        let mut header: CensusHeader = unsafe { std::mem::zeroed() };
        header.tgid = std::process::id();
        header.fd = u32::try_from(fd.as_raw_fd()).unwrap();
        (header.file, header.inode, header.nlink) = (0xffff_8000, inode, 1);
        (header.mode, header.path_len, header.sock_family) = (0o020_666, path_len, SOCKET_NONE);
        // SAFETY: plain data without padding.
        let bytes: [u8; size_of::<CensusHeader>()] = unsafe { std::mem::transmute(header) };
        [&bytes, path.as_bytes()].concat()
    }

    fn path(reader: &mut Reader, bytes: &[u8]) -> String {
        let tables = reader.read(bytes).unwrap();
        tables[&std::process::id()].1[0].path.to_string()
    }

    #[test]
    fn a_path_that_the_kernel_relies_on_in_vain_is_asked_for() {
        let null = File::open("/dev/null").unwrap();
        let mut reader = Reader::default();
        // In no table at the last pass, in flight over a socket.
        let again = sent(&null, 5, PATH_KNOWN, "");
        assert_eq!(path(&mut reader, &again), "/dev/null");
        let named = sent(&null, 5, 4, "/sen");
        assert_eq!(path(&mut reader, &named), "/sen");
        assert_eq!(path(&mut reader, &again), "/sen");
        // Closed before it could be asked for: that is no name to keep.
        let mut gone = Reader::default();
        let mut lost = again.clone();
        lost[std::mem::offset_of!(CensusHeader, fd)..][..4].copy_from_slice(&[0xff; 4]);
        assert_eq!(path(&mut gone, &lost), "(path unavailable)");
        assert_eq!(path(&mut gone, &again), "/dev/null");
        // Another file at the same address.
        assert_eq!(path(&mut reader, &sent(&null, 6, PATH_KNOWN, "")), "/dev/null");
    }

    #[test]
    fn what_proc_says_of_another_file_is_not_believed() {
        let null = File::open("/dev/null").unwrap();
        let of = |mode: u16| {
            let bytes = sent(&null, 5, PATH_KNOWN, "");
            let (mut header, _) = record(&bytes).unwrap().unwrap();
            header.mode = mode;
            header
        };
        for (mode, path, want) in [
            (0o140_777, "socket:[5]", true),
            (0o140_777, "socket:[6]", false),
            (0o140_777, "/dev/null", false),
            (0o010_600, "pipe:[5]", true),
            (0o010_600, "pipe:[6]", false),
            (0o010_600, "/run/fifo", true),
            (0o600, "anon_inode:[eventfd]", true),
            (0o600, "pipe:[5]", false),
            (0o100_644, "/var/log/a.log", true),
            (0o100_644, "socket:[5]", false),
        ] {
            assert_eq!(can_be_of(&of(mode), path.as_bytes()), want, "{mode:o} {path}");
        }
    }
}
