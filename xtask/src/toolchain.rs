//! Finds a compiler and a linker that can build for the BPF target.
//!
//! The target has no prebuilt `core`, so the compiler must come with the source
//! of its own one. Two kinds do: a rustup nightly with the component `rust-src`,
//! and a distribution's rustc with its source package.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// The BPF linker: later releases want a later compiler.
pub const BPF_LINKER: &str = "0.13.0";

/// Where a sysroot keeps the library's source.
const LIBRARY: &str = "lib/rustlib/src/rust/library/Cargo.toml";

/// A compiler with its own `core`, and the linker.
#[derive(Debug)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// Its cargo, where it has one of its own; else the cargo at hand.
    pub cargo: Option<PathBuf>,
    /// Its clippy driver, where it is installed.
    pub clippy_driver: Option<PathBuf>,
    /// The directory that holds its libraries.
    pub sysroot: PathBuf,
    /// What `rustc --version` says.
    pub version: String,
    /// What `bpf-linker --version` says.
    pub linker: String,
}

impl Toolchain {
    /// The first toolchain that works; one whose version is `preferred` goes
    /// before all others, because only it can give the same bytes.
    ///
    /// # Errors
    /// When none works: says what each of them lacks and how to get it.
    pub fn find(preferred: Option<&str>) -> Result<Self> {
        let Some(linker) = linker_version() else {
            bail!(
                "bpf-linker is missing: run `cargo xtask setup`, or\n  \
                 LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version {BPF_LINKER} \
                 --no-default-features --features llvm-22 --locked"
            );
        };
        let mut lacking = Vec::new();
        let mut found = Vec::new();
        for candidate in candidates() {
            match inspect(&candidate, &linker) {
                Ok(toolchain) => found.push(toolchain),
                Err(why) => lacking.push(format!("  {candidate}: {why}")),
            }
        }
        let best = found.iter().position(|t| preferred == Some(t.version.as_str())).unwrap_or(0);
        if found.is_empty() {
            bail!(
                "no compiler here can build for the BPF target:\n{}\n\
                 Either `rustup toolchain install nightly --component rust-src`, or on Debian \
                 `apt-get install rustc-web rust-web-src`; `cargo xtask setup` does the latter",
                lacking.join("\n")
            );
        }
        Ok(found.swap_remove(best))
    }
}

/// What `bpf-linker --version` says, if it can be started.
pub fn linker_version() -> Option<String> {
    shell::capture(shell::command("bpf-linker").arg("--version")).ok()
}

enum Candidate {
    Nightly,
    Path(PathBuf),
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nightly => f.write_str("rustup's nightly"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// rustup's nightly first, then the distribution's compiler. Those that rustup
/// puts into `PATH` are proxies of a stable toolchain: never of use here.
fn candidates() -> Vec<Candidate> {
    let mut list = vec![Candidate::Nightly];
    for path in ["/usr/bin/rustc", "/usr/local/bin/rustc"] {
        if Path::new(path).is_file() {
            list.push(Candidate::Path(path.into()));
        }
    }
    list
}

fn inspect(candidate: &Candidate, linker: &str) -> Result<Toolchain> {
    let sysroot = match candidate {
        Candidate::Nightly => {
            if shell::which("rustup").is_none() {
                bail!("rustup is not installed");
            }
            // A rustup that may install toolchains on its own would do so here.
            let mut command = shell::command("rustup");
            command.args(["run", "nightly", "rustc", "--print", "sysroot"]);
            quiet(command.env("RUSTUP_AUTO_INSTALL", "0"))
                .ok_or_else(|| anyhow::anyhow!("not installed"))?
        }
        Candidate::Path(rustc) => quiet(shell::command(rustc).args(["--print", "sysroot"]))
            .ok_or_else(|| anyhow::anyhow!("does not start"))?,
    };
    let sysroot = PathBuf::from(sysroot);
    if !sysroot.join(LIBRARY).is_file() {
        bail!(
            "no source of its library (rust-src): {} is missing",
            sysroot.join(LIBRARY).display()
        );
    }
    let (rustc, cargo) = match candidate {
        Candidate::Nightly => {
            let cargo = sysroot.join("bin/cargo");
            (sysroot.join("bin/rustc"), cargo.is_file().then_some(cargo))
        }
        Candidate::Path(rustc) => (rustc.clone(), None),
    };
    let driver = rustc.with_file_name("clippy-driver");
    let version = shell::capture(shell::command(&rustc).arg("--version"))?;
    Ok(Toolchain {
        clippy_driver: driver.is_file().then_some(driver),
        rustc,
        cargo,
        sysroot,
        version,
        linker: linker.to_owned(),
    })
}

fn quiet(command: &mut Command) -> Option<String> {
    shell::capture(command).ok().filter(|text| !text.is_empty())
}
