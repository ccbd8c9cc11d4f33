//! Where the report goes.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::failure::Failure;

/// A file, or a pipe or device, that could be written before the command was started.
pub(super) struct Destination<'a> {
    path: &'a Path,
    /// What is no file stays open: who reads a pipe waits for its end.
    stream: Option<File>,
    /// It was not there.
    made: bool,
}

impl<'a> Destination<'a> {
    /// Tries it, and changes nothing that is there: the command may fail to start.
    ///
    /// # Errors
    /// It cannot be written, or is the baseline.
    pub(super) fn open(path: &'a Path, baseline: Option<&Path>) -> Result<Self, Failure> {
        let there = fs::metadata(path).ok();
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let known = baseline.and_then(|path| fs::metadata(path).ok());
        if there.as_ref().zip(known.as_ref()).is_some_and(|(a, b)| a.is_file() && same(a, b)) {
            return Err(Failure::Failed(format!(
                "{}: it is the baseline, and a report leaves out what that has; give another file",
                path.display()
            )));
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|e| refused(path, &e))?;
        let regular = file.metadata().is_ok_and(|meta| meta.is_file());
        Ok(Self { path, stream: (!regular).then_some(file), made: there.is_none() })
    }

    /// Replaces what it held. It is opened anew, for the command may have removed or
    /// written it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(self, text: &str) -> Result<(), Failure> {
        // Past the limit for files there is an error to tell, not a signal to die of.
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let stream = self.stream.map_or_else(|| File::create(self.path), Ok);
        let written = stream.and_then(|mut stream| stream.write_all(text.as_bytes()));
        written.map_err(|e| refused(self.path, &e))
    }

    /// There is nothing to report.
    pub(super) fn discard(self) {
        if self.made && self.stream.is_none() {
            // If somebody else has removed it, so much the better.
            let _ = fs::remove_file(self.path);
        }
    }
}

fn refused(path: &Path, why: &io::Error) -> Failure {
    Failure::Failed(format!("{}: it cannot be written: {why}", path.display()))
}
