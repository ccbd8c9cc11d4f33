//! An initramfs: the "newc" format of cpio, which is all that the kernel reads.
//! Not compressed: under emulation unpacking would take longer than loading.

use std::collections::BTreeSet;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory, and those above it.
    pub fn directory(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let part = &path[..end];
            if !part.is_empty() && self.directories.insert(part.to_owned()) {
                self.entry(part, DIRECTORY, b"");
            }
        }
    }

    /// Adds an executable file with the directories above it.
    pub fn program(&mut self, path: &str, content: &[u8]) {
        if let Some(above) = Path::new(path).parent().and_then(Path::to_str) {
            self.directory(above);
        }
        self.entry(path, PROGRAM, content);
    }

    /// The archive with its trailer.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("an initramfs file is below 4 GiB");
        let name = u32::try_from(path.len()).expect("a path is short") + 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        // inode, mode, uid, gid, links, mtime, size, device, its own device, name, check
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.program("t/a", b"12345");
        archive.program("t/b", b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).expect("ASCII");
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what:?} in {text:?}"));
        assert!(at("t\0") < at("t/a\0") && at("t/a\0") < at("12345") && at("12345") < at("t/b\0"));
        assert_eq!(text.matches("070701").count(), 4, "a directory, two files, the trailer");
        // 110 bytes of header, then the name, padded.
        assert_eq!(&text[..14], "07070100000001");
        assert_eq!(&text[14..22], "000041ed", "the mode of a directory");
        assert_eq!(at("12345") % 4, 0);
    }
}
