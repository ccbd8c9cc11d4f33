//! The BPF object: how it is built, what it is built from, and the record of both.
//!
//! The bytes depend on the inputs, the compiler and the linker alone: every path
//! of the machine is mapped away, and the whole profile is given here, so that
//! neither the clone's place nor the agent's profile can show up in them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::toolchain::Toolchain;
use crate::{shell, workspace};

/// The target of the programs: little-endian BPF. Big-endian hosts are not built for.
pub const TARGET: &str = "bpfel-unknown-none";

/// What is compiled into the object, besides crates of `Cargo.lock`.
const INPUTS: [&str; 3] = ["monitor-ebpf/src", "monitor-ebpf/Cargo.toml", "monitor-common/src"];

/// Crates of `Cargo.lock` that end up in the object: by the start of their names.
const CRATES: [&str; 2] = ["aya-ebpf", "aya-log"];

/// The profile. The linker sees bitcode and optimises across crates itself.
/// One codegen unit each: the order of several is not promised to be stable.
const PROFILE: [(&str, &str); 8] = [
    ("CODEGEN_UNITS", "1"),
    ("DEBUG", "2"),
    ("DEBUG_ASSERTIONS", "false"),
    ("INCREMENTAL", "false"),
    ("LTO", "off"),
    ("OPT_LEVEL", "3"),
    ("OVERFLOW_CHECKS", "false"),
    ("PANIC", "abort"),
];

/// Flags besides those that map paths. The kernel wants BTF, which the linker
/// makes from debug info.
const FLAGS: [&str; 2] = ["-Clinker=bpf-linker", "-Clink-arg=--btf"];

/// Builds the object and returns where it is, below `target/ebpf`.
///
/// # Errors
/// When the build fails, or when a path of this machine is in the object.
pub fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let mut command = cargo(toolchain, "build");
    command.arg("--release");
    shell::run(&mut command)?;
    let object = target_dir().join(TARGET).join("release/leakwatch");
    forbid_paths(&object)?;
    Ok(object)
}

/// Cargo on the BPF crate: `command` is `build` or `check`.
pub fn cargo(toolchain: &Toolchain, command: &str) -> std::process::Command {
    let mut cargo = match &toolchain.cargo {
        Some(path) => shell::command(path),
        None => shell::cargo(std::iter::empty::<&str>()),
    };
    cargo.args([command, "--locked", "--package", "leakwatch-ebpf", "--target", TARGET]);
    cargo.arg("-Zbuild-std=core");
    cargo.env("RUSTC", &toolchain.rustc);
    // `-Z` flags and the unstable features of `core` need a compiler that takes
    // itself for a nightly.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_TARGET_DIR", target_dir());
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain).join("\x1f"));
    cargo.env_remove("RUSTFLAGS");
    for (key, value) in PROFILE {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    cargo
}

fn target_dir() -> PathBuf {
    workspace::target().join("ebpf")
}

fn flags(toolchain: &Toolchain) -> Vec<String> {
    let mut flags: Vec<String> = FLAGS.map(str::to_owned).to_vec();
    for (from, to) in remapped(toolchain) {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    flags
}

/// Directories whose names must not be in the object, and what stands for them.
/// Of several that hold, the compiler takes the last.
fn remapped(toolchain: &Toolchain) -> Vec<(PathBuf, &'static str)> {
    let mut list = Vec::new();
    if let Some(home) = env::var_os("HOME").filter(|home| Path::new(home).parent().is_some()) {
        list.push((PathBuf::from(home), "/home"));
    }
    let library = toolchain.sysroot.join("lib/rustlib/src/rust");
    // Debian's is a link into /usr/src, and both names reach the debug info.
    if let Ok(real) = library.canonicalize() {
        list.push((real, "/rust"));
    }
    list.push((library, "/rust"));
    if let Some(home) = workspace::cargo_home() {
        list.push((home, "/cargo"));
        list.extend(registries().into_iter().map(|dir| (dir, "/crates")));
    }
    list.push((workspace::root(), "/leakwatch"));
    list
}

/// Where cargo unpacks crates. The last part of the path hashes the registry's
/// address in a way that changed between releases of cargo.
fn registries() -> Vec<PathBuf> {
    let Some(home) = workspace::cargo_home() else { return Vec::new() };
    let Ok(entries) = fs::read_dir(home.join("registry/src")) else { return Vec::new() };
    let mut dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    dirs.sort();
    dirs
}

/// Fails when the object names a directory of this machine.
fn forbid_paths(object: &Path) -> Result<()> {
    let bytes = fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    let mut forbidden = vec![workspace::root()];
    forbidden.extend(workspace::cargo_home());
    for path in forbidden {
        let needle = path.as_os_str().as_encoded_bytes();
        if bytes.windows(needle.len()).any(|window| window == needle) {
            bail!("{} holds the path {}", object.display(), path.display());
        }
    }
    Ok(())
}

/// What is known about an object.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// SHA-256 of the object.
    pub object: String,
    /// SHA-256 of what it was built from.
    pub inputs: String,
    /// `rustc --version`.
    pub compiler: String,
    /// `bpf-linker --version`.
    pub linker: String,
}

