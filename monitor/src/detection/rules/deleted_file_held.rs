//! `deleted-file-held`: a deleted file stays open and idle, and its disk space
//! with it. Near-certain.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Strength, named};
use crate::detection::rules::leaves_out;
use crate::detection::turns::{BY_THE_DAY, Turns, lowest_limit, many, past_turns, share_of};
use crate::detection::verdict::Rule;
use crate::ledger::Ledger;
use crate::ledger::patterns::log_family;
use crate::ledger::process::{Held, Process, held_flags};
use crate::ledger::template;
use crate::source::model::FdKind;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::DeletedFileHeld;

/// Files that never had a place on a disk.
const NOT_ON_DISK: [&[u8]; 5] =
    [b"/memfd:", b"/dev/shm/", b"/dev/zero", b"/SYSV", b"/anon_hugepage"];

/// A deleted log that is written to is given so many times as long as one that is not.
const LATE: u32 = 2;

/// Separate censuses at which they were deleted, and scratch files came: by design there are
/// some, a number that grows again and again is none.
const HABIT: usize = 3;

/// Judges every deleted file.
pub fn judge(ledger: &Ledger, config: &Detection, _now: Boottime) -> Vec<Finding> {
    let mut cohorts: BTreeMap<_, Vec<(&Process, &Held)>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for p in ledger.processes().filter(|p| p.alive()) {
        for h in p.held.iter().filter(|h| h.deleted.0 != 0 && concerns(h)) {
            if leaves_out(ledger, RULE, h) || idle(p, h) < config.stale_after / 2 {
                continue;
            }
            // A description that fork has copied pins its file once.
            if ledger.exact_files() && !seen.insert((&*p.unit.name, h.file)) {
                continue;
            }
            let cohort = match p.cohorts.get(h.slot as usize) {
                Some(c) => c.template.to_string(),
                None => template::of_path(log_family(h.path.as_bytes())),
            };
            cohorts.entry((&*p.unit.name, p.invocation, h.kind, cohort)).or_default().push((p, h));
        }
    }
    cohorts
        .into_iter()
        .filter_map(|((.., cohort), members)| verdict(ledger, config, cohort, &members))
        .collect()
}

fn concerns(h: &Held) -> bool {
    let path = h.path.as_bytes();
    let kind = match h.kind {
        FdKind::Log => true,
        FdKind::Regular => h.is(held_flags::WRITABLE),
        _ => false,
    };
    kind && path.starts_with(b"/") && !NOT_ON_DISK.iter().any(|p| path.starts_with(p))
}

/// Since when nothing has happened to it, the deletion included.
fn quiet(p: &Process, h: &Held) -> Duration {
    p.seen_at().since(h.moved.max(h.resized).max(h.deleted))
}

/// For how long nobody has looked after it. A rotation that is done right has the service
/// open another log soon after: who writes on for long was not told.
fn idle(p: &Process, h: &Held) -> Duration {
    let told = if h.kind == FdKind::Log && !is_scratch(h) { LATE } else { u32::MAX };
    quiet(p, h).max(p.seen_at().since(h.deleted) / told)
}

/// Deleted on purpose while in use, as far as anybody can tell.
fn is_scratch(h: &Held) -> bool {
    let unknown = h.kind != FdKind::Log && h.is(held_flags::FIRST_LOOK) && h.deleted <= h.since;
    template::is_scratch(h.path.as_bytes()) || h.is(held_flags::BORN_DELETED) || unknown
}

