//! `inherited-unused`: children carry files over exec that they never touch, and each
//! carries more of them than the one before. Near-certain.
//!
//! A descriptor without `FD_CLOEXEC` stays open over execve(2) (`fs/file.c:
//! do_close_on_exec`), and the new program does not know that it is there. The parent's
//! closing it then gives nothing back: the file, its lock and its disk space stay until
//! the last child has ended.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Strength, named};
use crate::detection::rules::leaves_out;
use crate::detection::verdict::Rule;
use crate::ledger::Ledger;
use crate::ledger::process::{Held, Process, held_flags};
use crate::source::model::{FdKind, ProcessId};
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::InheritedUnused;

/// Children that carry something the ones before them did not. What one of them carries
/// may be handed over on purpose (a lock, activation by systemd), and what all carry
/// alike has an end.
const HABIT: usize = 3;

/// Standard input, output and error are handed over on purpose.
const STANDARD: u32 = 2;

type Members<'a> = Vec<(&'a Process, &'a Held)>;

/// Judges what children have from their parents.
pub fn judge(ledger: &Ledger, config: &Detection, now: Boottime) -> Vec<Finding> {
    if !ledger.exact_files() {
        return Vec::new();
    }
    let mut parents: HashMap<ProcessId, HashSet<u64>> = HashMap::new();
    let mut cohorts: BTreeMap<_, Members<'_>> = BTreeMap::new();
    let mut children: Vec<&Process> = ledger.processes().filter(|p| p.alive()).collect();
    children.sort_by_key(|p| (p.id.start_ticks, p.id));
    let mut seen = HashSet::new();
    for p in children {
        let Some(parent) = p.parent.and_then(|id| ledger.process(&id)) else { continue };
        if !parent.alive() || !executed(p, parent) {
            continue;
        }
        for h in p.held.iter().filter(|h| is_untouched(h)) {
            if now.since(h.since) < config.stale_after || leaves_out(ledger, RULE, h) {
                continue;
            }
            let parents_files = parents
                .entry(parent.id)
                .or_insert_with(|| parent.held.iter().map(|h| h.file).collect());
            // Each file counts once, for the first child that has it.
            if !parents_files.contains(&h.file) || !seen.insert((&*p.unit.name, h.file)) {
                continue;
            }
            let Some(cohort) = p.cohorts.get(h.slot as usize) else { continue };
            let key = (&*p.unit.name, p.invocation, h.kind, &*cohort.template);
            cohorts.entry(key).or_default().push((p, h));
        }
    }
    cohorts
        .into_iter()
        .filter_map(|((.., cohort), members)| verdict(ledger, config, cohort, &members))
        .collect()
}

/// It runs another program, or the same one anew: not a worker that has only given
/// itself a title ("nginx: worker process"), as setproctitle(3) and its like do.
fn executed(p: &Process, parent: &Process) -> bool {
    let first = p.cmdline.as_bytes().split(|b| *b == b' ').next();
    let titled = first.is_some_and(|word| word.ends_with(b":"));
    p.exe != parent.exe || (p.cmdline != parent.cmdline && !titled)
}

/// It was there when the process was first read, the probes did not see the process open
/// it, and nobody has moved its position since. What has no position is left out: nobody
/// can tell whether it is used.
fn is_untouched(h: &Held) -> bool {
    matches!(h.kind, FdKind::Regular | FdKind::Log)
        && h.fd > STANDARD
        && h.is(held_flags::FIRST_LOOK)
        && h.is(held_flags::SHARED)
        && h.birth.is_none()
        && h.moved == h.since
}

