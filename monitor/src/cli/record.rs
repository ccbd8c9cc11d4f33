//! `leakwatch record`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use super::failure::{Failure, say};
use super::flags::{LogFormat, RecordFlags};
use super::{logging, paths};
use crate::pipeline::trace::{self, Format, RecordError, Recording, Teller};
use crate::text;

/// Writes a trace until it is told to stop.
pub(super) fn run(flags: &RecordFlags) -> Result<ExitCode, Failure> {
    let (config_path, config) = paths::read_config(&flags.config)?;
    logging::start(flags.log_level, LogFormat::Text).map_err(Failure::Failed)?;
    let path = flags.file.as_path();
    // Also now, before the programs are loaded, which takes a second.
    may_write(path, flags.force).map_err(|why| refused(path, &why))?;
    let format = if flags.json { Format::Json } else { Format::Text };
    let recording =
        Recording { config_path, config, duration: flags.duration, max_size: flags.max_size };
    let open = || create(path, flags.force);
    let recorded =
        trace::record(recording, open, Teller::new(io::stdout(), format)).map_err(|e| match e {
            RecordError::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            e => refused(path, &e),
        })?;
    let size = text::bytes(recorded.bytes);
    say(&format!("{}: {size}, ended: {}", path.display(), recorded.why));
    Ok(ExitCode::SUCCESS)
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: {why}", path.display()))
}

/// Only a file that was asked for is replaced, and nothing else is: a link would
/// lead elsewhere, and what is read from a pipe is no trace that can be replayed twice.
fn may_write(path: &Path, force: bool) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(format!("it cannot be written: {e}")),
        Ok(there) if !there.is_file() => {
            Err("it is there and is no regular file; name another".to_owned())
        }
        Ok(_) if force => Ok(()),
        Ok(_) => Err("it is there already; name another, or replace it by --force".to_owned()),
    }
}

fn create(path: &Path, force: bool) -> io::Result<File> {
    may_write(path, force).map_err(io::Error::other)?;
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // A new one, whatever came into its place meanwhile.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_what_was_asked_for_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let file = create(&at("new"), false).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(create(&at("new"), false).is_err());
        fs::write(at("new"), "old").unwrap();
        create(&at("new"), true).unwrap();
        assert_eq!(fs::read(at("new")).unwrap(), b"");

        fs::write(at("target"), "kept").unwrap();
        symlink(at("target"), at("link")).unwrap();
        fs::create_dir(at("dir")).unwrap();
        for name in ["link", "dir"] {
            assert!(create(&at(name), true).is_err(), "{name}");
        }
        assert_eq!(fs::read(at("target")).unwrap(), b"kept");
        assert!(create(&at("none/file"), false).is_err());
    }
}
