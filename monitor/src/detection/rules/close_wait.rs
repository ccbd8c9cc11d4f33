//! `close-wait`: the peer of a connection has gone and the service has not closed its
//! side. Near-certain.
//!
//! A TCP socket is in CLOSE_WAIT from the peer's FIN until close(2) (RFC 9293, section
//! 3.3.2; `net/ipv4/tcp_input.c: tcp_fin`), and no keepalive or timeout of the kernel
//! ends that: only the program can.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Strength, named};
use crate::detection::rules::leaves_out;
use crate::detection::turns::{BY_THE_HOUR, Turns, lowest_limit, past_turns, share_of};
use crate::detection::verdict::Rule;
use crate::ledger::Ledger;
use crate::ledger::process::{Held, Process};
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::CloseWait;

/// Separate censuses at which peers went. All connections of a pool lose theirs at once
/// when the other side restarts, and wait until the pool next takes them out.
const HABIT: usize = 3;

/// Judges every connection whose peer has gone.
pub fn judge(ledger: &Ledger, config: &Detection, now: Boottime) -> Vec<Finding> {
    let mut cohorts: BTreeMap<_, Vec<(&Process, &Held)>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for p in ledger.processes().filter(|p| p.alive()) {
        for h in p.held.iter().filter(|h| h.peer_gone.0 != 0) {
            // A shutdown of one direction looks the same while the answer is sent.
            if now.since(h.peer_gone) < config.stale_after || leaves_out(ledger, RULE, h) {
                continue;
            }
            // What fork has copied is one connection.
            if ledger.exact_files() && !seen.insert((&*p.unit.name, h.file)) {
                continue;
            }
            let cohort = p.cohorts.get(h.slot as usize).map_or("tcp", |c| &*c.template);
            let key = (&*p.unit.name, p.invocation, h.kind, cohort);
            cohorts.entry(key).or_default().push((p, h));
        }
    }
    cohorts
        .into_iter()
        .filter_map(|((.., cohort), members)| verdict(ledger, config, cohort, &members))
        .collect()
}

/// For how long the peer has been gone, as far as was seen. A census in part does not
/// read a table whose numbers are the same, unless something of it is suspected.
fn alone(p: &Process, h: &Held) -> Duration {
    p.seen_at().since(h.peer_gone)
}

