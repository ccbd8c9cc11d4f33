//! Takes the descriptors of a process from a census.

use core::net::IpAddr;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::ledger::descriptions::Opening;
use crate::ledger::late::Late;
use crate::ledger::process::{Held, NO_SLOT, Process, Sight, held_flags};
use crate::ledger::template;
use crate::source::model::{FdBirth, FdKind, FdSample, FdTable, SocketState};
use crate::time::Boottime;

/// The rule that judges floors: what it leaves out is not counted for one.
const FLOOR_RULE: &str = "rising-floor";

/// The present census, as far as every process shares it.
pub(super) struct Look {
    /// When it began.
    pub began: Boottime,
    /// When it ended.
    pub now: Boottime,
    /// When the one before began.
    pub previous: Option<Boottime>,
    /// The fd probes were attached from the one before until now.
    pub probes: bool,
    /// How long a window is.
    pub window: Duration,
    /// A connection that is kept for so long after its peer has gone is kept late.
    pub stale_after: Duration,
    /// How long it is remembered that one was closed.
    pub remembered: Duration,
}

impl Look {
    /// Nothing of the process was open before the agent watched it.
    fn watched_from_start(&self, p: &Process) -> bool {
        p.detailed.is_some() || self.previous.is_some_and(|began| p.id.started() >= began)
    }

    /// A birth from before a census that did not have the descriptor belongs to
    /// another file: its close went unseen.
    fn may_be_born(p: &Process, birth: FdBirth) -> bool {
        p.detailed.is_none_or(|(began, _)| birth.at >= began)
    }

    /// When a description that is new to the ledger was opened.
    pub fn opened(&self, p: &Process, fd: &FdSample) -> Opening {
        match fd.birth {
            Some(birth) if Self::may_be_born(p, birth) => {
                Opening { at: birth.at, known: true, seen: true }
            }
            _ => Opening { at: self.now, known: self.watched_from_start(p), seen: false },
        }
    }
}

impl Ledger {
    /// Replaces the descriptors of `p` by those of a census; true where a cohort
    /// is new.
    pub(super) fn take_descriptors(
        &mut self,
        p: &mut Process,
        table: FdTable,
        look: &Look,
        alive: &HashSet<u32>,
    ) -> bool {
        p.sight = Sight::of(&table).unwrap_or(p.sight);
        let mut fds = match table {
            FdTable::Full(fds) => fds,
            FdTable::Same(_) => return false,
            // What was seen before stands until it is seen again.
            FdTable::Count(n) => {
                p.total.count = n;
                p.total.see();
                return false;
            }
            FdTable::Denied => Vec::new(),
        };
        if !fds.is_sorted_by_key(|f| f.fd) {
            fds.sort_by_key(|f| f.fd);
        }
        p.closed_late.forget(look.now, look.remembered);
        p.listens.clear();
        p.listens
            .extend(fds.iter().filter_map(|f| f.socket.filter(|s| s.listens())).map(|s| s.port));
        let known_cohorts = p.slots.len();
        let first_look = p.detailed.is_none();
        let before = std::mem::take(&mut p.held);
        for c in &mut p.cohorts {
            c.track.count = 0;
        }
        let mut held = Vec::with_capacity(fds.len());
        let mut before = before.into_iter().peekable();
        for sample in fds {
            while let Some(gone) = before.next_if(|b| b.fd < sample.fd) {
                self.retire(p, &gone, look);
            }
            let old = before.next_if(|b| b.fd == sample.fd);
            let reopened = |b: &Held| {
                // Another birth since the last census began that saw it: closed and
                // opened again, and the kernel gave it the same address. That of one
                // which was being opened then comes late.
                sample.birth.is_some_and(|n| {
                    b.birth.is_none_or(|known| !same_birth(known, n))
                        && Look::may_be_born(p, n)
                        && (b.birth.is_some() || b.since < p.seen_at() || n.at > p.seen_at())
                })
            };
            let h = match old {
                Some(old) if old.same_file(&sample) && !reopened(&old) => {
                    self.carry(p, old, &sample, look, alive)
                }
                old => {
                    if let Some(old) = &old {
                        self.retire(p, old, look);
                    }
                    // Thousands of handles on one path are classified once.
                    let same_as_last = held
                        .last()
                        .filter(|l: &&Held| {
                            l.path == sample.path
                                && l.raw_kind() == sample.kind
                                && sample.kind != FdKind::Socket
                        })
                        .map(|l| (l.kind, l.slot, l.ignored));
                    self.admit(p, old.as_ref(), &sample, look, first_look, same_as_last)
                }
            };
            if h.slot != NO_SLOT {
                p.cohorts[h.slot as usize].track.count += 1;
            }
            held.push(h);
        }
        for gone in before {
            self.retire(p, &gone, look);
        }
        p.held = held;
        p.reclassify = false;
        p.detailed = (p.sight == Sight::Full).then_some((look.began, look.now));
        p.cohorts.iter_mut().for_each(|c| c.track.see());
        p.total.count = p.held.len() as u32;
        p.total.see();
        if first_look {
            p.open_window();
        }
        p.slots.len() > known_cohorts
    }

