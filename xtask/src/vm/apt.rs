//! An apt of our own beside the machine's: same mirrors, same keys, but further
//! suites, with lists and cache below `target/vm`. The machine's sources and what
//! apt knows of it stay as they are.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::arch::Arch;
use crate::shell::{self, say};
use crate::workspace;

/// Debian's keys, old and new, as its own package installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How long lists of packages are good.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// Where the machine gets Debian from.
#[derive(Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// Release, backports and unstable.
    main: String,
    /// Security updates.
    security: Option<String>,
    /// The release that the machine runs.
    pub codename: String,
}

impl Mirrors {
    /// Asks the machine's apt.
    ///
    /// # Errors
    /// It is not a Debian machine, or knows no mirror.
    pub fn of_this_machine() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = release.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="));
        let Some(codename) = codename.map(|c| c.trim_matches('"').to_owned()) else {
            bail!("kernels come as Debian packages: `cargo xtask vm` needs Debian and its apt");
        };
        let mut ask = shell::command("apt-get");
        ask.args(["indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)"]);
        ask.arg("Created-By: Packages");
        let targets = shell::capture(&mut ask).context("apt does not say what it is set to")?;
        Self::among(&targets, codename)
    }

    fn among(targets: &str, codename: String) -> Result<Self> {
        let of = |suite: &str| {
            targets.lines().find_map(|line| {
                let mut words = line.split(' ');
                let is = words.next() == Some(suite) && words.next() == Some("main");
                is.then(|| words.next().map(str::to_owned))?
            })
        };
        let Some(main) = of(&codename) else {
            bail!("apt has no source for `{codename} main`: a Debian mirror is needed")
        };
        Ok(Self { main, security: of(&format!("{codename}-security")), codename })
    }

    /// Lines of a `sources.list` for these suites. A machine without a security
    /// mirror has what has reached the release.
    fn list(&self, suites: &[String]) -> String {
        let keys = if fs::exists(KEYRING).unwrap_or(false) {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        let mirror = |suite: &str| match &self.security {
            _ if !suite.ends_with("-security") => Some(&self.main),
            other => other.as_ref(),
        };
        suites
            .iter()
            .filter_map(|suite| Some(format!("deb {keys}{} {suite} main\n", mirror(suite)?)))
            .collect()
    }
}

/// One set of suites.
pub struct Apt {
    dir: PathBuf,
    /// For a machine that is not this one: what is installed here must not matter.
    foreign: Option<Arch>,
}

impl Apt {
    /// Sets it up below `target/vm/NAME` and fetches the lists if they are old.
    ///
    /// # Errors
    /// Not one suite is to be had.
    pub fn with(
        name: &str,
        mirrors: &Mirrors,
        suites: &[String],
        foreign: Option<Arch>,
    ) -> Result<Self> {
        let apt = Self { dir: workspace::target().join("vm").join(name), foreign };
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.dir.join(dir)).context("cannot make directories for apt")?;
        }
        let list = mirrors.list(suites);
        let file = apt.dir.join("sources.list");
        let same = fs::read_to_string(&file).is_ok_and(|before| before == list);
        let stamp = apt.dir.join("fetched");
        let age = fs::metadata(&stamp)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        if same && age.is_some_and(|age| age < FRESH) {
            return Ok(apt);
        }
        fs::write(&file, list)?;
        say(&format!("vm: apt-get update, aside, for {}", suites.join(" ")));
        apt.update()?;
        Ok(apt)
    }

    /// Fetches the lists anew: one that is younger than a day can still name a
    /// version that has gone.
    ///
    /// # Errors
    /// Not one suite is to be had.
    pub fn update(&self) -> Result<()> {
        // apt keeps a list that its signed index still names, even a damaged one.
        let lists = self.dir.join("lists");
        fs::remove_dir_all(&lists).and_then(|()| fs::create_dir_all(lists.join("partial")))?;
        if let Err(error) = shell::capture(self.get().arg("update")) {
            // A suite that has moved to the archive is no reason to do without the rest.
            say(&format!("vm: {error:#}"));
        }
        let lists = fs::read_dir(lists)?.flatten();
        if !lists.into_iter().any(|e| e.file_name().to_string_lossy().contains("Packages")) {
            bail!("not one list of packages could be fetched: is the mirror of apt reachable?");
        }
        fs::write(self.dir.join("fetched"), "")?;
        Ok(())
    }

    /// The options that make any program of apt use this set.
    pub fn options(&self) -> Vec<String> {
        let dir = self.dir.display();
        let mut options = vec![
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=-".into(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            "Acquire::Retries=3".into(),
            "Acquire::http::Timeout=30".into(),
            // What a desktop's apt fetches besides, and tells others afterwards.
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".into(),
            "APT::Update::Post-Invoke-Success=".into(),
        ];
        if let Some(arch) = self.foreign {
            options.push("Dir::State::status=/dev/null".into());
            options.push(format!("APT::Architecture={}", arch.debian()));
        }
        if rustix::process::geteuid().is_root() {
            // The unprivileged user of apt cannot write into a clone.
            options.push("APT::Sandbox::User=root".into());
        }
        options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect()
    }

    fn get(&self) -> Command {
        let mut command = shell::command("apt-get");
        command.args(self.options()).arg("--quiet=2").stdin(Stdio::null());
        command
    }

    /// The names of all packages that begin so.
    ///
    /// # Errors
    /// apt fails.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut ask = shell::command("apt-cache");
        ask.args(self.options()).args(["pkgnames", prefix]);
        Ok(shell::capture(&mut ask)?.lines().map(str::to_owned).collect())
    }

    /// Downloads a package into `dir` and gives its file.
    ///
    /// # Errors
    /// It is not to be had.
    pub fn download(&self, package: &str, dir: &std::path::Path) -> Result<PathBuf> {
        fs::create_dir_all(dir)?;
        shell::capture(self.get().args(["download", package]).current_dir(dir))
            .with_context(|| format!("cannot download {package}"))?;
        let is = |e: &fs::DirEntry| {
            let name = e.file_name().to_string_lossy().into_owned();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        };
        let found = fs::read_dir(dir)?.flatten().find(is);
        found.map(|e| e.path()).with_context(|| format!("apt-get download left no {package}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "nodistro main http://other/\n\
        bookworm main http://mirror/debian/\n\
        bookworm-updates main http://mirror/debian/\n\
        bookworm-security main http://mirror/security/\n";

    #[test]
    fn suites_go_to_the_mirror_that_has_their_like() {
        let mirrors = Mirrors::among(TARGETS, "bookworm".into()).expect("it is there");
        let list = mirrors.list(&["sid".into(), "trixie-security".into()]);
        let lines: Vec<&str> = list.lines().collect();
        assert!(lines[0].ends_with("http://mirror/debian/ sid main"), "{list}");
        assert!(lines[1].ends_with("http://mirror/security/ trixie-security main"), "{list}");
    }

    #[test]
    fn without_a_security_mirror_its_suites_are_left_out() {
        let targets = "sid main http://mirror/debian/";
        let mirrors = Mirrors::among(targets, "sid".into()).expect("it is there");
        assert_eq!(mirrors.list(&["bookworm-security".into()]), "");
        assert!(Mirrors::among(targets, "trixie".into()).is_err());
    }
}
