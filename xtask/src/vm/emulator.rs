//! The emulator: version 10 or later, for 7.2 runs some kernels into double
//! faults. Debian's old releases have that in their backports.

use anyhow::{Context, Result, bail};

use super::apt::{Apt, Mirrors};
use super::arch::Arch;
use crate::setup;
use crate::shell::{self, say};

/// The oldest major version that boots all kernels of the matrix reliably.
const OLDEST: u32 = 10;
/// What any of them needs besides its own package. They depend on each other by
/// version: one alone would take another away.
const PACKAGES: [&str; 4] = ["qemu-system-common", "qemu-system-data", "qemu-utils", "seabios"];

/// Installs it where it is missing or too old.
///
/// # Errors
/// No suite of this machine's mirror has a good one.
pub fn install(arch: Arch) -> Result<()> {
    let program = arch.emulator();
    if installed(program).is_some_and(|version| version >= OLDEST) {
        return Ok(());
    }
    let mirrors = Mirrors::of_this_machine()
        .with_context(|| format!("{program} {OLDEST} or later is missing"))?;
    let backports = format!("{}-backports", mirrors.codename);
    let own = [mirrors.codename.clone(), format!("{}-security", mirrors.codename), backports];
    let apt = Apt::with("apt-emulator", &mirrors, &own, None)?;
    // A release that has it needs no backports.
    let suite = own
        .iter()
        .find(|suite| candidate(&apt, arch, suite).is_some_and(|version| version >= OLDEST))
        .with_context(|| format!("no suite of {} has qemu {OLDEST}", mirrors.codename))?;
    say(&format!("setup: apt-get install qemu from {suite}"));
    let mut command = setup::apt()?;
    command.args(apt.options());
    command.args(["install", "--yes", "--no-install-recommends", "--quiet=2"]);
    // By suite only what the suite has: seabios may be new enough in the release.
    // Another machine's emulator that is here goes along.
    let others = [Arch::X86, Arch::Arm]
        .into_iter()
        .filter(|other| *other == arch || installed(other.emulator()).is_some());
    for package in others.map(Arch::emulator_package).chain(PACKAGES) {
        let there = version(&apt, package, suite).is_some();
        command.arg(if there { format!("{package}/{suite}") } else { package.to_owned() });
    }
    shell::capture(&mut command).context("cannot install qemu")?;
    match installed(program) {
        Some(version) if version >= OLDEST => Ok(()),
        other => bail!("qemu is {other:?} after the installation, not {OLDEST} or later"),
    }
}

/// The major version of what is installed.
fn installed(program: &str) -> Option<u32> {
    let said = shell::capture(shell::command(program).arg("--version")).ok()?;
    major(said.split("version ").nth(1)?)
}

fn candidate(apt: &Apt, arch: Arch, suite: &str) -> Option<u32> {
    let version = version(apt, arch.emulator_package(), suite)?;
    // Without the epoch.
    major(version.split_once(':').map_or(version.as_str(), |(_, rest)| rest))
}

/// The version of a package in one suite.
fn version(apt: &Apt, package: &str, suite: &str) -> Option<String> {
    let mut ask = shell::command("apt-cache");
    let table = shell::capture(ask.args(apt.options()).args(["madison", package])).ok()?;
    // NAME | VERSION | MIRROR SUITE/COMPONENT ARCHITECTURE Packages
    table.lines().find_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let version = columns.nth(1)?;
        let is = columns.next()?.split(' ').nth(1)? == format!("{suite}/main");
        is.then(|| version.to_owned())
    })
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn the_major_version_is_read() {
        assert_eq!(major("10.0.2 (Debian 1:10.0.2+ds)"), Some(10));
        assert_eq!(major("7.2+dfsg-7"), Some(7));
        assert_eq!(major("unknown"), None);
    }
}
