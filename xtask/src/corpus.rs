//! `cargo xtask corpus`: how good the verdicts are, and two simpler methods beside them.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::shell::{self, say};
use crate::{setup, workspace};

/// Between these lines of the page stands what this command writes.
const BEGIN: &str = "<!-- written by `cargo xtask corpus` -->";
const END: &str = "<!-- end -->";

/// Which part.
#[derive(clap::Args)]
pub struct Options {
    /// The generated cases alone: no root, no recording; prints, and writes nothing
    #[arg(long)]
    generated: bool,
}

/// Builds, judges the corpus, and writes the tables into docs/detection.md.
///
/// # Errors
/// Not root for the real programs, or a case cannot be judged.
pub fn run(options: &Options) -> Result<()> {
    if !options.generated && !rustix::process::geteuid().is_root() {
        bail!(
            "real programs are recorded with all privileges: run it as root, or with --generated"
        );
    }
    if !options.generated {
        setup::programs()?;
    }
    let packages = ["--package", "leakwatch", "--package", "leakwatch-tests"];
    shell::run(shell::cargo(["build", "--locked"]).args(packages))?;
    let mut judge = shell::command(workspace::target().join("debug/corpus"));
    if options.generated {
        judge.args(["--only", "generated"]);
    }
    let tables = shell::capture(&mut judge)?;
    say(&tables);
    if options.generated {
        return Ok(());
    }
    let path = workspace::root().join("docs/detection.md");
    let page = fs::read_to_string(&path).context("docs/detection.md cannot be read")?;
    let page = splice(&page, &tables).context("docs/detection.md has no place for the tables")?;
    fs::write(&path, page).context("docs/detection.md cannot be written")?;
    say(&format!("written to {}", path.display()));
    Ok(())
}

/// Puts `tables` between the marks.
fn splice(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = splice(&page, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(splice(&new, "new\n").as_deref(), Some(new.as_str()));
        assert_eq!(splice("no marks", "new"), None);
    }
}
