//! What `leakwatch run` costs the command that it runs: a build of a small crate.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::report::Table;
use super::stats::Sample;
use crate::workspace;

/// Modules of the crate, and functions in each.
const MODULES: usize = 8;
const FUNCTIONS: usize = 16;
/// The most that the build should take, times that without.
const AIM: f64 = 1.05;

/// How the build is run.
const WAYS: [(&str, &[&str]); 2] =
    [("`leakwatch run`", &[]), ("`leakwatch run --no-probes`", &["--no-probes"])];

/// The section: pairs of builds in turns, each from nothing.
///
/// # Errors
/// When cargo or leakwatch cannot be started, or the build fails.
pub fn measure(rounds: u32) -> Result<String> {
    // Not among temporary files, of which leakwatch would say who made them.
    let dir = tempfile::tempdir_in(workspace::target()).context("cannot make a directory")?;
    write(dir.path())?;
    // The first one warms up.
    build(&dir, None)?;
    let mut bare = Vec::new();
    let mut ratios = [const { Vec::new() }; WAYS.len()];
    for _ in 0..rounds {
        for ((_, flags), ratios) in WAYS.iter().zip(&mut ratios) {
            let without = build(&dir, None)?;
            ratios.push(build(&dir, Some(flags))? / without);
            bare.push(without);
        }
    }
    let mut table = Table::new(&["`cargo build` of a small crate", "times as long as without"]);
    for ((title, _), ratios) in WAYS.iter().zip(ratios) {
        let sample = Sample::new(ratios);
        let told = sample.told(AIM);
        table.row(&[(*title).to_owned(), format!("{} · aim {AIM}: {told}", sample.spread("", 3))]);
    }
    Ok(format!(
        "## A command under run\n\n{rounds} pairs of builds in turns, of {MODULES} modules with \
         {FUNCTIONS} functions each, from nothing, by one\njob: {} without \
         ([run.md](run.md)). The start and the end of leakwatch itself are in it.\n\n{}",
        Sample::new(bare).spread(" s", 2),
        table.text()
    ))
}

/// Seconds.
fn build(dir: &TempDir, under: Option<&&[&str]>) -> Result<f64> {
    let target = dir.path().join("target");
    if target.exists() {
        fs::remove_dir_all(&target).context("cannot remove what was built")?;
    }
    let mut command = match under {
        None => Command::new("cargo"),
        Some(flags) => {
            let mut run = Command::new(workspace::target().join("release/leakwatch"));
            run.arg("run").args(*flags).args(["--report=/dev/null", "--", "cargo"]);
            run
        }
    };
    command
        .args(["build", "--offline", "--quiet", "--jobs=1"])
        .current_dir(dir.path())
        .env("CARGO_TARGET_DIR", &target)
        .stdin(Stdio::null());
    let begun = Instant::now();
    let status = command.status().context("cannot start the build")?;
    ensure!(status.success(), "the build failed: {status}");
    Ok(begun.elapsed().as_secs_f64())
}

/// The crate, always the same; without dependencies, for there may be no network.
fn write(dir: &Path) -> Result<()> {
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    fs::create_dir(dir.join("src")).context("cannot make a directory")?;
    put(
        "Cargo.toml",
        "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n",
    )?;
    let mut main = String::new();
    for n in 0..MODULES {
        main.push_str(&format!("mod part{n};\n"));
        put(&format!("src/part{n}.rs"), &part())?;
    }
    main.push_str("\nfn main() {\n    let mut sum = 0;\n");
    for n in 0..MODULES {
        main.push_str(&format!("    sum += part{n}::all({n}).len();\n"));
    }
    main.push_str("    println!(\"{sum}\");\n}\n");
    put("src/main.rs", &main)
}

/// A module: functions that a compiler has something to do with.
fn part() -> String {
    let mut text = String::from("use std::collections::BTreeMap;\n");
    for n in 0..FUNCTIONS {
        text.push_str(&format!(
            "\nfn step{n}(from: u64) -> BTreeMap<String, Vec<u64>> {{\n    \
             (0..from + {n}).filter(|x| x % 3 != 1).map(|x| (format!(\"{{x}}-{n}\"), \
             (0..x).map(|y| y * {n}).collect())).collect()\n}}\n"
        ));
    }
    text.push_str("\npub fn all(from: u64) -> Vec<String> {\n    let mut all = Vec::new();\n");
    for n in 0..FUNCTIONS {
        text.push_str(&format!("    all.extend(step{n}(from).into_keys());\n"));
    }
    text.push_str("    all\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crate_is_always_the_same() {
        assert_eq!(part(), part());
        assert_eq!(part().matches("fn step").count(), FUNCTIONS);
    }
}
