//! Globs of the config over bytes of the kernel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// What a glob is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A path: `*` stops at `/`, `**` does not.
    Path,
    /// Any other text, such as a command line or a unit name: `*` matches all.
    Text,
}

/// A compiled glob.
///
/// It is a set of one: `globset` reports a glob that is too large for its
/// engine when it builds a set, and panics when it builds a single matcher.
#[derive(Clone, Debug)]
pub struct Glob {
    set: GlobSet,
    pattern: String,
}

impl Glob {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// The pattern is malformed (`[`, `{` left open and the like) or too large.
    pub fn new(pattern: &str, subject: Subject) -> Result<Self, globset::Error> {
        let glob = GlobBuilder::new(pattern)
            .literal_separator(subject == Subject::Path)
            .backslash_escape(true)
            .build()?;
        let set = GlobSetBuilder::new().add(glob).build()?;
        Ok(Self { set, pattern: pattern.to_owned() })
    }

    /// Whether the bytes match.
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        self.set.is_match(Path::new(OsStr::from_bytes(bytes)))
    }

    /// The pattern as given.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_stops_at_slashes_in_paths_only() {
        let path = |p: &str| Glob::new(p, Subject::Path).unwrap();
        let text = |p: &str| Glob::new(p, Subject::Text).unwrap();
        assert!(path("/var/log/*.log").is_match(b"/var/log/a.log"));
        assert!(!path("/var/log/*.log").is_match(b"/var/log/x/a.log"));
        assert!(path("**/*.jsonl").is_match(b"/srv/a/b.jsonl"));
        assert!(text("*runner.py*").is_match(b"python3 /opt/x/runner.py --a"));
        assert!(text("a*").is_match(b"a\xff\n"));
        assert!(Glob::new("[", Subject::Path).is_err());
    }

    #[test]
    fn a_glob_too_large_to_compile_is_an_error() {
        let deep = format!("{}b{}", "{a,".repeat(400), "}".repeat(400));
        assert!(Glob::new(&deep, Subject::Text).is_err());
        let wide = format!("{{{}x}}", "é*,?[!ab],".repeat(50_000));
        assert!(Glob::new(&wide, Subject::Text).is_err());
    }
}
