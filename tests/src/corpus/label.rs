//! What is known of a case beforehand: one TOML file each.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::generate::actor::Actor;
use super::server;

/// Guilty or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Truth {
    /// Something is leaked.
    Leaky,
    /// Nothing is.
    Innocent,
}

/// Which of two programs a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judged {
    /// The server.
    Server,
    /// The one that talks to it.
    Client,
}

/// A case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Label {
    /// Also the file's, and that of its unit (`NAME.service` where it is generated).
    pub name: String,
    /// What it is about, in a sentence.
    pub about: String,
    /// Whether it leaks.
    pub truth: Truth,
    /// Kept aside: see [`held_out`].
    pub held_out: bool,
    /// The day from which on it was looked at, where it was kept aside before.
    pub opened: Option<String>,
    /// `fd`, `thread`, `process` or `task`; absent for innocents, as is the next.
    pub resource: Option<String>,
    /// Kind of the leaked descriptors, or the runtime of tasks, else the resource.
    pub kind: Option<String>,
    /// The rule that should find it; it may be one that does not exist yet.
    pub rule: Option<String>,
    /// The function that opens what is leaked, where that is known.
    pub opener: Option<String>,
    /// Minutes from the start of the trace until the first is leaked. Of real programs:
    /// from their start.
    #[serde(default)]
    pub begins: f64,
    /// Soft `RLIMIT_NOFILE` of its processes.
    pub limit: u64,
    /// Length of a generated trace, minutes.
    #[serde(default)]
    pub minutes: u32,
    /// Too large for the suite that runs on every change.
    #[serde(default)]
    pub large: bool,
    /// The fd probes are attached; without, the census watches alone.
    #[serde(default = "yes")]
    pub probes: bool,
    /// The service is restarted every so many minutes; 0: never.
    #[serde(default)]
    pub restarts: u32,
    /// What goes on in a generated case.
    #[serde(default)]
    pub actor: Vec<Actor>,
    /// The server that is started before `run`: see [`server`].
    #[serde(default)]
    pub server: Vec<String>,
    /// Whose the unit is, where there is a server.
    pub judged: Option<Judged>,
    /// The program of a real case with its arguments; `{dir}` is a directory of its own,
    /// `{server}` where the server listens, and `{pid}` its process id.
    #[serde(default)]
    pub run: Vec<String>,
    /// What it is told on its standard input, without which it waits.
    pub tell: Option<String>,
    /// It is killed once it is ready.
    #[serde(default)]
    pub kill: bool,
    /// The runtime whose async tasks are counted, for its match rule.
    pub tasks: Option<String>,
    /// Command lines that must not outlive it, for its match rule.
    #[serde(default)]
    pub orphans: Vec<String>,
}

fn yes() -> bool {
    true
}

impl Label {
    /// Leaks something.
    pub fn leaky(&self) -> bool {
        self.truth == Truth::Leaky
    }

    /// Made up, not recorded.
    pub fn generated(&self) -> bool {
        self.run.is_empty()
    }

    /// Name of its unit.
    pub fn unit(&self) -> String {
        if self.generated() { format!("{}.service", self.name) } else { self.name.clone() }
    }

    /// From the start to the first leaked.
    pub fn begins(&self) -> Duration {
        Duration::from_secs_f64(self.begins * 60.0)
    }

    fn check(&self, file: &Path) -> Result<()> {
        if file.file_stem().is_none_or(|stem| *stem != *self.name) {
            bail!("the name is `{}`, which is not the file's", self.name);
        }
        if self.held_out != (held_out(&self.name) && self.opened.is_none()) {
            bail!("held-out must be {}: see `held_out`", !self.held_out);
        }
        if self.opened.is_some() && !held_out(&self.name) {
            bail!("`opened` is for what was kept aside, which this was not");
        }
        if self.leaky() != (self.resource.is_some() && self.kind.is_some() && self.rule.is_some()) {
            bail!("resource, kind and rule are those of a leak, and only a leak has them");
        }
        if self.generated() == self.actor.is_empty() {
            bail!("it needs either actors or a program to run");
        }
        if !self.probes && self.actor.iter().any(|actor| actor.opener().is_some()) {
            bail!("without `probes` nothing tells what opens, so no actor has a `by`");
        }
        if self.judged.is_some() == self.server.is_empty() {
            bail!("where there is a server, and only there, `judged` says server or client");
        }
        if let Some(word) = self.server.first().filter(|word| !server::known(word)) {
            bail!("`{word}` is no server that is known");
        }
        Ok(())
    }
}

/// Whether a case of this name is kept aside: one of five, by a rule that was fixed
/// before there was any (FNV-1a of the name, 64 bits, divisible by five).
pub fn held_out(name: &str) -> bool {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.is_multiple_of(5)
}

/// `tests/corpus` of this clone.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The cases of one folder (`generated`, `real` or `servers`) of the corpus, by name.
///
/// # Errors
/// A label cannot be read, or contradicts itself.
pub fn load(folder: &str) -> Result<Vec<Label>> {
    let dir = directory().join(folder);
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "toml") {
            files.push(path);
        }
    }
    files.sort();
    files.iter().map(|file| read(file).with_context(|| file.display().to_string())).collect()
}

fn read(file: &Path) -> Result<Label> {
    let label: Label = toml::from_str(&fs::read_to_string(file)?)?;
    label.check(file)?;
    Ok(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_sound_and_neither_part_is_small() {
        let cases = ["generated", "real", "servers"].map(|folder| load(folder).unwrap()).concat();
        let leaky = cases.iter().filter(|c| c.leaky()).count();
        assert!(leaky >= 30 && cases.len() - leaky >= 30, "{leaky} of {}", cases.len());
        // More than a fifth: some were named so that they are kept aside.
        let aside = cases.iter().filter(|c| c.held_out).count();
        assert!(aside * 8 >= cases.len() && aside * 2 <= cases.len(), "{aside}");
    }

    #[test]
    fn a_server_is_one_that_is_known_and_says_who_is_judged() {
        let sound = load("servers").unwrap().remove(0);
        let check = |case: &Label| case.check(Path::new(&format!("{}.toml", case.name)));
        assert!(check(&sound).is_ok());
        let never = load("servers").unwrap().into_iter().find(|c| !held_out(&c.name)).unwrap();
        let opened = Label { opened: Some("2026-11-27".into()), ..never };
        assert!(check(&opened).unwrap_err().to_string().contains("`opened`"));
        let unknown = Label { server: vec!["apache".into()], ..sound.clone() };
        assert!(check(&unknown).unwrap_err().to_string().contains("`apache`"));
        let nobody = Label { judged: None, ..sound.clone() };
        assert!(check(&nobody).unwrap_err().to_string().contains("`judged`"));
        let without = Label { server: Vec::new(), ..sound };
        assert!(check(&without).is_err());
    }

    #[test]
    fn the_rule_that_keeps_aside_is_the_one_that_was_fixed() {
        // FNV-1a of nothing is its offset basis, which five does not divide.
        assert!(!held_out(""));
        // 0xaf63dc4c8601ec8c, the published value for "a".
        assert_eq!(held_out("a"), 0xaf63_dc4c_8601_ec8c_u64.is_multiple_of(5));
    }
}
