//! A build of a C program: many short processes, each opening many files.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::aim;
use crate::bench::mode::Mode;
use crate::bench::rounds::Work;
use crate::bench::stats::Sample;
use crate::shell;

const FILES: usize = 60;
const FUNCTIONS: usize = 20;

/// A program's source, made anew and always the same.
pub struct Build {
    source: TempDir,
}

impl Build {
    /// Writes the source.
    ///
    /// # Errors
    /// When make or gcc is missing, or the files cannot be written.
    pub fn new() -> Result<Self> {
        for name in ["make", "gcc"] {
            shell::which(name).with_context(|| format!("`{name}` is missing: install {name}"))?;
        }
        let source = tempfile::tempdir().context("cannot make a temporary directory")?;
        let write = |name: &str, text: &str| {
            let path = source.path().join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut objects = String::new();
        for file in 0..FILES {
            write(&format!("part{file}.c"), &part(file))?;
            let _ = write!(objects, " part{file}.o");
        }
        write("main.c", &main())?;
        let rules =
            format!("program: main.o{objects}\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -O1 -c -o $@ $<\n");
        write("Makefile", &rules)?;
        Ok(Self { source })
    }
}

impl Work for Build {
    fn title(&self) -> &'static str {
        "build of a C program"
    }

    /// Seconds.
    fn cost(&mut self, _: Mode) -> Result<f64> {
        let mut make = shell::command("make");
        make.args(["--silent", "--always-make", "-j1"]).current_dir(self.source.path());
        let started = Instant::now();
        shell::capture(&mut make)?;
        Ok(started.elapsed().as_secs_f64())
    }

    fn bare(&self, costs: Vec<f64>) -> String {
        Sample::new(costs).spread(" s", 2)
    }

    fn aim(&self, mode: Mode) -> Option<f64> {
        aim(mode)
    }
}

/// One file: some headers, and functions that an optimiser has something to do with.
fn part(file: usize) -> String {
    let mut text = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    for function in 0..FUNCTIONS {
        let _ = write!(
            text,
            "\nstatic unsigned step{function}(const unsigned *v, size_t n)\n{{\n\
             \tunsigned sum = {file};\n\tfor (size_t i = 0; i < n; i++) {{\n\
             \t\tif (v[i] % {odd} == 0)\n\t\t\tsum += v[i] * {function};\n\
             \t\telse\n\t\t\tsum ^= v[i] >> {shift};\n\t}}\n\treturn sum;\n}}\n",
            odd = 2 * function + 3,
            shift = function % 7 + 1
        );
    }
    let _ = write!(
        text,
        "\nunsigned part{file}(const unsigned *v, size_t n)\n{{\n\tunsigned sum = 0;\n"
    );
    for function in 0..FUNCTIONS {
        let _ = writeln!(text, "\tsum += step{function}(v, n);");
    }
    text.push_str("\treturn sum;\n}\n");
    text
}

/// Calls all parts.
fn main() -> String {
    let mut text = String::from("#include <stdio.h>\n\n");
    for file in 0..FILES {
        let _ = writeln!(text, "unsigned part{file}(const unsigned *v, size_t n);");
    }
    text.push_str("\nint main(void)\n{\n\tunsigned v[64] = {1, 2, 3}, sum = 0;\n");
    for file in 0..FILES {
        let _ = writeln!(text, "\tsum += part{file}(v, 64);");
    }
    text.push_str("\tprintf(\"%u\\n\", sum);\n\treturn 0;\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_always_the_same_and_of_some_hundred_lines() {
        assert_eq!(part(3), part(3));
        assert!((200..400).contains(&part(0).lines().count()));
        assert!(main().contains("sum += part59(v, 64);"));
    }
}
