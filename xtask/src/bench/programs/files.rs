//! A search through many small files: little but opens, reads and closes.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::aim;
use crate::bench::mode::Mode;
use crate::bench::rounds::Work;
use crate::bench::stats::Sample;
use crate::shell;

const DIRECTORIES: usize = 100;
const FILES: usize = 1_000;
/// On disk, where /tmp may be memory.
const WHERE: &str = "/var/tmp";

/// A directory of small files.
pub struct Search {
    files: TempDir,
}

impl Search {
    /// Writes the files.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn new() -> Result<Self> {
        let files = tempfile::tempdir_in(WHERE)
            .with_context(|| format!("cannot make a directory in {WHERE}"))?;
        for directory in 0..DIRECTORIES {
            let directory = files.path().join(format!("d{directory:02}"));
            fill(&directory).with_context(|| format!("cannot fill {}", directory.display()))?;
        }
        Ok(Self { files })
    }
}

fn fill(directory: &Path) -> std::io::Result<()> {
    fs::create_dir(directory)?;
    (0..FILES).try_for_each(|file| fs::write(directory.join(format!("f{file:03}")), [b'x'; 100]))
}

impl Work for Search {
    fn title(&self) -> &'static str {
        "find, xargs cat of 100,000 files"
    }

    /// Seconds.
    fn cost(&mut self, _: Mode) -> Result<f64> {
        let mut sh = shell::command("sh");
        sh.args(["-c", "find . -type f -print0 | xargs -0 cat >/dev/null"]);
        let started = Instant::now();
        shell::capture(sh.current_dir(self.files.path()))?;
        Ok(started.elapsed().as_secs_f64())
    }

    fn bare(&self, costs: Vec<f64>) -> String {
        Sample::new(costs).spread(" s", 2)
    }

    fn aim(&self, mode: Mode) -> Option<f64> {
        aim(mode)
    }
}