impl Record {
    /// The record of `bytes`, just built with `toolchain` from this clone.
    pub fn of(bytes: &[u8], toolchain: &Toolchain) -> Result<Self> {
        Ok(Self {
            object: hex(&Sha256::digest(bytes)),
            inputs: inputs_digest()?,
            compiler: toolchain.version.clone(),
            linker: toolchain.linker.clone(),
        })
    }

    /// Reads a record.
    ///
    /// # Errors
    /// When the file is missing, is not TOML or lacks a key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!("cannot read {}: run `cargo xtask build-ebpf`", path.display())
        })?;
        let table: toml::Table =
            text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
        let get = |section: &str, key: &str| -> Result<String> {
            table
                .get(section)
                .and_then(|value| value.get(key))
                .and_then(toml::Value::as_str)
                .map(str::to_owned)
                .with_context(|| format!("{} lacks {section}.{key}", path.display()))
        };
        Ok(Self {
            object: get("sha256", "object")?,
            inputs: get("sha256", "inputs")?,
            compiler: get("built_with", "compiler")?,
            linker: get("built_with", "linker")?,
        })
    }

    /// Writes a record.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = format!(
            "# What leakwatch.bpf.o was built from, and with. Written by `cargo xtask build-ebpf`,\n\
             # checked by `cargo xtask verify-ebpf`. Not for editing.\n\n\
             [sha256]\nobject = {:?}\ninputs = {:?}\n\n\
             [built_with]\ncompiler = {:?}\nlinker = {:?}\n",
            self.object, self.inputs, self.compiler, self.linker
        );
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// SHA-256 over the sources, the versions of the crates and the flags. Names and
/// lengths are hashed too: moving a line from one file to the next must show.
pub fn inputs_digest() -> Result<String> {
    let root = workspace::root();
    let mut files = Vec::new();
    for input in INPUTS {
        let path = root.join(input);
        if path.is_dir() {
            files.extend(workspace::files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap_or(&file);
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hash.update(format!("{} {}\n", name.display(), bytes.len()));
        hash.update(&bytes);
    }
    let lock = root.join("Cargo.lock");
    let text =
        fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    for line in crates_in(&text)? {
        hash.update(format!("{line}\n"));
    }
    for flag in FLAGS {
        hash.update(format!("{flag}\n"));
    }
    for (key, value) in PROFILE {
        hash.update(format!("{key}={value}\n"));
    }
    Ok(hex(&hash.finalize()))
}

/// `name version checksum` of the crates that matter, sorted. leakwatch's own are
/// among them: their version is part of mangled names.
fn crates_in(lock: &str) -> Result<Vec<String>> {
    let table: toml::Table = lock.parse().context("Cargo.lock is not TOML")?;
    let packages = table.get("package").and_then(toml::Value::as_array);
    let mut lines = Vec::new();
    for package in packages.context("Cargo.lock has no packages")? {
        let text = |key: &str| package.get(key).and_then(toml::Value::as_str).unwrap_or("-");
        let name = text("name");
        let own = ["leakwatch-common", "leakwatch-ebpf"].contains(&name);
        if own || CRATES.iter().any(|start| name.starts_with(start)) {
            lines.push(format!("{name} {} {}", text("version"), text("checksum")));
        }
    }
    lines.sort();
    Ok(lines)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.toml");
        let record = Record {
            object: "00ff".into(),
            inputs: "ee".into(),
            compiler: "rustc 1.96.0 (\"quoted\")".into(),
            linker: "bpf-linker 0.13.0".into(),
        };
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
    }

    #[test]
    fn a_record_without_a_key_names_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.toml");
        fs::write(&path, "[sha256]\nobject = \"1\"\n").unwrap();
        let error = format!("{:#}", Record::read(&path).unwrap_err());
        assert!(error.contains("lacks sha256.inputs"), "{error}");
    }

    #[test]
    fn only_crates_of_the_object_count() {
        let lock = "[[package]]\nname = \"tokio\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\nchecksum = \"cc\"\n\n\
                    [[package]]\nname = \"leakwatch-common\"\nversion = \"0.1.0\"\n";
        let expected = ["aya-ebpf 0.2.1 cc", "leakwatch-common 0.1.0 -"];
        assert_eq!(crates_in(lock).unwrap(), expected);
    }
}