    /// The same open file as before.
    fn carry(
        &mut self,
        p: &mut Process,
        mut h: Held,
        sample: &FdSample,
        look: &Look,
        alive: &HashSet<u32>,
    ) -> Held {
        if let (None, Some(birth)) = (h.birth, sample.birth.filter(|b| Look::may_be_born(p, *b))) {
            h.birth = Some(birth);
            h.opened = birth.at.min(h.opened);
            h.set(held_flags::OPENED_KNOWN, true);
        }
        if let (Some(known), Some(now)) = (&mut h.birth, sample.birth.filter(|n| n.stack.is_some()))
            && same_birth(*known, now)
        {
            // Its stack has been unwound since.
            known.stack = now.stack;
        }
        if h.position != sample.position {
            p.parts.wake(&h, look.now.since(h.moved), look.window);
            (h.position, h.moved) = (sample.position, look.now);
        }
        if h.size != sample.size {
            (h.size, h.resized) = (sample.size, look.now);
        }
        h.disk_bytes = sample.disk_bytes;
        if sample.nlink != 0 {
            h.deleted = Boottime(0);
        } else if h.deleted == Boottime(0) {
            h.deleted = look.now;
        }
        if !peer_gone(sample) {
            h.peer_gone = Boottime(0);
        } else if h.peer_gone == Boottime(0) {
            h.peer_gone = look.now;
        }
        let partner = self.descriptions.get(h.file).and_then(|d| d.partner_of(p.serial));
        match partner {
            Some(partner) => {
                h.partner = partner;
                h.partner_gone = Boottime(0);
            }
            // Closed by a process that goes on is not the end of a writer.
            None if h.is(held_flags::SHARED) && !alive.contains(&h.partner) => {
                h.partner_gone = look.now;
            }
            None => {}
        }
        h.set(held_flags::SHARED, partner.is_some());
        let peer = peer(sample);
        if h.path != sample.path || p.reclassify || h.peer != peer {
            h.peer = peer;
            h.path = sample.path.clone();
            self.classify(p, &mut h, sample);
        }
        h
    }

    /// An open file that was not there before.
    fn admit(
        &mut self,
        p: &mut Process,
        old: Option<&Held>,
        sample: &FdSample,
        look: &Look,
        first_look: bool,
        same_as_last: Option<(FdKind, u32, u8)>,
    ) -> Held {
        let birth = sample.birth.filter(|b| Look::may_be_born(p, *b));
        if sample.birth.is_some() && birth.is_none() {
            let same =
                |o: &Held| o.birth.is_some_and(|b| sample.birth.is_some_and(|n| same_birth(b, n)));
            let unclosed = old.is_some_and(same);
            self.correct(if unclosed { "unseen_close" } else { "stale_birth" });
        } else if birth.is_none() && look.probes && !first_look {
            self.correct("unseen_open");
        }
        let Opening { at: mut opened, mut known, .. } = look.opened(p, sample);
        let description = self.descriptions.get(sample.file).copied();
        if let Some(d) = description {
            (opened, known) = (d.opened, d.known);
        }
        let partner = description.and_then(|d| d.partner_of(p.serial));
        let mut h = Held {
            file: sample.file,
            inode: sample.inode,
            position: sample.position,
            size: sample.size,
            disk_bytes: sample.disk_bytes,
            path: sample.path.clone(),
            since: look.now,
            opened,
            moved: look.now,
            resized: look.now,
            deleted: if sample.nlink == 0 { look.now } else { Boottime(0) },
            peer_gone: if peer_gone(sample) { look.now } else { Boottime(0) },
            partner_gone: Boottime(0),
            birth,
            fd: sample.fd,
            device: sample.device,
            slot: NO_SLOT,
            partner: partner.unwrap_or(0),
            peer: peer(sample),
            kind: sample.kind,
            flags: 0,
            ignored: 0,
        };
        h.set(held_flags::WRITABLE, sample.writable());
        h.set(held_flags::SHARED, partner.is_some());
        h.set(held_flags::FIRST_LOOK, first_look);
        h.set(held_flags::OPENED_KNOWN, known);
        h.set(held_flags::BORN_DELETED, sample.nlink == 0 && Self::fresh(p, &h, look));
        match same_as_last {
            Some((kind, slot, ignored)) => (h.kind, h.slot, h.ignored) = (kind, slot, ignored),
            None => self.classify(p, &mut h, sample),
        }
        h
    }

