use super::story::{header, story};
use super::{replayed, unpacked, written};
use crate::attribution::unit::UnitKind;
use crate::detection::verdict::{Leak, Rule, State};
use crate::ledger::testing::World;
use crate::pipeline::trace::{Entry, Format, Reader};
use crate::source::model::{FdTable, ProcessTasks, TaskCount};

#[test]
fn what_was_written_is_read_again() {
    let story = story(40);
    let trace = written(&header(), &story);
    let mut reader = Reader::new(trace.as_slice()).unwrap();
    assert_eq!(reader.header(), &header());
    for (i, entry) in story.iter().enumerate() {
        assert_eq!(reader.next_entry().unwrap().as_ref(), Some(entry), "entry {i}");
    }
    assert_eq!(reader.next_entry().unwrap(), None);
    assert_eq!(reader.ended(), Some("the test is over"));
    // Unpacked it is read as well, which is how one is edited.
    let text = unpacked(&trace);
    let mut reader = Reader::new(text.as_bytes()).unwrap();
    assert_eq!(std::iter::from_fn(|| reader.next_entry().unwrap()).collect::<Vec<_>>(), story);
}

#[test]
fn two_replays_say_the_same_and_find_the_leak() {
    let trace = written(&header(), &story(60));
    for format in [Format::Text, Format::Json] {
        let (first, replay, result) = replayed(&trace, format, None);
        result.unwrap();
        assert_eq!((replay.looks, replay.span.as_secs()), (60, 59 * 5));
        for _ in 0..2 {
            assert_eq!(replayed(&trace, format, None).0, first);
        }
        assert!(first.contains("leaky.service"), "{first}");
        assert!(first.lines().any(|l| l.contains("confirmed")), "{first}");
    }
    let (text, ..) = replayed(&trace, Format::Text, None);
    assert!(text.lines().last().unwrap().starts_with("at the end: "), "{text}");
    let (json, ..) = replayed(&trace, Format::Json, None);
    let last: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    let leaks: Vec<Leak> = serde_json::from_value(last["leaks"].clone()).unwrap();
    assert!(leaks.iter().any(|l| &*l.unit == "leaky.service"), "{leaks:#?}");
}

#[test]
fn tasks_are_judged_again_as_they_were() {
    let mut w = World::new();
    let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
    let mut entries = vec![Entry::Config(Box::new(w.config.clone()))];
    for i in 0..80_u64 {
        let alive = i.saturating_sub(20);
        let count = TaskCount { alive, spawned: alive, line: Some(7), ..TaskCount::default() };
        let kinds = [("app::Server::beat".into(), count)].into();
        w.async_tasks.insert(p, ProcessTasks { kinds, blind: None });
        let (seen, units) = w.observe();
        w.ledger.census(seen.clone(), &units);
        let at = w.clock();
        w.changes.extend(w.docket.judge(&w.ledger, &w.config, at));
        entries.push(Entry::Look(Box::new(seen), at));
    }
    let live = w.only();
    assert_eq!((live.state, live.rules.as_slice()), (State::Confirmed, &[Rule::TaskGrowth][..]));
    let (json, ..) = replayed(&written(&header(), &entries), Format::Json, None);
    let last: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    let leaks: Vec<Leak> = serde_json::from_value(last["leaks"].clone()).unwrap();
    assert_eq!(leaks.len(), 1);
    // The trace's units are told by cgroup, as those here are.
    assert_eq!(
        (leaks[0].state, leaks[0].held, &leaks[0].cohort, &leaks[0].evidence, &leaks[0].opener),
        (live.state, live.held, &live.cohort, &live.evidence, &live.opener)
    );
}

#[test]
fn another_config_judges_otherwise() {
    let trace = written(&header(), &story(60));
    let mut lenient = crate::ledger::testing::config();
    lenient.detection.min_held = 1000;
    let (text, ..) = replayed(&trace, Format::Text, Some(&lenient));
    assert!(text.lines().last().unwrap().starts_with("at the end: 0 confirmed"), "{text}");
}

#[test]
fn what_stays_the_same_is_not_written_again() {
    let story = story(1);
    let Some(Entry::Look(seen, judged)) = story.last() else { panic!("the last is a look") };
    let mut many = seen.clone();
    let FdTable::Full(fds) = &mut many.processes[0].fds else { panic!("seen in full") };
    let sample = fds[0].clone();
    fds.clear();
    fds.extend((0..20_000).map(|fd| crate::source::model::FdSample { fd, ..sample.clone() }));
    let look = Entry::Look(many, *judged);
    let once = unpacked(&written(&header(), std::slice::from_ref(&look)));
    let twice = unpacked(&written(&header(), &[look.clone(), look.clone()]));
    assert!(once.lines().all(|line| line.len() < 2 << 20), "long tables are cut");
    let more = twice.len() - once.len();
    assert!(more < 1000, "{more} bytes for the same again");
    let mut reader = Reader::new(twice.as_bytes()).unwrap();
    for _ in 0..2 {
        assert_eq!(reader.next_entry().unwrap(), Some(look.clone()));
    }
}

#[test]
fn what_cleanup_would_do_is_left_out() {
    let config = crate::config::parse("[[cleanup]]\nrule = \"*\"\ndo = \"notify\"\n", "x").unwrap();
    assert_eq!(config.cleanup.len(), 1);
    let trace = written(&header(), &[Entry::Config(Box::new(config))]);
    let mut reader = Reader::new(trace.as_slice()).unwrap();
    let want = Entry::Config(Box::default());
    assert_eq!(reader.next_entry().unwrap(), Some(want));
}

/// Written by version 0.1.0. A later format gets a file of its own beside it.
const FORMAT_1: &[u8] = include_bytes!("../testdata/format-1.trace");

#[test]
fn what_earlier_versions_wrote_is_still_replayed() {
    let reader = Reader::new(FORMAT_1).unwrap();
    assert_eq!((reader.header().format, &*reader.header().version), (1, "0.1.0"));
    let (text, replay, result) = replayed(FORMAT_1, Format::Text, None);
    result.unwrap();
    assert_eq!((replay.looks, replay.ended.as_deref()), (60, Some("the test is over")));
    let confirmed = |l: &str| l.contains(" confirmed ") && l.contains(" leaky.service: ");
    assert!(text.lines().any(confirmed), "{text}");
}
