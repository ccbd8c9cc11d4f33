//! What the config says of paths, command lines and things to leave alone.

use std::collections::BTreeMap;

use crate::config::model::Config;
use crate::glob::{Glob, Subject};

/// Rules that leave a thing out: one bit for each rule that an `[[ignore]]`
/// names, in the order of their first mention, and one for all of them.
pub(crate) type RuleSet = u8;

const EVERY_RULE: RuleSet = 1 << 7;

struct Ignored {
    unit: Option<Glob>,
    path: Option<Glob>,
    rules: RuleSet,
}

/// Compiled patterns of the config.
pub(crate) struct Patterns {
    logs: BTreeMap<String, Vec<Glob>>,
    orphans: BTreeMap<String, Vec<Glob>>,
    ignored: Vec<Ignored>,
    named_rules: Vec<String>,
}

impl Patterns {
    /// Compiles them.
    pub fn new(config: &Config) -> Result<Self, globset::Error> {
        let mut logs = BTreeMap::new();
        let mut orphans = BTreeMap::new();
        for rule in &config.units {
            logs.insert(rule.name.clone(), compile(&rule.logs, Subject::Path)?);
            orphans.insert(rule.name.clone(), compile(&rule.orphans, Subject::Text)?);
        }
        let mut ignored = Vec::new();
        let mut named_rules: Vec<String> = Vec::new();
        for i in &config.ignore {
            let optional = |p: &Option<String>, subject| {
                p.as_deref().map(|p| Glob::new(p, subject)).transpose()
            };
            if let Some(name) = i.rule.as_ref().filter(|name| !named_rules.contains(name)) {
                named_rules.push(name.clone());
            }
            ignored.push(Ignored {
                unit: optional(&i.unit, Subject::Text)?,
                path: optional(&i.path, Subject::Path)?,
                rules: i.rule.as_deref().map_or(EVERY_RULE, |name| bit(&named_rules, name)),
            });
        }
        Ok(Self { logs, orphans, ignored, named_rules })
    }

    /// Whether a regular file of `unit` is a log, by its path.
    pub fn is_log(&self, unit: &str, path: &[u8]) -> bool {
        self.logs.get(unit).is_some_and(|globs| globs.iter().any(|g| g.is_match(path)))
            || is_log_path(path)
    }

    /// Whether `unit` names processes that must not outlive it.
    pub fn has_orphans(&self, unit: &str) -> bool {
        self.orphans.get(unit).is_some_and(|globs| !globs.is_empty())
    }

    /// Whether a process with this command line must not outlive `unit`.
    pub fn is_orphan(&self, unit: &str, cmdline: &[u8]) -> bool {
        self.orphans.get(unit).is_some_and(|globs| globs.iter().any(|g| g.is_match(cmdline)))
    }

    /// Whether the rule called `name` is in the set.
    pub fn leaves_out(&self, set: RuleSet, name: &str) -> bool {
        set != 0 && set & (EVERY_RULE | bit(&self.named_rules, name)) != 0
    }

    /// Rules that leave out a descriptor of `unit` with this path; without a
    /// path, those that leave out the whole unit.
    pub fn ignored(&self, unit: &str, path: Option<&[u8]>) -> RuleSet {
        self.ignored
            .iter()
            .filter(|i| i.unit.as_ref().is_none_or(|g| g.is_match(unit.as_bytes())))
            .filter(|i| match (&i.path, path) {
                (Some(glob), Some(path)) => glob.is_match(path),
                (None, _) => true,
                (Some(_), None) => false,
            })
            .fold(0, |set, i| set | i.rules)
    }
}

fn compile(globs: &[String], subject: Subject) -> Result<Vec<Glob>, globset::Error> {
    globs.iter().map(|g| Glob::new(g, subject)).collect()
}

fn bit(names: &[String], name: &str) -> RuleSet {
    // The config knows fewer rules than there are bits.
    names.iter().take(7).position(|n| n == name).map_or(0, |i| 1 << i)
}

const LOG_ENDINGS: [&[u8]; 5] = [b".log", b".jsonl", b".ndjson", b".out", b".err"];

/// Databases, locks and indexes also live in log directories; they are not logs.
const NEVER_LOGS: [&[u8]; 9] = [
    b".journal",
    b".journal~",
    b".db",
    b".sqlite",
    b".sqlite3",
    b"-wal",
    b"-shm",
    b".lock",
    b".pid",
];

