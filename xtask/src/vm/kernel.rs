//! Debian's cloud kernels: which there are, which is the newest of a line, and
//! its image. Nothing is pinned: suites keep only what is current.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::apt::{Apt, Mirrors};
use super::arch::Arch;
use crate::shell::{self, say};
use crate::workspace;

/// Suites with a kernel line of their own.
const SUITES: [&str; 8] = [
    "bullseye",
    "bullseye-security",
    "bookworm",
    "bookworm-security",
    "trixie",
    "trixie-security",
    "trixie-backports",
    "sid",
];

/// All lines of the matrix, oldest first; `7.x` is the newest there is of 7.
pub const LINES: [&str; 6] = ["5.10", "6.1", "6.12", "6.18", "7.2", "7.x"];
/// Those of each test run: the oldest, one in the middle, the newest.
pub const SHORT: [&str; 3] = ["5.10", "6.12", "7.x"];

/// A line of kernels: `6.12`, or `7.x` for whatever is newest of 7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    name: String,
    numbers: Vec<u64>,
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_suffix(".x").unwrap_or(text);
        let numbers: Result<Vec<u64>, _> = digits.split('.').map(str::parse).collect();
        match numbers {
            Ok(numbers) => Ok(Self { name: text.to_owned(), numbers }),
            Err(_) => Err(format!("{text:?} is no line of kernels; say 5.10, 6.12 or 7.x")),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A package with a kernel in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    /// `6.12.118+deb13` as numbers: what is compared.
    numbers: Vec<u64>,
    /// From 7.2 on `linux-image-*` is empty and depends on `linux-binary-*`.
    binary: bool,
    name: String,
}

impl Package {
    fn parse(arch: Arch, name: &str) -> Option<Self> {
        let (binary, rest) = match name.strip_prefix("linux-binary-") {
            Some(rest) => (true, rest),
            None => (false, name.strip_prefix("linux-image-")?),
        };
        let version = rest.strip_suffix(arch.debian())?.strip_suffix("-cloud-")?;
        let numbers: Vec<u64> = version
            .split(|c: char| !c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().ok())
            .collect::<Option<_>>()?;
        // `linux-image-6.12-cloud-amd64` only depends on one.
        let whole = version.starts_with(|c: char| c.is_ascii_digit()) && numbers.len() > 3;
        whole.then(|| Self { numbers, binary, name: name.to_owned() })
    }
}

/// The newest of a line among the names of packages.
fn newest(arch: Arch, names: &[String], line: &Line) -> Option<Package> {
    names
        .iter()
        .filter_map(|name| Package::parse(arch, name))
        .filter(|package| package.numbers.starts_with(&line.numbers))
        .max()
}

/// A kernel ready to boot.
pub struct Kernel {
    /// The line it was asked for as.
    pub line: Line,
    /// Its package.
    pub package: String,
    /// `vmlinuz`.
    pub image: PathBuf,
}

/// Between two attempts to reach the mirror.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(20), Duration::from_secs(60)];

/// The newest kernel of each line. A mirror that does not answer is asked again, some
/// times; then the last answer stands for the lines that are not there.
pub fn fetch_patiently(lines: &[Line]) -> Vec<Result<Kernel>> {
    let mut found: Vec<Result<Kernel>> = attempt(lines);
    for pause in PAUSES {
        let missing: Vec<usize> = (0..lines.len()).filter(|at| found[*at].is_err()).collect();
        if missing.is_empty() {
            break;
        }
        let names: Vec<String> = missing.iter().map(|at| lines[*at].to_string()).collect();
        say(&format!("vm: no kernel {}; once more in {pause:?}", names.join(", ")));
        std::thread::sleep(pause);
        let again: Vec<Line> = missing.iter().map(|at| lines[*at].clone()).collect();
        for (at, outcome) in missing.into_iter().zip(attempt(&again)) {
            found[at] = outcome;
        }
    }
    found
}

fn attempt(lines: &[Line]) -> Vec<Result<Kernel>> {
    match Kernels::look(Arch::X86) {
        Ok(mut kernels) => lines.iter().map(|line| kernels.fetch(line)).collect(),
        Err(error) => lines.iter().map(|_| Err(anyhow!("{error:#}"))).collect(),
    }
}

