//! A newer Python than the machine's, for the suite `openers`: Debian trixie's, whose
//! functions a perf map can show. It is unpacked with its C library below the target
//! directory and installed nowhere; the suite runs it with that as its root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::{self, say};
use crate::vm::apt::{Apt, Mirrors};
use crate::vm::arch::Arch;
use crate::workspace;

const SUITE: &str = "trixie";

/// What it is put together from, and no more: `dash` for `/bin/sh`.
const PACKAGES: [&str; 7] = [
    "python3.13-minimal",
    "libpython3.13-minimal",
    "libpython3.13-stdlib",
    "libc6",
    "libexpat1",
    "zlib1g",
    "dash",
];

/// Links that a release has at its root (`/usr` is merged), and the package
/// `base-files` would make.
const LINKS: [(&str, &str); 4] =
    [("usr/bin", "bin"), ("usr/lib", "lib"), ("usr/lib64", "lib64"), ("usr/sbin", "sbin")];

/// Where it is when it is whole.
fn root() -> PathBuf {
    workspace::target().join("trixie-python")
}

/// Fetches and unpacks it, if it is not there.
///
/// # Errors
/// apt knows no mirror of Debian, or the mirror does not answer.
pub fn install() -> Result<()> {
    let root = root();
    if root.join("usr/bin/python3.13").is_file() {
        return Ok(());
    }
    say("setup: fetching Debian trixie's python3.13, to be unpacked below target/");
    let arch = if cfg!(target_arch = "aarch64") { Arch::Arm } else { Arch::X86 };
    let mirrors = Mirrors::of_this_machine()?;
    let apt = Apt::with("apt-trixie", &mirrors, &[SUITE.to_owned()], Some(arch))?;
    let target = workspace::target();
    let unpacked = tempfile::tempdir_in(&target).context("cannot make a directory")?;
    for (to, link) in LINKS {
        fs::create_dir_all(unpacked.path().join(to))?;
        std::os::unix::fs::symlink(to, unpacked.path().join(link))?;
    }
    for dir in ["srv", "tmp", "dev", "proc"] {
        fs::create_dir(unpacked.path().join(dir))?;
    }
    let debs = target.join("vm/trixie-debs");
    for package in PACKAGES {
        let deb = fetch(&apt, package, &debs)?;
        // Over the links, which `dpkg-deb -x` would replace by directories.
        shell::run(
            shell::command("sh")
                .arg("-c")
                .arg("dpkg-deb --fsys-tarfile \"$1\" | tar -x --keep-directory-symlink -C \"$2\"")
                .arg("unpack")
                .args([deb.as_path(), unpacked.path()]),
        )?;
        fs::remove_file(deb)?;
    }
    // The last step, so that half of it is never taken for the whole.
    let _ = fs::remove_dir_all(&root);
    let unpacked = unpacked.keep();
    fs::rename(&unpacked, &root)
        .with_context(|| format!("cannot move {} to {}", unpacked.display(), root.display()))
}

/// What the lists name can have left the mirror: then they are fetched once more.
fn fetch(apt: &Apt, package: &str, dir: &Path) -> Result<PathBuf> {
    match apt.download(package, dir) {
        Ok(deb) => Ok(deb),
        Err(error) => {
            say(&format!("setup: {error:#}; with new lists once more"));
            apt.update()?;
            apt.download(package, dir)
        }
    }
}
