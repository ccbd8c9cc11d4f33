//! Files in the directories for temporary ones: those that are there after the
//! command and were not before.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Levels of directories that are looked through; fewer where there are too many entries.
const DEPTHS: [u32; 3] = [4, 2, 1];
/// Entries that are looked at, at most.
const ENTRIES: usize = 100_000;

/// A file or directory that appeared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Appeared {
    pub(super) path: String,
    /// The same as it is.
    pub(super) raw: Vec<u8>,
    /// The program of the command that had it open; without one another may have made it.
    pub(super) program: Option<String>,
}

/// What was there before.
pub(super) struct Temporary {
    roots: Vec<PathBuf>,
    depth: u32,
    before: HashSet<(u64, u64, PathBuf)>,
}

impl Temporary {
    /// Looks at `/tmp`, `/var/tmp` and `$TMPDIR`.
    pub(super) fn before() -> Self {
        let given = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|p| p.is_absolute());
        let roots: Vec<PathBuf> =
            ["/tmp", "/var/tmp"].into_iter().map(PathBuf::from).chain(given).collect();
        Self::of(roots)
    }

    fn of(mut roots: Vec<PathBuf>) -> Self {
        // As the kernel shows them in /proc.
        for root in &mut roots {
            if let Ok(real) = root.canonicalize() {
                *root = real;
            }
        }
        roots.sort_unstable();
        roots.dedup();
        for depth in DEPTHS {
            let mut before = HashSet::new();
            for root in &roots {
                walk(root, depth, &mut before, &|_| true);
            }
            // Of what was not looked at before, nobody can say that it has appeared.
            if before.len() < ENTRIES {
                return Self { roots, depth, before };
            }
        }
        Self { roots, depth: 0, before: HashSet::new() }
    }

    /// In a sentence, what is not looked at.
    pub(super) fn blind(&self) -> Option<String> {
        match self.depth {
            depth if depth == DEPTHS[0] => None,
            0 => Some(format!(
                "temporary files: there are more than {ENTRIES} in the directories for them"
            )),
            depth => Some(format!(
                "temporary files below {depth} levels of directories: there are too many to compare"
            )),
        }
    }

    /// Whether a path is of one of the directories.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        self.roots.iter().any(|root| {
            path.strip_prefix(root.as_os_str().as_bytes()).is_some_and(|p| p.starts_with(b"/"))
        })
    }

    /// What has appeared of this user's; a new directory stands for all in it.
    pub(super) fn after(&self, opened: &HashMap<Vec<u8>, String>) -> Vec<Appeared> {
        let openers = openers(opened);
        let mut after = HashSet::new();
        for root in self.roots.iter().filter(|_| self.depth > 0) {
            walk(root, self.depth, &mut after, &|entry| self.before.contains(entry));
        }
        let user = rustix::process::geteuid().as_raw();
        let mut appeared: Vec<Appeared> = after
            .difference(&self.before)
            .filter(|(_, _, path)| path.symlink_metadata().is_ok_and(|m| m.uid() == user))
            .map(|(_, _, path)| Appeared {
                path: crate::text::printable(path.as_os_str().as_bytes()),
                raw: path.as_os_str().as_bytes().to_vec(),
                program: openers.get(path.as_path()).map(|program| (*program).to_owned()),
            })
            .collect();
        appeared.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        appeared
    }
}

/// Of each file that was open, and of each directory above one.
fn openers(opened: &HashMap<Vec<u8>, String>) -> HashMap<&Path, &str> {
    let mut openers: HashMap<&Path, &str> = HashMap::new();
    for (path, program) in opened {
        for path in Path::new(OsStr::from_bytes(path)).ancestors() {
            // The first by name, so that each run says the same.
            let first = openers.entry(path).or_insert(program);
            *first = (*first).min(program);
        }
    }
    openers
}

fn walk(
    dir: &Path,
    depth: u32,
    into: &mut HashSet<(u64, u64, PathBuf)>,
    enter: &dyn Fn(&(u64, u64, PathBuf)) -> bool,
) {
    // What may not be read is not this user's.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        if into.len() >= ENTRIES {
            return;
        }
        let it = (meta.dev(), meta.ino(), entry.path());
        if meta.is_dir() && depth > 1 && enter(&it) {
            walk(&it.2, depth - 1, into, enter);
        }
        into.insert(it);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appeared_is_named_once_with_its_opener() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::write(root.join("old"), "").unwrap();
        let temporary = Temporary::of(vec![root.clone()]);
        assert_eq!(temporary.after(&HashMap::new()), []);
        std::fs::create_dir(root.join("new")).unwrap();
        std::fs::write(root.join("new/inside"), "").unwrap();
        std::fs::write(root.join("other"), "").unwrap();
        std::fs::write(root.join("odd\n"), "").unwrap();
        let text = |name: &str| root.join(name).display().to_string();
        let open = |name: &str, by: &str| (text(name).into_bytes(), by.to_owned());
        let opened = HashMap::from([open("new/inside", "cc"), open("odd\n", "ld")]);
        let appeared = |path: &str, raw: &str, program: Option<&str>| Appeared {
            path: text(path),
            raw: text(raw).into_bytes(),
            program: program.map(str::to_owned),
        };
        assert_eq!(
            temporary.after(&opened),
            [
                appeared("new", "new", Some("cc")),
                appeared("odd\\u{a}", "odd\n", Some("ld")),
                appeared("other", "other", None)
            ]
        );
        assert!(temporary.covers(text("x").as_bytes()) && !temporary.covers(b"/etc/passwd"));
    }
}