fn verdict(
    ledger: &Ledger,
    config: &Detection,
    cohort: &str,
    members: &[(&Process, &Held)],
) -> Option<Finding> {
    let times = |of: &[(&Process, &Held)]| -> BTreeSet<Boottime> {
        of.iter().map(|(_, h)| h.peer_gone).collect()
    };
    let seen: Vec<_> =
        members.iter().copied().filter(|(p, h)| alone(p, h) >= config.stale_after).collect();
    // A pool finds out when it next takes them, and closes each in the end.
    let turns = Turns::of_descriptors(ledger, config, members.iter().copied());
    let is_overdue = |(p, h): &(&Process, &Held)| turns.overdue(alone(p, h), seen.len());
    let overdue: Vec<_> = seen.iter().copied().filter(is_overdue).collect();
    let enough =
        |of: &[(&Process, &Held)]| of.len() as u64 >= config.min_held && times(of).len() >= HABIT;
    let lives = turns.comes(seen.len()) || (enough(&seen) && !enough(&overdue));
    let longest = seen.iter().map(|(p, h)| alone(p, h)).max().unwrap_or_default();
    let enough_of = share_of(config, lowest_limit(seen.iter().map(|(p, _)| *p)));
    let patient = past_turns(config, BY_THE_HOUR, longest, (seen.len() as u64, enough_of));
    let (strength, members) = if enough(&seen) && patient && !lives {
        (Strength::Confirms, &seen[..])
    } else if members.len() as u64 >= config.min_held.div_ceil(2) {
        (Strength::Suspects, members)
    } else {
        return None;
    };
    let (held, waiting, times) = (members.len(), seen.len(), times(members));
    let mut finding = Finding::of_descriptors(ledger, RULE, strength, cohort.to_owned(), members)?;
    let (oldest, newest) = (times.first()?, times.last()?);
    let (p, _) = members.iter().max_by_key(|(p, h)| (alone(p, h), p.id, h.fd))?;
    let again = match times.len() {
        1 => "all at once".to_owned(),
        n => format!("at {n} separate censuses within {}", text::duration(newest.since(*oldest))),
    };
    finding.evidence = vec![format!(
        "{held} {} in CLOSE_WAIT: the {} gone, {again}, and the service has not closed; the longest for {}, in {}",
        if held == 1 { "connection" } else { "connections" },
        if held == 1 { "peer has" } else { "peers have" },
        text::duration(p.seen_at().since(*oldest)),
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

    const APP: (&str, UnitKind) = ("app.service", UnitKind::Service);
    const CLOSE_WAIT: u8 = 8;

    fn lose_peer(w: &mut World, p: u32, fd: u32) {
        w.fd(p, fd).socket.as_mut().unwrap().state = CLOSE_WAIT;
    }

    fn client() -> (World, u32) {
        let mut w = World::new();
        let p = w.spawn(APP, 1, "/usr/bin/client");
        w.connect(p);
        w.looks(3);
        (w, p)
    }

    #[test]
    fn responses_that_nobody_closes() {
        let (mut w, p) = client();
        let mut fds = Vec::new();
        for _ in 0..8 {
            let fd = w.connect(p);
            fds.push(fd);
            w.look();
            lose_peer(&mut w, p, fd);
            w.look();
        }
        assert!(!w.ever_confirmed(), "a pool may yet find out");
        w.looks(120);
        assert!(!w.ever_confirmed());
        w.looks(24);
        let leak = w.only();
        assert_eq!((leak.state, leak.held, &*leak.kind), (State::Confirmed, 8, "socket"));
        assert_eq!((&*leak.cohort, &leak.rules[..]), ("tcp", &[RULE][..]));
        assert!(leak.evidence[0].contains("8 connections in CLOSE_WAIT"), "{:?}", leak.evidence);
        fds.iter().for_each(|fd| w.close(p, *fd));
        w.look();
        assert!(w.open_leaks().is_empty());
    }

    #[test]
    fn many_are_not_waited_for() {
        let (mut w, p) = client();
        for _ in 0..4 {
            for _ in 0..5 {
                let fd = w.connect(p);
                lose_peer(&mut w, p, fd);
            }
            w.look();
        }
        w.looks(6);
        assert_eq!(w.ask(judge), [(Strength::Confirms, 20)]);
        // Half of them are closed after all: it was a pool, and the verdict is taken back.
        assert_eq!(w.only().state, State::Confirmed);
        let fds: Vec<u32> = w.fds(p).iter().map(|fd| fd.fd).step_by(2).collect();
        fds.iter().for_each(|fd| w.close(p, *fd));
        w.look();
        let leak = w.only();
        assert_eq!((leak.state, leak.confirmed_at), (State::Suspected, None), "{leak:#?}");
        assert!(leak.evidence[1].ends_with("the others may be, too"), "{leak:#?}");
        w.looks(160);
        assert_eq!(w.only().state, State::Confirmed, "ten are held, and none is closed any more");
    }

    #[test]
    fn a_pool_whose_server_restarts_is_suspected_only() {
        let (mut w, p) = client();
        let fds: Vec<u32> = (0..20).map(|_| w.connect(p)).collect();
        w.looks(3);
        fds.iter().for_each(|fd| lose_peer(&mut w, p, *fd));
        w.looks(40);
        assert_eq!(w.ask(judge), [(Strength::Suspects, 20)]);
        assert!(!w.ever_confirmed());
    }

    #[test]
    fn a_pool_that_finds_out_late_is_suspected_only() {
        let (mut w, p) = client();
        let mut pool: std::collections::VecDeque<u32> = (0..8).map(|_| w.connect(p)).collect();
        w.looks(3);
        // Taken in turn; whose server has closed it is made anew when it is its turn.
        fn turn(w: &mut World, p: u32, pool: &mut std::collections::VecDeque<u32>) {
            if let Some(fd) = pool.pop_front() {
                w.close(p, fd);
            }
            let fresh = w.connect(p);
            pool.push_back(fresh);
            w.look();
            lose_peer(w, p, fresh);
        }
        // Six looks make it late: of eight there are never five.
        (0..80).for_each(|_| turn(&mut w, p, &mut pool));
        assert!(!w.ever_confirmed());
        // A larger one has more, and closes as many.
        for _ in 0..12 {
            let fd = w.connect(p);
            lose_peer(&mut w, p, fd);
            pool.push_front(fd);
        }
        let mut said = false;
        for _ in 0..80 {
            turn(&mut w, p, &mut pool);
            let ends = |e: &String| e.ends_with("the others may be, too");
            said |= w.open_leaks().iter().any(|l| l.evidence.iter().any(ends));
        }
        assert!(!w.ever_confirmed() && said, "{:#?}", w.changes);
    }

    #[test]
    fn a_table_that_is_not_read_again_is_suspected_and_no_more() {
        let (mut w, p) = client();
        for _ in 0..5 {
            let fd = w.connect(p);
            lose_peer(&mut w, p, fd);
            w.look();
        }
        w.same.insert(p);
        w.looks(140);
        assert_eq!(w.ask(judge), [(Strength::Suspects, 5)]);
        assert!(!w.ever_confirmed());
        w.same.clear();
        w.look();
        assert_eq!(w.ask(judge), [(Strength::Confirms, 5)]);
    }

    #[test]
    fn innocents() {
        type Act = fn(&mut World, u32);
        let table: [(&str, Act); 4] = [
            ("closed soon after its peer", |w, p| {
                for _ in 0..40 {
                    let fd = w.connect(p);
                    lose_peer(w, p, fd);
                    w.looks(3);
                    w.close(p, fd);
                }
            }),
            ("established", |w, p| {
                (0..40).for_each(|_| _ = w.connect(p));
                w.looks(40);
            }),
            ("a unix socket of the same number", |w, p| {
                for _ in 0..20 {
                    let fd = w.connect(p);
                    w.fd(p, fd).socket.as_mut().unwrap().family = 1;
                    lose_peer(w, p, fd);
                    w.looks(2);
                }
            }),
            ("one that fork has copied six times", |w, p| {
                let fd = w.connect(p);
                lose_peer(w, p, fd);
                for _ in 0..6 {
                    let child = w.spawn(APP, p, "/usr/bin/worker");
                    w.share(p, fd, child);
                    w.looks(3);
                }
                w.looks(12);
            }),
        ];
        for (name, act) in table {
            let (mut w, p) = client();
            act(&mut w, p);
            assert_eq!(w.ask(judge), [], "{name}");
        }
    }
}