    /// Whether it was opened after the table was last read: nobody can have seen it
    /// with a name.
    fn fresh(p: &Process, h: &Held, look: &Look) -> bool {
        let read = p.detailed.map(|(began, _)| began).or(look.previous);
        h.is(held_flags::OPENED_KNOWN) && read.is_some_and(|at| h.opened >= at)
    }

    /// Finds kind, cohort and ignores of a descriptor.
    fn classify(&mut self, p: &mut Process, h: &mut Held, sample: &FdSample) {
        let path = sample.path.as_bytes();
        h.ignored = self.patterns.ignored(&p.unit.name, Some(path));
        h.kind = sample.kind;
        if h.kind == FdKind::Regular && self.patterns.is_log(&p.unit.name, path) {
            h.kind = FdKind::Log;
        }
        if self.patterns.leaves_out(h.ignored, FLOOR_RULE) {
            h.slot = NO_SLOT;
            return;
        }
        let template = template::template(h.kind, sample, &p.listens);
        let state = self.units.get(&p.unit.name);
        let template = match state.and_then(|s| s.collapsed_to(&template)) {
            Some(collapsed) => Cow::Owned(collapsed),
            None => template,
        };
        let template = self.intern(&template);
        h.slot = p.slot(h.kind, &template);
    }

    /// Notes that a descriptor has gone.
    fn retire(&self, p: &mut Process, gone: &Held, look: &Look) {
        if gone.slot != NO_SLOT {
            let (age, seen) = (look.now.since(gone.opened), look.now.since(gone.since));
            p.parts.retire(gone, self.openers.function(p.id, gone), look.now, look.window);
            let cohort = &mut p.cohorts[gone.slot as usize];
            cohort.track.retire(age, seen, look.window);
            cohort.lived.push(look.now, age, look.remembered);
        }
        if let Some(waited) = late(gone, look) {
            let cohort = p.cohorts.get(gone.slot as usize);
            let cohort = cohort.map(|c| (gone.kind, Arc::clone(&c.template)));
            let late = Late { at: look.now, cohort, waited };
            p.closed_late.push(late, look.remembered);
        }
    }

    /// One copy of each template.
    pub(super) fn intern(&mut self, template: &str) -> Arc<str> {
        if let Some(known) = self.templates.get(template) {
            return Arc::clone(known);
        }
        let new: Arc<str> = template.into();
        self.templates.insert(Arc::clone(&new));
        new
    }
}

/// FNV-1a of address and port of the other side; 0 for none.
fn peer(sample: &FdSample) -> u32 {
    let Some(peer) = sample.socket.and_then(|s| s.peer) else { return 0 };
    let port = peer.port().to_le_bytes();
    let bytes = match peer.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().chain(&port).fold(0x811c_9dc5, step).max(1)
}

fn peer_gone(sample: &FdSample) -> bool {
    sample.socket.is_some_and(SocketState::close_wait)
}

/// For how long it had waited, where that is so long that a rule may have held it against
/// its process.
fn late(gone: &Held, look: &Look) -> Option<Duration> {
    let log = gone.kind == FdKind::Log && gone.is(held_flags::WRITABLE);
    let since = [gone.peer_gone, gone.deleted, if log { gone.moved } else { Boottime(0) }];
    let waited = since.iter().filter(|at| at.0 != 0).map(|at| look.now.since(*at));
    waited.max().filter(|waited| *waited >= look.stale_after)
}

/// The same opening, though more may be known of it by now.
fn same_birth(one: FdBirth, other: FdBirth) -> bool {
    (one.at, one.tid) == (other.at, other.tid)
}
