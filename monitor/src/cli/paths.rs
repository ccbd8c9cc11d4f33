//! Files and directories where the flags name none.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::flags::ConfigFlag;
use crate::config::{self, Config, DEFAULT_PATH};

/// The configuration that a command works with, and the file it came from.
pub(super) fn read_config(flag: &ConfigFlag) -> Result<(Option<PathBuf>, Config), Failure> {
    read_config_or(flag, Path::new(DEFAULT_PATH))
}

fn read_config_or(flag: &ConfigFlag, default: &Path) -> Result<(Option<PathBuf>, Config), Failure> {
    let path = match &flag.config {
        Some(path) => path.as_path(),
        // Only a file that is not there is left out. One that may not be read
        // is an error: the defaults would be a different configuration.
        None if matches!(default.try_exists(), Ok(false)) => return Ok((None, Config::default())),
        None => default,
    };
    Ok((Some(path.to_owned()), config::load(path)?))
}

/// Where the agent keeps its state.
pub(super) fn state_dir(flag: Option<&Path>) -> Result<PathBuf, Failure> {
    let root = rustix::process::geteuid().is_root();
    choose_state_dir(flag, root, |name| std::env::var_os(name)).ok_or_else(|| {
        Failure::failed("no directory for the state: HOME is not set; name one with --state-dir")
    })
}

fn choose_state_dir(
    flag: Option<&Path>,
    root: bool,
    env: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    // The XDG specification wants relative paths ignored.
    let dir = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match flag {
        Some(path) => Some(path.to_owned()),
        None if root => Some("/var/lib/leakwatch".into()),
        None => dir("XDG_STATE_HOME")
            .or_else(|| Some(dir("HOME")?.join(".local/state")))
            .map(|base| base.join("leakwatch")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_directories() {
        let env = |xdg: Option<&str>, home: Option<&str>| {
            let (xdg, home) = (xdg.map(OsString::from), home.map(OsString::from));
            move |name: &str| if name == "HOME" { home.clone() } else { xdg.clone() }
        };
        let choose = |flag: Option<&str>, root, xdg, home| {
            choose_state_dir(flag.map(Path::new), root, env(xdg, home))
                .map(|p| p.display().to_string())
        };
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(choose(Some("/x"), true, None, None), some("/x"));
        assert_eq!(choose(None, true, Some("/s"), Some("/h")), some("/var/lib/leakwatch"));
        assert_eq!(choose(None, false, Some("/s"), Some("/h")), some("/s/leakwatch"));
        assert_eq!(choose(None, false, Some("s"), Some("/h")), some("/h/.local/state/leakwatch"));
        assert_eq!(choose(None, false, None, Some("/h")), some("/h/.local/state/leakwatch"));
        assert_eq!(choose(None, false, None, None), None);
    }

    #[test]
    fn a_default_file_that_is_absent_is_no_error_and_a_named_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let named = ConfigFlag { config: Some(path.clone()) };
        let unnamed = ConfigFlag { config: None };
        assert_eq!(read_config_or(&unnamed, &path).unwrap(), (None, Config::default()));
        assert_eq!(read_config_or(&named, &path).unwrap_err().status(), 1);
        std::fs::write(&path, "[watch]\nmax_units = 7").unwrap();
        let (from, config) = read_config_or(&unnamed, &path).unwrap();
        assert_eq!((from, config.watch.max_units), (Some(path.clone()), 7));
        std::fs::write(&path, "x = 7").unwrap();
        assert_eq!(read_config_or(&unnamed, &path).unwrap_err().status(), 2);
    }
}
