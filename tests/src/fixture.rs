//! The fixtures with frames that are known: see `fixtures/opener.rs` and
//! `fixtures/forgets.c`.

use std::path::{Path, PathBuf};

use crate::install;

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/opener"));
const SOURCE: &str = include_str!("../fixtures/opener.rs");

const FORGETS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/forgets"));
const FORGETS_PLAIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/forgets-plain"));
const C_SOURCE: &str = include_str!("../fixtures/forgets.c");

/// Puts the program into a directory under this name.
///
/// # Panics
/// It cannot be written.
pub fn put(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    install::write(&path, PROGRAM);
    path
}

/// Puts the program in C, which keeps no frame pointers, into a directory under this
/// name: with what debuggers want, or with symbols alone.
///
/// # Panics
/// It cannot be written.
pub fn put_forgets(dir: &Path, name: &str, lines: bool) -> PathBuf {
    let path = dir.join(name);
    install::write(&path, if lines { FORGETS } else { FORGETS_PLAIN });
    path
}

/// The line of the first one's source with this comment.
///
/// # Panics
/// There is none.
pub fn line(comment: &str) -> u32 {
    line_of(SOURCE, comment)
}

/// The same of the one in C.
///
/// # Panics
/// There is none.
pub fn line_in_c(comment: &str) -> u32 {
    line_of(C_SOURCE, comment)
}

fn line_of(source: &str, comment: &str) -> u32 {
    let comment = format!("// {comment}");
    let at = source.lines().position(|l| l.ends_with(&comment));
    at.unwrap_or_else(|| panic!("no line has {comment:?}")) as u32 + 1
}
