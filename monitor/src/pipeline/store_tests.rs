use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;

use super::*;
use crate::ledger::baseline::{Era, Life, Rest};
use crate::source::model::BootId;
use crate::time::Boottime;

fn learned(n: u32) -> (CohortKey, Baseline) {
    let key = CohortKey {
        unit: "app.service".into(),
        kind: "socket".into(),
        cohort: format!("tcp {n}").into(),
    };
    let life = Life { boot: BootId(u128::MAX), began: Boottime(7) };
    let (since, until) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    let era = Era { version: None, since, until, rests: vec![Rest { life, at: n }] };
    (key, Baseline { eras: vec![era] })
}

fn change((key, baseline): (CohortKey, Baseline)) -> Learned {
    (key, Some(Arc::new(baseline)))
}

fn closed(store: Store) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.close());
}

/// A store with so many baselines.
fn filled(dir: &Path, n: u32) {
    let (store, kept) = Store::open(dir).unwrap();
    assert_eq!(kept, []);
    store.keep((0..n).map(learned).map(change).collect());
    closed(store);
}

#[test]
fn what_was_learned_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let (store, kept) = Store::open(dir.path()).unwrap();
    assert_eq!(kept, [learned(0), learned(1), learned(2)]);
    store.keep(vec![(learned(1).0, None)]);
    store.keep(vec![change((learned(2).0, learned(9).1))]);
    closed(store);
    let (store, kept) = Store::open(dir.path()).unwrap();
    closed(store);
    assert_eq!(kept, [learned(0), (learned(2).0, learned(9).1)]);
    let mode = std::fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn one_that_is_damaged_anywhere_is_read_or_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 300);
    let path = dir.path().join(NAME);
    let whole = std::fs::read(&path).unwrap();
    let begin = whole.len().min(64 * 1024);
    let mut damaged: Vec<Vec<u8>> = vec![b"not a database".to_vec(), vec![0; 4096]];
    damaged.extend((0..12).map(|n| whole[..whole.len() * n / 12].to_vec()));
    for n in 0..48 {
        let mut bytes = whole.clone();
        let at = begin * n / 48;
        bytes[at..(at + 64).min(begin)].fill(0xa5);
        damaged.push(bytes);
    }
    let mut set_aside = 0;
    for (n, bytes) in damaged.into_iter().enumerate() {
        let _ = std::fs::remove_file(aside(&path));
        std::fs::write(&path, &bytes).unwrap();
        let (store, kept) = Store::open(dir.path()).unwrap();
        store.keep(vec![change(learned(1000))]);
        closed(store);
        if let Ok(kept_aside) = std::fs::read(aside(&path)) {
            set_aside += 1;
            assert_eq!(kept_aside.len(), bytes.len(), "{n}: nothing of it is lost");
            assert_eq!(kept, [], "{n}");
        }
        let (store, kept) = Store::open(dir.path()).unwrap();
        closed(store);
        assert!(kept.contains(&learned(1000)), "{n}: it works on");
    }
    assert!(set_aside >= 12, "{set_aside}");
}

#[test]
fn one_that_ended_the_agent_twice_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let path = dir.path().join(NAME);
    assert!(!opening(&path).exists());
    // Once may be a kill, and nothing is lost.
    std::fs::write(opening(&path), ".").unwrap();
    let (store, kept) = Store::open(dir.path()).unwrap();
    closed(store);
    assert_eq!(kept.len(), 3);
    assert!(!aside(&path).exists() && !opening(&path).exists());
    std::fs::write(opening(&path), "..").unwrap();
    let (store, kept) = Store::open(dir.path()).unwrap();
    closed(store);
    assert!(kept.is_empty() && aside(&path).exists() && !opening(&path).exists());
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 2);
    let path = dir.path().join(NAME);
    // A write that fails leaves the library's database unusable: as if it were gone.
    let mut database = None;
    let waits = [learned(2), learned(3)].map(change).into_iter().collect();
    let other = Database::open(&path).unwrap();
    assert!(keep(&path, &mut database, &waits).is_err(), "somebody else has it");
    drop(other);
    keep(&path, &mut database, &waits).unwrap();
    drop(database);
    let (store, kept) = Store::open(dir.path()).unwrap();
    closed(store);
    assert_eq!(kept, [learned(0), learned(1), learned(2), learned(3)]);
}

#[test]
fn what_is_no_store_of_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    // A later leakwatch has been here.
    let database = Database::create(&path).unwrap();
    let begin = database.begin_write().unwrap();
    begin.open_table(FORMATS).unwrap().insert("baselines", FORMAT + 1).unwrap();
    begin.commit().unwrap();
    drop(database);
    let before = std::fs::read(&path).unwrap();
    let (store, kept) = Store::open(dir.path()).unwrap();
    assert!(kept.is_empty() && store.learned.is_none());
    store.keep(vec![change(learned(1))]);
    closed(store);
    assert_eq!(std::fs::read(&path).unwrap().len(), before.len());
    assert!(!aside(&path).exists());
    // Nor is that of another program touched.
    std::fs::remove_file(&path).unwrap();
    let database = Database::create(&path).unwrap();
    let begin = database.begin_write().unwrap();
    let theirs = TableDefinition::<&str, u64>::new("theirs");
    begin.open_table(theirs).unwrap().insert("x", 1).unwrap();
    begin.commit().unwrap();
    drop(database);
    let (store, _) = Store::open(dir.path()).unwrap();
    assert!(store.learned.is_none() && !aside(&path).exists());
    // Nor is a link followed.
    std::fs::remove_file(&path).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    assert!(store.learned.is_none() && !elsewhere.exists());
}
