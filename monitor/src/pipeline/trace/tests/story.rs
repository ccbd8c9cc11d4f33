//! A made-up machine with all that a trace can tell of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::attribution::unit::UnitKind;
use crate::ledger::testing::World;
use crate::pipeline::trace::{Entry, Header};
use crate::source::model::{
    BootId, FdBirth, FdKind, FdTable, Flow, Frame, InvocationId, KernelStr, Observation, Opener,
    ProcessTasks, Role, SystemdUnit, TaskCount, TaskEvent, UnitFlows,
};
use crate::time::Boottime;

pub(super) fn header() -> Header {
    Header::new(BootId(1), jiff::Timestamp::UNIX_EPOCH)
}

/// A service that leaks log handles, one that comes and goes, and much that is odd.
pub(super) fn story(looks: usize) -> Vec<Entry> {
    let mut w = World::new();
    w.task_probes = true;
    let leaky = w.spawn(("leaky.service", UnitKind::Service), 1, "/usr/bin/leaky --all \u{fc}");
    let quiet = w.spawn(("quiet.service", UnitKind::Service), leaky, "/usr/bin/quiet");
    let odd = w.spawn(("odd.service", UnitKind::Service), 1, "/usr/bin/odd");
    w.process(odd).comm = KernelStr::from(&b"o\xffd\nd"[..]);
    w.process(odd).exe = None;
    let users = BTreeMap::from([(0, KernelStr::from("root")), (7, KernelStr::from(&b"s\xfe"[..]))]);
    let mut entries = vec![Entry::Config(Box::new(w.config.clone())), Entry::Users(users)];
    let mut lives = Vec::new();
    for i in 0..looks {
        let log = w.open(leaky, &format!("/srv/leaky/job-{i}.log"));
        let born = FdBirth { at: w.now, tid: leaky, stack: Some(3) };
        w.fd(leaky, log).birth = Some(born).filter(|_| i % 2 == 0);
        let socket = w.connect(quiet);
        if i % 3 == 0 {
            w.close(quiet, socket);
        }
        w.write(leaky, log);
        w.flows = i % 4 != 3;
        w.stacks =
            if i % 2 == 0 { BTreeMap::from([(3, vec![1 << 40, 2])]) } else { BTreeMap::new() };
        w.same = if i % 5 == 4 { [quiet].into() } else { [].into() };
        w.process(odd).fds = match i % 5 {
            0 => FdTable::Denied,
            1 => FdTable::Count(i as u32),
            2 => FdTable::Full(Vec::new()),
            _ => w.process(leaky).fds.clone(),
        };
        w.process(odd).zombie = i % 7 == 6;
        w.process(quiet).threads = 1 + i as u32 % 3;
        w.process(leaky).old_threads = (i % 4 != 1).then_some([1 + i as u32 / 3, 1, 1, 0]);
        w.lost = BTreeMap::from([("births".to_owned(), i as u64 / 8)]);
        let child = w.spawn(("leaky.service", UnitKind::Service), leaky, "/usr/bin/job 1");
        let (parent, id) = (w.process(leaky).id, w.process(child).id);
        let at = w.now + Duration::from_secs(1);
        let comm = KernelStr::from("job");
        entries.push(Entry::Tasks(vec![
            TaskEvent::Fork { at, parent, child: id, comm: comm.clone() },
            TaskEvent::Exec { at, id, comm },
        ]));
        let mut glimpsed = w.process(child).clone();
        glimpsed.fds = FdTable::Denied;
        entries.push(Entry::Glimpse(vec![glimpsed], at));
        lives.push(child);
        if lives.len() > 2 {
            let gone = lives.remove(0);
            let id = w.process(gone).id;
            w.exit(gone);
            entries.push(Entry::Tasks(vec![TaskEvent::Exit { at, id, status: 9 }]));
            entries.push(Entry::Judge(w.clock()));
        }
        let (mut seen, _) = w.observe();
        decorate(&mut seen, i as u64);
        let judged = w.clock();
        entries.push(Entry::Look(Box::new(seen), judged));
    }
    entries
}

fn decorate(seen: &mut Observation, i: u64) {
    if let Some(flows) = &mut seen.flows {
        let flow = Flow { opened: i, closed: i / 2, ..Flow::default() };
        let of = |n| UnitFlows {
            fds: BTreeMap::from([(FdKind::Socket, Flow { closed: n, ..flow.clone() })]),
            threads: Some(flow.clone()),
            processes: None,
        };
        flows.insert("leaky.service".into(), of(i));
        flows.insert("quiet.service".into(), of(1));
    }
    let cgroup = KernelStr::from("/system.slice/leaky.service");
    if i % 6 < 4 {
        seen.pids_max.insert(cgroup.clone(), 100 + i / 10);
    }
    let unit = SystemdUnit {
        id: "leaky.service".into(),
        invocation_id: Some(InvocationId(u128::MAX - 1)),
        active_state: Some("active".into()),
        entered: Some(Boottime(5)),
        ..SystemdUnit::default()
    };
    seen.systemd.insert(cgroup, Arc::new(unit));
    let process = seen.processes[0].id.pid;
    let count = TaskCount {
        alive: i / 2,
        spawned: i,
        file: Some("src/x.rs".into()),
        ..TaskCount::default()
    };
    let blind = (i % 5 == 4).then(|| "it has no symbols".to_owned());
    let kinds =
        BTreeMap::from([("leaky::beat".into(), count), ("\u{fc}".into(), TaskCount::default())]);
    if i % 7 != 6 {
        seen.async_tasks.insert(process, ProcessTasks { kinds, blind });
    }
    if i % 3 == 1 {
        let frame = Frame {
            function: "leaky::open_next".into(),
            file: Some("/src/leaky.rs".into()),
            line: Some(118),
            module: Some("/usr/bin/leaky".into()),
            role: Role::Opener,
        };
        let process = seen.processes[0].id;
        let note = i.is_multiple_of(2).then(|| "it is stripped".to_owned());
        let frames = vec![Frame::raw(1 << 40), frame];
        seen.openers.push(Arc::new(Opener { process, stack: 3, frames, note }));
    }
    seen.figures.programs.insert("p".to_owned(), (i as f64 / 3.0, i));
    seen.figures.census_seconds = 0.1 + i as f64 / 7.0;
}