fn has_log_ending(path: &[u8]) -> bool {
    LOG_ENDINGS.iter().any(|e| path.ends_with(e))
}

/// The built-in idea of a log.
fn is_log_path(path: &[u8]) -> bool {
    let name = file_name(path);
    if NEVER_LOGS.iter().any(|e| name.ends_with(e)) || is_data_segment(name) {
        return false;
    }
    has_log_ending(log_family(path))
        || path.starts_with(b"/var/log/")
        || path.windows(6).any(|w| w == b"/logs/")
}

/// LevelDB and RocksDB call their write-ahead logs `000123.log`, Kafka its
/// segments by a 20-digit offset: databases, which hold them on purpose.
fn is_data_segment(name: &[u8]) -> bool {
    name.strip_suffix(b".log")
        .is_some_and(|s| s.iter().all(u8::is_ascii_digit) && (s.len() == 6 || s.len() >= 16))
}

/// The path without what rotation appends (`.1`, `-20260102`, `.2026-01-02`),
/// so that a log and its rotated copies are one family.
pub(crate) fn log_family(path: &[u8]) -> &[u8] {
    let name_at = path.len() - file_name(path).len();
    let is_stamp = |c: u8| c.is_ascii_digit() || b"-_:T".contains(&c);
    let mut end = path.len();
    while end > name_at && is_stamp(path[end - 1]) {
        end -= 1;
    }
    if end > name_at && path[end - 1] == b'.' {
        end -= 1;
    }
    let (stem, stamp) = path.split_at(end);
    let digits = stamp.iter().filter(|c| c.is_ascii_digit()).count();
    if digits == 0 || end == name_at {
        return path;
    }
    // Only system logs go without an ending: `syslog.1`, `messages-20260102`.
    let plain = stem.starts_with(b"/var/log/")
        && ((stamp[0] == b'.' && digits <= 3) || (stamp[0] == b'-' && digits >= 8));
    if has_log_ending(stem) || plain { stem } else { path }
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|c| *c == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_told_by_their_path() {
        for (path, want) in [
            ("/srv/a/agent.log", true),
            ("/srv/a/agent.log.3", true),
            ("/srv/a/agent.log-20260102", true),
            ("/srv/a/agent.log.2026-01-02", true),
            ("/srv/a/run-7.jsonl", true),
            ("/srv/a/nohup.out", true),
            ("/srv/a/logs/current", true),
            ("/var/log/syslog", true),
            ("/var/log/journal/0123/system.journal", false),
            ("/var/lib/kafka/t-0/00000000000000012345.log", false),
            ("/srv/cache/000003.log", false),
            ("/srv/a/data.db", false),
            ("/srv/logs/index.db", false),
            ("/srv/a/catalog", false),
            ("", false),
        ] {
            assert_eq!(is_log_path(path.as_bytes()), want, "{path}");
        }
    }

    #[test]
    fn rotated_copies_are_of_the_family() {
        for (path, want) in [
            ("/a/x.log", "/a/x.log"),
            ("/a/x.log.1", "/a/x.log"),
            ("/a/x.log-20260102", "/a/x.log"),
            ("/a/x.log.2026-01-02", "/a/x.log"),
            ("/a/x-3.log", "/a/x-3.log"),
            ("/var/log/syslog.1", "/var/log/syslog"),
            ("/var/log/messages-20260102", "/var/log/messages"),
            ("/srv/part-7", "/srv/part-7"),
            ("/srv/7", "/srv/7"),
            ("7", "7"),
        ] {
            assert_eq!(String::from_utf8_lossy(log_family(path.as_bytes())), want, "{path}");
        }
    }

    #[test]
    fn ignores_need_all_their_matchers() {
        let config = Config {
            ignore: vec![crate::config::model::Ignore {
                unit: Some("db*".into()),
                path: Some("/data/**".into()),
                rule: Some("rising-floor".into()),
            }],
            ..Config::default()
        };
        let p = Patterns::new(&config).unwrap();
        let set = p.ignored("db.service", Some(b"/data/x/y"));
        assert!(p.leaves_out(set, "rising-floor"));
        assert!(!p.leaves_out(set, "deleted-file-held"));
        assert!(p.leaves_out(EVERY_RULE, "deleted-file-held"));
        assert_eq!(p.ignored("db.service", Some(b"/other")), 0);
        assert_eq!(p.ignored("db.service", None), 0);
        assert_eq!(p.ignored("web", Some(b"/data/x")), 0);
    }
}
