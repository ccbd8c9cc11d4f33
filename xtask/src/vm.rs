//! `cargo xtask vm`: the kernel suite inside real kernels, in virtual machines
//! under software emulation. Needs no KVM, no root and no network but apt's mirror.

pub mod apt;
pub mod arch;
mod counted;
mod cpio;
mod emulator;
mod figures;
mod guest;
mod kernel;
mod machine;
mod report;
mod suites;
mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use arch::Arch;
use figures::Figures;
pub use guest::{Options as GuestOptions, run as guest};
use kernel::{Kernel, Kernels, LINES, Line, SHORT};
use machine::Shape;
use report::Outcome;
use suites::Programs;

use crate::shell::{self, say};
use crate::workspace;

/// Lines of the console that a failure shows.
const TAIL: usize = 70;

/// Which kernels.
#[derive(Args, Debug)]
pub struct Options {
    /// Lines of kernels, such as 5.10 or 7.x for the newest of 7; all without any
    #[arg(value_name = "KERNEL")]
    kernels: Vec<Line>,
    /// Three: the oldest, one in the middle, the newest
    #[arg(long, conflicts_with_all = ["kernels", "bench", "write_docs"])]
    short: bool,
    /// Of which machine; what runs on aarch64 is cross-built, which takes some minutes
    #[arg(long, value_enum, default_value_t, conflicts_with_all = ["short", "bench", "write_docs"])]
    arch: Arch,
    /// Count instructions of workloads beside each mode instead of running the suite
    #[arg(long)]
    bench: bool,
    /// One step of the suite, or `tasks`, which takes long
    #[arg(long, value_name = "STEP", conflicts_with_all = ["short", "bench", "write_docs"])]
    only: Option<String>,
    /// Write the tables of docs/kernels.md from this run
    #[arg(long)]
    write_docs: bool,
}

/// Boots what was asked for.
///
/// # Errors
/// A kernel cannot be had, or its suite fails.
pub fn run(options: &Options) -> Result<()> {
    let (arch, only) = (options.arch, options.only.as_deref());
    suites::steps(only)?;
    emulator::install(arch)?;
    if options.short {
        return short();
    }
    let lines = if options.kernels.is_empty() { parse(&LINES) } else { options.kernels.clone() };
    let mut kernels = Kernels::look(arch)?;
    let kernels: Vec<Kernel> =
        lines.iter().map(|line| kernels.fetch(line)).collect::<Result<_>>()?;
    if options.bench {
        return bench(kernels, options.write_docs);
    }
    let outcomes = boot_all(arch, kernels, only)?;
    if options.write_docs {
        table::write(&workspace::root().join("docs/kernels.md"), &outcomes)?;
        say("vm: docs/kernels.md is written");
    }
    judge(&outcomes)
}

/// What `cargo xtask test` needs of an emulator.
///
/// # Errors
/// No suite of this machine's mirror has a good one.
pub fn install_emulator() -> Result<()> {
    emulator::install(Arch::X86)
}

/// The step of `cargo xtask test`: the oldest kernel, one in the middle, the newest.
///
/// # Errors
/// A suite fails. Under `CI=true`, a kernel cannot be had either; elsewhere that is
/// said, for who is offline has tested the rest.
pub fn short() -> Result<()> {
    let wanted = parse(&SHORT);
    let kernels = kernel::fetch_patiently(&wanted);
    let ci = workspace::is_ci();
    let mut had = Vec::new();
    for (line, kernel) in wanted.iter().zip(kernels) {
        match kernel {
            Ok(kernel) => had.push(kernel),
            Err(error) if ci => {
                bail!("kernel {line} is to be tried and cannot be had from the mirror: {error:#}")
            }
            Err(error) => say(&format!("SKIPPED: kernel {line} cannot be had: {error:#}")),
        }
    }
    if had.is_empty() { Ok(()) } else { judge(&boot_all(Arch::X86, had, None)?) }
}

fn parse(lines: &[&str]) -> Vec<Line> {
    lines.iter().filter_map(|line| line.parse().ok()).collect()
}

fn boot_all(arch: Arch, kernels: Vec<Kernel>, only: Option<&str>) -> Result<Vec<(Line, Outcome)>> {
    let steps = suites::steps(only)?.len();
    let initramfs = initramfs(arch, &suites::build(arch)?)?;
    let emulation = &machine::PARALLEL;
    let words: Vec<&str> =
        ["vm-guest"].into_iter().chain(only.iter().flat_map(|step| ["--only", step])).collect();
    let shape = Shape { arch, emulation, words: &words, suffix: arch.suffix() };
    machine::each(kernels, &initramfs, &shape, |kernel, console| {
        let outcome = Outcome::read(console, steps);
        explain(&kernel.line, &outcome, console);
        (kernel.line.clone(), outcome)
    })
}