fn verdict(
    ledger: &Ledger,
    config: &Detection,
    cohort: &str,
    members: &[(&Process, &Held)],
) -> Option<Finding> {
    let carriers = |of: &[(&Process, &Held)]| -> BTreeSet<ProcessId> {
        of.iter().map(|(p, _)| p.id).collect()
    };
    // A census in part does not read a table whose numbers are the same, unless
    // something of it is suspected: then nobody knows whether it is touched.
    let watched = |(p, h): &(&Process, &Held)| p.seen_at().since(h.since) >= config.stale_after;
    let seen: Members<'_> = members.iter().copied().filter(watched).collect();
    let (strength, members) =
        if seen.len() as u64 >= config.min_held && carriers(&seen).len() >= HABIT {
            (Strength::Confirms, &seen[..])
        } else if members.len() as u64 >= config.min_held.div_ceil(2)
            && carriers(members).len() >= HABIT.div_ceil(2)
        {
            (Strength::Suspects, members)
        } else {
            return None;
        };
    let mut finding = Finding::of_descriptors(ledger, RULE, strength, cohort.to_owned(), members)?;
    let (last, _) = members.last()?;
    let parent = last.parent.and_then(|id| ledger.process(&id))?;
    let longest = members.iter().map(|(p, h)| p.seen_at().since(h.since)).max()?;
    finding.evidence = vec![format!(
        "{} files of {} went over exec into children that have not touched them, for up to {}; {} \
         children carry some that the ones before them did not, the last of them {}",
        members.len(),
        named(parent),
        text::duration(longest),
        carriers(members).len(),
        named(last),
    )];
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::detection::verdict::State;
    use crate::ledger::testing::World;

    const APP: (&str, UnitKind) = ("app.service", UnitKind::Service);

    fn manager() -> (World, u32) {
        let mut w = World::new();
        let p = w.spawn(APP, 1, "/usr/bin/manager");
        w.looks(2);
        (w, p)
    }

    /// A child that executes another program and keeps these.
    fn child(w: &mut World, p: u32, fds: &[u32]) -> u32 {
        let child = w.spawn(APP, p, "/usr/bin/worker");
        fds.iter().for_each(|fd| w.share(p, *fd, child));
        child
    }

    /// A file more for each of so many children, who get all that there is.
    fn hand_over(w: &mut World, p: u32, times: usize) -> Vec<u32> {
        let mut fds = Vec::new();
        for i in 0..times {
            fds.push(w.open(p, &format!("/srv/data/{i}.dat")));
            child(w, p, &fds);
            w.look();
        }
        w.looks(7);
        fds
    }

    #[test]
    fn each_child_carries_more() {
        let (mut w, p) = manager();
        hand_over(&mut w, p, 6);
        let leak = w.only();
        assert_eq!((leak.state, leak.held, &*leak.kind), (State::Confirmed, 6, "regular"));
        assert_eq!((&*leak.cohort, &leak.rules[..]), ("/srv/data/{n}.dat", &[RULE][..]));
        let said = "6 files of manager[100] went over exec into children";
        assert!(leak.evidence[0].starts_with(said), "{:?}", leak.evidence);
        assert!(leak.evidence[0].contains("6 children carry"), "{:?}", leak.evidence);
    }

    #[test]
    fn two_steps_are_suspected_only() {
        let (mut w, p) = manager();
        let first: Vec<u32> = (0..4).map(|i| w.open(p, &format!("/srv/data/{i}.dat"))).collect();
        child(&mut w, p, &first[..2]);
        w.look();
        child(&mut w, p, &first);
        w.looks(20);
        assert_eq!(w.ask(judge), [(Strength::Suspects, 4)]);
        assert!(!w.ever_confirmed());
    }

    #[test]
    fn innocents() {
        type Act = fn(&mut World, u32);
        let table: [(&str, Act); 7] = [
            ("all that there is, from the start, in every child", |w, p| {
                let fds: Vec<u32> =
                    (0..20).map(|i| w.open(p, &format!("/srv/data/{i}.dat"))).collect();
                for _ in 0..10 {
                    child(w, p, &fds);
                    w.look();
                }
            }),
            ("one lock, in every child", |w, p| {
                let lock = w.open(p, "/run/app.lock");
                for _ in 0..10 {
                    child(w, p, &[lock]);
                    w.look();
                }
            }),
            ("files that the children read", |w, p| {
                let fds = hand_over(w, p, 0);
                assert!(fds.is_empty());
                let mut fds = Vec::new();
                for i in 0..8 {
                    fds.push(w.open(p, &format!("/srv/data/{i}.dat")));
                    child(w, p, &fds);
                    w.look();
                    fds.iter().for_each(|fd| w.write(p, *fd));
                }
            }),
            ("workers that fork only", |w, p| {
                let mut fds = Vec::new();
                for i in 0..8 {
                    fds.push(w.open(p, &format!("/srv/data/{i}.dat")));
                    let worker = w.spawn(APP, p, "/usr/bin/manager");
                    fds.iter().for_each(|fd| w.share(p, *fd, worker));
                    w.look();
                }
            }),
            ("workers that fork and give themselves a title", |w, p| {
                let mut fds = Vec::new();
                for i in 0..8 {
                    fds.push(w.open(p, &format!("/srv/data/{i}.dat")));
                    let worker = w.spawn(APP, p, "/usr/bin/manager");
                    w.process(worker).cmdline = "manager: worker process".into();
                    fds.iter().for_each(|fd| w.share(p, *fd, worker));
                    w.look();
                }
            }),
            ("children that open the same files themselves", |w, p| {
                for i in 0..8 {
                    w.open(p, &format!("/srv/data/{i}.dat"));
                    let worker = w.spawn(APP, p, "/usr/bin/worker");
                    (0..=i).for_each(|n| _ = w.open(worker, &format!("/srv/data/{n}.dat")));
                    w.look();
                }
            }),
            ("what the parent has closed since", |w, p| {
                let fds = hand_over(w, p, 2);
                fds.iter().for_each(|fd| w.close(p, *fd));
            }),
        ];
        for (name, act) in table {
            let (mut w, p) = manager();
            act(&mut w, p);
            w.looks(7);
            let found = w.ask(judge);
            assert!(found.is_empty(), "{name}: {found:?}");
        }
    }

    #[test]
    fn without_addresses_of_files_nothing_is_said() {
        let (mut w, p) = manager();
        w.exact = false;
        hand_over(&mut w, p, 6);
        assert!(w.ask(judge).is_empty());
    }
}
