//! The files of the last pass of the census, so that a path that stays is sent
//! and stored once.

use super::address::AddressMap;
use super::model::{FdKind, KernelStr};

/// How far ahead of the last match a file is looked for: past the descriptors
/// that a process has closed meanwhile.
const AHEAD: usize = 16;

/// An open file description, by what its path tells.
#[derive(Clone, Debug)]
pub struct KnownFile {
    /// Address of `struct file`.
    pub file: u64,
    /// Inode number; with the device it tells another file at the same address.
    pub inode: u64,
    /// Device number.
    pub device: u32,
    /// Kind.
    pub kind: FdKind,
    /// Path.
    pub path: KernelStr,
}

/// Files in the order in which the passes meet them.
///
/// Two passes meet nearly the same files in the same order, so the next one is
/// most often where it is expected, in memory that is read in sequence: on a
/// quiet host no table is asked at all.
#[derive(Default)]
pub struct KnownFiles {
    /// The last pass.
    last: Vec<KnownFile>,
    /// This one.
    next: Vec<KnownFile>,
    /// Where in `last` the next file is expected.
    cursor: usize,
    /// Places in `last` by address, made when one is not where it is expected.
    places: Option<AddressMap<usize>>,
    /// Places in `next` of what this pass named anew: what is met again under
    /// another descriptor has the new name, not the one in `last`.
    renamed: AddressMap<usize>,
}

impl KnownFiles {
    /// A pass has ended; the next begins.
    pub fn turn(&mut self) {
        self.last = std::mem::take(&mut self.next);
        self.next.reserve(self.last.len() + 16);
        self.cursor = 0;
        self.places = None;
        self.renamed = AddressMap::default();
    }

    /// A file whose path was sent in an earlier pass; `None` if it is not known,
    /// or if another has its address.
    pub fn again(&mut self, file: u64, inode: u64, device: u32) -> Option<&KnownFile> {
        let known = match self.renamed.get(&file) {
            Some(at) => self.next[*at].clone(),
            None => {
                let at = self.find(file)?;
                self.last[at].clone()
            }
        };
        if (known.inode, known.device) != (inode, device) {
            return None;
        }
        self.next.push(known);
        self.next.last()
    }

    /// A file whose path was sent now. Its text is that of the last pass where
    /// that is the same.
    pub fn named(
        &mut self,
        file: u64,
        path: &[u8],
        make: impl FnOnce(KernelStr) -> KnownFile,
    ) -> &KnownFile {
        let expected = self.last.get(self.cursor).filter(|k| k.file == file);
        let same = expected.filter(|k| k.path.as_bytes() == path).map(|k| k.path.clone());
        if same.is_none() {
            self.renamed.insert(file, self.next.len());
        }
        self.cursor += usize::from(expected.is_some());
        let text = same.unwrap_or_else(|| KernelStr::from(path));
        self.next.push(make(text));
        // Just pushed.
        &self.next[self.next.len() - 1]
    }

    fn find(&mut self, file: u64) -> Option<usize> {
        let ahead = self.last.iter().enumerate().skip(self.cursor).take(AHEAD);
        let near = ahead.into_iter().find(|(_, known)| known.file == file).map(|(at, _)| at);
        // A copy that dup or fork made a moment ago is met in this pass first.
        let at = match near {
            Some(at) => at,
            None => {
                let last = &self.last;
                let places = self.places.get_or_insert_with(|| {
                    last.iter().enumerate().map(|(at, known)| (known.file, at)).collect()
                });
                *places.get(&file)?
            }
        };
        self.cursor = at + 1;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(known: &mut KnownFiles, file: u64, path: &str) -> String {
        let make = |path| KnownFile { file, inode: file, device: 1, kind: FdKind::Regular, path };
        known.named(file, path.as_bytes(), make).path.to_string()
    }

    fn again(known: &mut KnownFiles, file: u64) -> Option<String> {
        known.again(file, file, 1).map(|k| k.path.to_string())
    }

    #[test]
    fn what_is_sent_once_is_known_in_every_later_pass() {
        let mut known = KnownFiles::default();
        for file in 1..100 {
            name(&mut known, file, &format!("/{file}"));
        }
        for _ in 0..3 {
            known.turn();
            // Some were closed, more at once than is looked ahead.
            for file in (1..100).filter(|f| f % 3 != 0 && !(20..60).contains(f)) {
                assert_eq!(again(&mut known, file), Some(format!("/{file}")));
            }
        }
        known.turn();
        assert_eq!(again(&mut known, 3), None, "gone for a pass is forgotten");
    }

    #[test]
    fn a_copy_met_first_or_later_has_the_name() {
        let mut known = KnownFiles::default();
        name(&mut known, 1, "/a");
        assert_eq!(again(&mut known, 1).as_deref(), Some("/a"), "its copy, in the same pass");
        name(&mut known, 2, "/b");
        known.turn();
        assert_eq!(again(&mut known, 2).as_deref(), Some("/b"), "a new copy, met before");
        assert_eq!(name(&mut known, 1, "/renamed"), "/renamed");
        assert_eq!(again(&mut known, 1).as_deref(), Some("/renamed"), "the old copy");
        assert_eq!(again(&mut known, 2).as_deref(), Some("/b"));
    }

    #[test]
    fn another_file_at_the_same_address_is_not_taken_for_the_old_one() {
        let mut known = KnownFiles::default();
        name(&mut known, 1, "/a");
        known.turn();
        assert!(known.again(1, 99, 1).is_none());
        assert!(known.again(1, 1, 2).is_none());
        assert!(known.again(7, 7, 1).is_none());
    }
}