fn bench(kernels: Vec<Kernel>, write_docs: bool) -> Result<()> {
    let arch = Arch::X86;
    let initramfs = initramfs(arch, &suites::build_to_count()?)?;
    let (emulation, words) = (&machine::COUNTED, ["vm-guest", "--bench"]);
    let shape = Shape { arch, emulation, words: &words, suffix: "-bench" };
    let all = machine::each(kernels, &initramfs, &shape, |_, console| {
        let figures = Figures::read(console);
        say(&figures::tables(std::slice::from_ref(&figures)));
        say(&format!(
            "vm: {:.1} s; the console: {}",
            console.took.as_secs_f64(),
            console.file.display()
        ));
        figures
    })?;
    if write_docs {
        let tables = figures::tables(&all);
        table::write_figures(&workspace::root().join("docs/kernels.md"), &tables)?;
        say("vm: docs/kernels.md is written");
    }
    let failed: Vec<&str> = all
        .iter()
        .filter(|figures| !figures.troubles.is_empty())
        .map(|figures| figures.release.as_str())
        .collect();
    if !failed.is_empty() {
        bail!("not everything could be measured on {}: see above", failed.join(", "));
    }
    Ok(())
}

/// Says what went wrong, with the end of what was printed meanwhile.
fn explain(line: &Line, outcome: &Outcome, console: &machine::Console) {
    for step in outcome.steps.iter().filter(|step| !step.ok) {
        let end = report::tail(&step.said, TAIL);
        say(&format!("--- {line}, {}: {} ends so ---\n{end}\n---", step.name, step.word));
    }
    if let Some(trouble) = &outcome.trouble {
        let end = report::tail(&console.text, TAIL);
        say(&format!("--- {line}: {trouble}; the console ends so ---\n{end}\n---"));
    }
    if !outcome.passed() {
        say(&format!("vm: the whole console is in {}", console.file.display()));
    }
}

fn judge(outcomes: &[(Line, Outcome)]) -> Result<()> {
    say(&format!("\n{}", table::results(outcomes)));
    let failed: Vec<String> =
        outcomes.iter().filter(|(_, o)| !o.passed()).map(|(line, _)| line.to_string()).collect();
    if !failed.is_empty() {
        bail!("the kernel suite fails on {}: see above", failed.join(", "));
    }
    Ok(())
}

/// Everything a machine needs, in one file.
fn initramfs(arch: Arch, programs: &Programs) -> Result<PathBuf> {
    let mut archive = cpio::Archive::default();
    for dir in ["proc", "sys", "dev", "tmp", "run", "bin"] {
        archive.directory(dir);
    }
    for path in suites::libraries(arch, programs)? {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        archive.program(path.to_string_lossy().trim_start_matches('/'), &bytes);
    }
    for (name, path) in programs {
        let bytes = stripped(arch, path, name == suites::WITH_SYMBOLS)?;
        match name.as_str() {
            "xtask" => archive.program("init", &bytes),
            // Two programs of Debian's that the test programs start.
            "rest" => {
                archive.program("bin/true", &bytes);
                archive.program("bin/sleep", &bytes);
                archive.program(&format!("{}/rest", suites::HOME), &bytes);
            }
            _ => archive.program(&format!("{}/{name}", suites::HOME), &bytes),
        }
    }
    let file = workspace::target().join(format!("vm/initramfs{}.cpio", arch.suffix()));
    // Another run may be about to boot the one that is there.
    let new = file.with_extension(std::process::id().to_string());
    fs::write(&new, archive.finish())
        .and_then(|()| fs::rename(&new, &file))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Without symbols, unless they are wanted: half the size, and a backtrace in there is of
/// no use.
fn stripped(arch: Arch, path: &std::path::Path, symbols: bool) -> Result<Vec<u8>> {
    let copy = tempfile::NamedTempFile::new_in(workspace::target().join("vm"))?;
    let mut strip = shell::command(arch.strip());
    let what = if symbols { "--strip-debug" } else { "--strip-all" };
    strip.arg(what).arg("-o").arg(copy.path()).arg(path);
    shell::capture(&mut strip).context("the initramfs needs binutils")?;
    fs::read(copy.path()).context("cannot read what strip wrote")
}
