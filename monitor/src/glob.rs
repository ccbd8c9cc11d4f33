//! Globs of the config over bytes of the kernel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

/// What a glob is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A path: `*` stops at `/`, `**` does not.
    Path,
    /// Any other text, such as a command line or a unit name: `*` matches all.
    Text,
}

/// A compiled glob.
#[derive(Clone, Debug)]
pub struct Glob(GlobMatcher);

impl Glob {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// The pattern is malformed (`[`, `{` left open and the like).
    pub fn new(pattern: &str, subject: Subject) -> Result<Self, globset::Error> {
        let glob = GlobBuilder::new(pattern)
            .literal_separator(subject == Subject::Path)
            .backslash_escape(true)
            .build()?;
        Ok(Self(glob.compile_matcher()))
    }

    /// Whether the bytes match.
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        self.0.is_match(Path::new(OsStr::from_bytes(bytes)))
    }

    /// The pattern as given.
    pub fn pattern(&self) -> &str {
        self.0.glob().glob()
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
}
