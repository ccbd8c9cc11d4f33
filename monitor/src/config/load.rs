//! The file behind a configuration.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::problem::{Problem, Problems, position};
use super::{Config, parse};

/// Where the configuration is unless a flag says otherwise.
pub const DEFAULT_PATH: &str = "/etc/leakwatch/leakwatch.toml";

/// A larger file is no configuration: a thousand units take 200 KiB.
pub const MAX_BYTES: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read; a failure (exit status 1).
    #[error("cannot read the configuration {}: {why}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why, and what to do where that is known.
        why: String,
    },
    /// The file was read and is wrong; a mistake of the user (exit status 2).
    #[error(transparent)]
    Invalid(#[from] Problems),
}

/// Reads the configuration from a file.
///
/// # Errors
/// The file cannot be read, is no file or is larger than [`MAX_BYTES`]
/// ([`LoadError::Unreadable`]), or its text is wrong ([`LoadError::Invalid`]).
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let unreadable = |why: String| LoadError::Unreadable { path: path.to_owned(), why };
    // A pipe that nobody writes to must not hold up a reload.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|e| unreadable(explain(&e)))?;
    let kind = file.metadata().map_err(|e| unreadable(explain(&e)))?.file_type();
    if kind.is_fifo() {
        return Err(unreadable("it is a pipe; name a file".into()));
    }
    read(file, path)
}

/// Reads the configuration from what is piped in, to its end; problems name
/// `origin` as the file.
///
/// # Errors
/// As [`load`].
pub fn load_from(reader: impl Read, origin: &str) -> Result<Config, LoadError> {
    read(reader, Path::new(origin))
}

fn read(reader: impl Read, path: &Path) -> Result<Config, LoadError> {
    let unreadable = |why: String| LoadError::Unreadable { path: path.to_owned(), why };
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| unreadable(explain(&e)))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unreadable("it is larger than 1 MiB, so it is hardly a configuration".into()));
    }
    let origin = path.display().to_string();
    let text = str::from_utf8(&bytes).map_err(|e| not_utf8(&bytes, e.valid_up_to(), &origin))?;
    Ok(parse(text, &origin)?)
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; run as a user who may read it, or name another file with --config"
                .into()
        }
        io::ErrorKind::IsADirectory => "it is a directory; name the file inside it".into(),
        _ => error.to_string(),
    }
}

fn not_utf8(bytes: &[u8], valid: usize, origin: &str) -> Problems {
    let good = String::from_utf8_lossy(&bytes[..valid]);
    let (line, column) = position(&good, good.len());
    let message = format!("the byte 0x{:02x} is not UTF-8; save the file as UTF-8", bytes[valid]);
    let origin = crate::text::printable(origin.as_bytes());
    Problems { kept: vec![Problem { origin, line, column, key: String::new(), message }], more: 0 }
}