fn verdict(
    ledger: &Ledger,
    config: &Detection,
    cohort: String,
    members: &[(&Process, &Held)],
) -> Option<Finding> {
    let min_held = usize::try_from(config.min_held).unwrap_or(usize::MAX);
    let (scratch, plain): (Vec<_>, Vec<_>) =
        members.iter().copied().partition(|(_, h)| is_scratch(h));
    let ripe = |(p, h): &(&Process, &Held)| idle(p, h) >= config.stale_after;
    let times: BTreeSet<Boottime> = scratch
        .iter()
        .filter(|(_, h)| !h.is(held_flags::FIRST_LOOK))
        .map(|(_, h)| h.since)
        .collect();
    // A single log is confirmed: its harm is in bytes, not in number.
    let log_with_bytes = plain
        .iter()
        .filter(|m| ripe(m))
        .any(|(_, h)| h.kind == FdKind::Log && (h.disk_bytes > 0 || h.size > 0));
    let waits = |of: &[(&Process, &Held)]| of.iter().filter(|m| ripe(m)).count();
    // What is deleted in use and closed in the end is temporary, however long it is used.
    let turns = Turns::of_descriptors(ledger, config, members.iter().copied());
    let waiting = waits(members);
    let overdue = members
        .iter()
        .filter(|m| ripe(m))
        .filter(|(p, h)| turns.overdue(p.seen_at().since(h.deleted), waiting))
        .count();
    let lives =
        !log_with_bytes && (turns.comes(waiting) || (waiting >= min_held && overdue < min_held));
    let forgotten = |of: &[(&Process, &Held)]| {
        let longest = of.iter().map(|(p, h)| quiet(p, h)).max().unwrap_or_default();
        let waits = waits(of);
        // What was deleted together is closed together: a batch, or what a start has made.
        let deleted: BTreeSet<Boottime> =
            of.iter().filter(|m| ripe(m)).map(|(_, h)| h.deleted).collect();
        let limit = lowest_limit(of.iter().map(|(p, _)| *p));
        let past = past_turns(config, BY_THE_DAY, longest, (deleted.len() as u64, many(config)))
            || waits as u64 >= share_of(config, limit);
        waits >= min_held && deleted.len() >= HABIT && past && !lives
    };
    let is_log = plain.iter().any(|(_, h)| h.kind == FdKind::Log);
    let strength =
        if log_with_bytes || forgotten(&plain) || (forgotten(&scratch) && times.len() >= HABIT) {
            Strength::Confirms
        } else if is_log
            || plain.len() >= min_held.div_ceil(2)
            || (scratch.len() >= min_held && times.len() >= 2)
        {
            Strength::Suspects
        } else {
            return None;
        };
    let counted = if plain.is_empty() { &scratch } else { &plain };
    let mut finding = Finding::of_descriptors(ledger, RULE, strength, cohort, counted)?;
    let files: BTreeMap<(u32, u64), u64> =
        counted.iter().map(|(_, h)| ((h.device, h.inode), h.disk_bytes)).collect();
    finding.pinned_bytes = files.values().sum();
    finding.growth_per_hour = None;
    let (p, h) = counted.iter().max_by_key(|(p, h)| (h.disk_bytes, p.id, h.fd))?;
    let untouched = counted.iter().map(|(p, h)| quiet(p, h)).min()?;
    let since = counted.iter().map(|(p, h)| p.seen_at().since(h.deleted)).max()?;
    finding.evidence = vec![format!(
        "{} deleted {} still open and {}, {} of disk space with {}; the largest is {} in {}",
        files.len(),
        if files.len() == 1 { "file" } else { "files" },
        if untouched * LATE < since && untouched < config.stale_after {
            format!("written to {} after the deletion", text::duration(since))
        } else {
            format!("untouched for {}", text::duration(untouched))
        },
        text::bytes(finding.pinned_bytes),
        if files.len() == 1 { "it" } else { "them" },
        text::printable(h.path.as_bytes()),
        named(p),
    )];
    finding.withdraws = lives;
    if lives {
        finding.evidence.push(turns.told(config, waiting, "closed"));
    }
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::detection::verdict::State;
    use crate::ledger::testing::World;

    fn daemon(path: &str) -> (World, u32, u32) {
        let mut w = World::new();
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        let fd = w.open(p, path);
        w.looks(3);
        (w, p, fd)
    }

    #[test]
    fn a_rotated_and_deleted_log_pins_its_bytes() {
        let (mut w, p, fd) = daemon("/var/log/app/a.log");
        w.fd(p, fd).disk_bytes = 1 << 20;
        w.looks(40);
        assert_eq!(w.changes, []);
        w.rename("/var/log/app/a.log", "/var/log/app/a.log.1");
        w.unlink("/var/log/app/a.log.1");
        w.look();
        assert!(w.open_leaks().is_empty(), "idle before, but deleted only now");
        w.looks(3);
        assert_eq!(w.only().state, State::Suspected);
        w.looks(3);
        let leak = w.only();
        assert_eq!((leak.state, leak.held, leak.pinned_bytes), (State::Confirmed, 1, 1 << 20));
        assert_eq!((&*leak.kind, &*leak.cohort), ("log", "/var/log/app/a.log"));
        w.close(p, fd);
        w.look();
        assert!(w.open_leaks().is_empty());
    }

    #[test]
    fn innocents() {
        type Act = fn(&mut World, u32);
        let table: [(&str, Act); 6] = [
            ("reopened after rotation", |w, p| {
                let fd = w.open(p, "/var/log/b.log");
                w.looks(3);
                w.unlink("/var/log/b.log");
                w.looks(1);
                w.close(p, fd);
                w.open(p, "/var/log/b.log");
            }),
            ("scratch of a database", |w, p| {
                for i in 0..5 {
                    let path = format!("/tmp/ibAb3xZ{i}");
                    w.open(p, &path);
                    w.unlink(&path);
                }
            }),
            ("O_TMPFILE", |w, p| {
                w.open(p, "/data/#1234");
                w.unlink("/data/#1234");
            }),
            ("memfd", |w, p| {
                (0..20).for_each(|_| _ = w.open(p, "/memfd:pulse"));
                w.unlink("/memfd:pulse");
            }),
            ("written until it is told, a little late", |w, p| {
                let fd = w.open(p, "/var/log/c.log");
                w.looks(1);
                w.unlink("/var/log/c.log");
                for _ in 0..6 {
                    w.write(p, fd);
                    w.look();
                }
                w.close(p, fd);
            }),
            ("a scratch file in use", |w, p| {
                let fd = w.open(p, "/data/#1234");
                w.unlink("/data/#1234");
                for _ in 0..40 {
                    w.write(p, fd);
                    w.look();
                }
            }),
        ];
        for (name, act) in table {
            let (mut w, p, _) = daemon("/srv/data");
            act(&mut w, p);
            w.looks(40);
            assert_eq!(w.ask(judge), [], "{name}");
            assert!(!w.ever_confirmed(), "{name}");
        }
    }

    #[test]
    fn a_deleted_log_that_is_written_to_was_never_rotated() {
        let (mut w, p, fd) = daemon("/var/log/app/a.log");
        w.fd(p, fd).disk_bytes = 1 << 20;
        w.unlink("/var/log/app/a.log");
        for look in 0..20 {
            w.write(p, fd);
            w.look();
            // Idle ones are given 30 s, these a minute: the first look sees the deletion.
            assert_eq!(w.ever_confirmed(), look >= 12, "{look}");
        }
        let leak = w.only();
        assert_eq!((leak.state, leak.held), (State::Confirmed, 1));
        let first = &leak.evidence[0];
        assert!(first.contains("written to 95 s after the deletion"), "{first}");
    }

    #[test]
    fn what_is_temporary_is_suspected_until_nobody_closes_it() {
        let (mut w, p, _) = daemon("/srv/data");
        let mut held = std::collections::VecDeque::new();
        // One in ten seconds, used for a hundred.
        for i in 0..60 {
            let path = format!("/srv/data/part-{i}.csv");
            held.push_back(w.open(p, &path));
            w.unlink(&path);
            if i >= 10 {
                held.pop_front().into_iter().for_each(|fd| w.close(p, fd));
            }
            w.looks(2);
        }
        assert!(!w.ever_confirmed(), "{:#?}", w.changes);
        let leak = w.only();
        assert!(leak.evidence.iter().any(|e| e.ends_with("the others may be, too")), "{leak:#?}");
        // Of a hundred seconds each, none for so long.
        w.looks(540);
        assert_eq!(w.only().state, State::Suspected);
        w.looks(40);
        let leak = w.only();
        assert_eq!((leak.state, leak.held), (State::Confirmed, 10), "the last are kept");
    }

    #[test]
    fn what_was_deleted_together_is_a_batch() {
        let (mut w, p, _) = daemon("/srv/data");
        // A start, and then an eviction, with files that are read to their end.
        for (dir, n) in [("start", 5), ("evicted", 60)] {
            let paths: Vec<String> = (0..n).map(|i| format!("/srv/{dir}/part-{i}.csv")).collect();
            paths.iter().for_each(|path| _ = w.open(p, path));
            w.look();
            paths.iter().for_each(|path| w.unlink(path));
            w.looks(700);
        }
        assert!(!w.ever_confirmed(), "{:#?}", w.changes);
        assert_eq!(w.ask(judge).len(), 2, "they are suspected, with the space that they take");
    }

    /// So many files are deleted in use, one after another, and closed after so many looks.
    fn use_deleted(w: &mut World, p: u32, dir: &str, n: usize, looks: usize) {
        let paths: Vec<String> = (0..n).map(|i| format!("/srv/{dir}/part-{i}.csv")).collect();
        let fds: Vec<u32> = paths.iter().map(|path| w.open(p, path)).collect();
        for path in &paths {
            w.look();
            w.unlink(path);
        }
        w.looks(looks);
        fds.into_iter().for_each(|fd| w.close(p, fd));
        // Long enough for the cohort to be forgotten.
        w.looks(100);
    }

    #[test]
    fn who_comes_by_day_is_remembered_over_a_night_without_work() {
        let (mut w, p, _) = daemon("/srv/data");
        use_deleted(&mut w, p, "a", 10, 60);
        use_deleted(&mut w, p, "a", 30, 60);
        assert!(!w.ever_confirmed(), "{:#?}", w.changes);
        // That says nothing of another cohort, whatever takes the place of the first.
        use_deleted(&mut w, p, "b", 30, 60);
        assert!(w.ever_confirmed());
    }

    #[test]
    fn scratch_that_grows_and_grows_is_a_leak() {
        let (mut w, p, _) = daemon("/srv/data");
        for i in 0..8 {
            let path = format!("/tmp/ibAb3xZ{i}");
            w.open(p, &path);
            w.unlink(&path);
            w.looks(2);
        }
        w.looks(550);
        assert_eq!(w.ask(judge), [(Strength::Suspects, 8)], "who needs them may come yet");
        w.looks(30);
        assert_eq!(w.ask(judge), [(Strength::Confirms, 8)]);
    }
}