/// What apt has, and a place for images.
pub struct Kernels {
    arch: Arch,
    apt: Apt,
    names: Vec<String>,
    /// The lists are of this run.
    updated: bool,
}

fn names(apt: &Apt) -> Result<Vec<String>> {
    let mut names = apt.names("linux-image-")?;
    names.extend(apt.names("linux-binary-")?);
    Ok(names)
}

impl Kernels {
    /// Fetches the lists of packages.
    ///
    /// # Errors
    /// This machine cannot have any of them.
    pub fn look(arch: Arch) -> Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            bail!("the VMs run what is built or cross-built here: an x86_64 machine is needed");
        }
        let suites = SUITES.map(str::to_owned);
        let apt = Apt::with(
            &format!("apt{}", arch.suffix()),
            &Mirrors::of_this_machine()?,
            &suites,
            Some(arch),
        )?;
        let names = names(&apt)?;
        Ok(Self { arch, apt, names, updated: false })
    }

    /// The newest kernel of a line, downloaded and unpacked. What the lists name can
    /// have left the mirror for a newer version: then they are fetched once more.
    ///
    /// # Errors
    /// No suite has one, or it cannot be fetched.
    pub fn fetch(&mut self, line: &Line) -> Result<Kernel> {
        match self.fetch_listed(line) {
            Err(error) if !self.updated => {
                say(&format!("vm: {error:#}; with new lists once more"));
                self.updated = true;
                self.apt.update()?;
                self.names = names(&self.apt)?;
                self.fetch_listed(line)
            }
            outcome => outcome,
        }
    }

    fn fetch_listed(&self, line: &Line) -> Result<Kernel> {
        let Package { name: package, .. } = newest(self.arch, &self.names, line)
            .with_context(|| format!("no suite of this mirror has a cloud kernel {line}"))?;
        let dir = workspace::target().join("vm/kernels");
        let image = dir.join(&package);
        if !image.is_file() {
            say(&format!("vm: fetching {package}"));
            let deb = self.apt.download(&package, &dir.join("debs"))?;
            let unpacked = tempfile::tempdir_in(&dir)?;
            // The modules are most of it, and not one is needed.
            shell::run(
                shell::command("sh")
                    .arg("-c")
                    .arg("dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" --wildcards '*/vmlinuz*'")
                    .arg("unpack")
                    .args([deb.as_path(), unpacked.path()]),
            )?;
            let files = workspace::files_below(unpacked.path())?;
            let [vmlinuz] = files.as_slice() else {
                bail!("{package} holds {} images, not one", files.len())
            };
            fs::rename(vmlinuz, &image)?;
            fs::remove_file(deb)?;
        }
        Ok(Kernel { line: line.clone(), package, image })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(line: &str, names: &[&str]) -> Option<String> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        newest(Arch::X86, &names, &line.parse().expect("a line")).map(|p| p.name)
    }

    #[test]
    fn the_newest_of_a_line_is_taken_by_number() {
        let names = [
            "linux-image-6.1.0-0.deb11.52-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-unsigned",
            "linux-image-6.1.0-57-cloud-amd64-dbg",
            "linux-image-6.12.118+deb13-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-image-7.2.13+deb14-cloud-amd64",
            "linux-image-cloud-amd64",
            "linux-image-6.12.999-amd64",
        ];
        let chosen = |line: &str| choose(line, &names).expect("there is one");
        assert_eq!(chosen("6.1"), "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(chosen("6.12"), "linux-image-6.12.118+deb13-cloud-amd64");
        assert_eq!(chosen("7.2"), "linux-image-7.2.13+deb14-cloud-amd64");
        assert_eq!(chosen("7.x"), "linux-binary-7.3.4+deb13-cloud-amd64", "which has the image");
        assert_eq!(choose("6.18", &names), None);
        assert_eq!(choose("6.1", &["linux-image-6.12.118+deb13-cloud-amd64"]), None);
    }

    #[test]
    fn what_is_no_line_is_refused_with_an_example() {
        for wrong in ["", "x", "7.", "six", "6.12-rc1"] {
            let said = wrong.parse::<Line>().expect_err(wrong);
            assert!(said.contains("6.12"), "{said}");
        }
    }
}
