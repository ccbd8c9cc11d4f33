//! `/proc/PID/maps`: where the code of a process comes from.

use std::io::{self, BufRead};

/// Lines that are read at most. The kernel lets a process have 65,530 mappings
/// unless told otherwise (`vm.max_map_count`).
const MAX_LINES: usize = 262_144;
/// A path has at most 4,095 bytes, and each may take four as an escape.
const MAX_LINE: u64 = 20_000;

/// A mapping that one of the addresses lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address past it.
    pub end: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// Inode number as the kernel shows it here.
    pub inode: u64,
    /// Path or `[name]`, without ` (deleted)`; empty where there is no file.
    pub path: Vec<u8>,
    /// The file has been deleted or replaced.
    pub deleted: bool,
    /// It may be executed.
    pub code: bool,
}

impl Mapping {
    /// It is of a file, which may hold symbols.
    pub fn of_file(&self) -> bool {
        // Made by a JIT compiler: an anonymous file, or shared memory.
        let anonymous: [&[u8]; 4] = [b"/memfd:", b"/dev/zero", b"/SYSV", b"/anon_hugepage"];
        self.path.starts_with(b"/") && !anonymous.iter().any(|p| self.path.starts_with(p))
    }

    /// Where in the file an address lies.
    pub fn file_offset(&self, address: u64) -> u64 {
        (address - self.start).wrapping_add(self.offset)
    }
}

/// What a process has mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    /// Those that hold an address that was asked for.
    pub mappings: Vec<Mapping>,
    /// A library of a language runtime that is mapped, if any: the name of its file.
    pub runtime: Option<String>,
}

impl Maps {
    /// The mapping of an address.
    pub fn find(&self, address: u64) -> Option<&Mapping> {
        self.mappings.iter().find(|m| (m.start..m.end).contains(&address))
    }
}

/// Reads the mappings that hold any of these addresses. Takes memory for those alone.
///
/// # Errors
/// The reader's; an odd line is passed over.
pub fn read(from: impl BufRead, addresses: &[u64]) -> io::Result<Maps> {
    read_those(from, |m| addresses.iter().any(|a| (m.start..m.end).contains(a)))
}

/// Reads those that are wanted.
///
/// # Errors
/// As [`read`].
pub fn read_those(mut from: impl BufRead, wanted: impl Fn(&Mapping) -> bool) -> io::Result<Maps> {
    let mut maps = Maps::default();
    let mut line = Vec::new();
    for _ in 0..MAX_LINES {
        line.clear();
        if io::Read::take(&mut from, MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some(mapping) = parse(line.strip_suffix(b"\n").unwrap_or(&line)) else { continue };
        if maps.runtime.is_none() {
            maps.runtime = runtime_library(&mapping.path);
        }
        if wanted(&mapping) {
            maps.mappings.push(mapping);
        }
    }
    Ok(maps)
}

/// `55d0c0a00000-55d0c0a21000 r-xp 00002000 fe:00 131123    /usr/bin/app (deleted)`
fn parse(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let mut word = || {
        let at = rest.iter().position(|b| *b == b' ')?;
        let (word, tail) = rest.split_at(at);
        rest = &tail[1..];
        std::str::from_utf8(word).ok()
    };
    let (start, end) = word()?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    let code = word()?.contains('x');
    let offset = hex(word()?)?;
    let _device = word()?;
    // The inode is the last word where nothing is mapped.
    let inode: u64 = match word() {
        Some(inode) => inode.parse().ok()?,
        None => {
            let path = Vec::new();
            return Some(Mapping { start, end, offset, inode: 0, path, deleted: false, code });
        }
    };
    let at = rest.iter().position(|b| *b != b' ').unwrap_or(rest.len());
    let path = &rest[at..];
    let deleted = path.ends_with(b" (deleted)");
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    Some(Mapping { start, end, offset, inode, path: unescape(path), deleted, code })
}

/// The kernel writes a new line as `\012` (`fs/seq_file.c: mangle_path`).
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            out.push(b'\n');
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// The name of a library that only a language runtime maps.
fn runtime_library(path: &[u8]) -> Option<String> {
    let name = path.rsplit(|b| *b == b'/').next()?;
    let known: [&[u8]; 4] = [b"libpython", b"libjvm.so", b"libnode.so", b"libruby"];
    let is = known.iter().any(|k| name.starts_with(k));
    is.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
55d0c0a00000-55d0c0a21000 r-xp 00002000 fe:00 131123                     /usr/bin/app (deleted)
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7f0000002000-7f0000003000 r-xp 00000000 00:01 77 /memfd:jit (deleted)
7f0000004000-7f0000005000 r-xp 00001000 fe:00 42 /srv/two\\012lines and spaces.so
nonsense
7f0000006000-7f0000007000 r-xp 00000000 fe:00 43 /usr/lib/libpython3.13.so.1.0
7ffc1000-7ffc2000 r-xp 00000000 00:00 0                                  [vdso]
";

    #[test]
    fn the_mappings_of_the_addresses_are_found() {
        let addresses =
            [0x55d0_c0a0_0010, 0x7f00_0000_0fff, 0x7f00_0000_2000, 0x7f00_0000_4001, 0x7ffc_1000];
        let maps = read(TEXT, &addresses).unwrap();
        let of = |address| maps.find(address).unwrap();
        let app = of(0x55d0_c0a0_0010);
        assert_eq!(
            (app.path.as_slice(), app.deleted, app.inode),
            (&b"/usr/bin/app"[..], true, 131_123)
        );
        assert_eq!(app.file_offset(0x55d0_c0a0_0010), 0x2010);
        assert!(app.of_file() && app.code);
        assert!(!of(0x7f00_0000_0fff).of_file() && of(0x7f00_0000_0fff).path.is_empty());
        assert!(!of(0x7f00_0000_2000).of_file(), "a JIT compiler's");
        assert_eq!(of(0x7f00_0000_4001).path, b"/srv/two\nlines and spaces.so");
        assert!(!of(0x7ffc_1000).of_file());
        assert_eq!(maps.find(0x7f00_0000_1000), None, "the end is past it");
        assert_eq!(maps.mappings.len(), 5, "and no others are kept");
        assert_eq!(maps.runtime.as_deref(), Some("libpython3.13.so.1.0"));
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        for text in
            [&b""[..], b"\n", b"-", b"a-b", b"1-2 r", b"1-2 r 3", b"1-2 r 3 4 x y", b"\xff\xff 1"]
        {
            assert_eq!(read(text, &[1]).unwrap().mappings, [], "{text:?}");
        }
        // A line without an end takes no more than a line may.
        let endless = vec![b'1'; 1 << 20];
        assert_eq!(read(&endless[..], &[1]).unwrap().mappings, []);
    }
}
