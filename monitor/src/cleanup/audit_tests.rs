use jiff::Timestamp;

use super::*;
use crate::cleanup::record::Outcome;
use crate::config::model::{ActionKind, Mode};

fn record(act: u64) -> ActionRecord {
    ActionRecord {
        at: Timestamp::UNIX_EPOCH,
        act,
        leak: "0123456789ab".into(),
        unit: "a\nb \"c\"".into(),
        rule: "orphan".into(),
        action: ActionKind::KillOrphans,
        mode: Mode::Enforce,
        outcome: Outcome::Pending,
        pids: vec![42],
        detail: "ended x[42] by SIGTERM".into(),
    }
}

fn acts(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .filter_map(|l| serde_json::from_str::<ActionRecord>(l).ok())
        .map(|r| r.act)
        .collect()
}

#[test]
fn lines_are_json_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut audit = Audit::open(dir.path()).unwrap();
    audit.append(&record(1));
    audit.append(&record(2));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert_eq!(
        serde_json::from_str::<ActionRecord>(text.lines().next().unwrap()).unwrap(),
        record(1)
    );
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_torn_line_does_not_spoil_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    std::fs::write(&path, "{\"at\":\"1970").unwrap();
    let mut audit = Audit::open(dir.path()).unwrap();
    audit.append(&record(7));
    audit.append(&record(8));
    assert_eq!(acts(&path), [7, 8]);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
}

#[test]
fn a_torn_line_that_is_rotated_away_does_not_spoil_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    std::fs::write(&path, "{\"at\":\"1970").unwrap();
    let mut audit = Audit::open_with(dir.path(), 16).unwrap();
    audit.append(&record(7));
    let old = std::fs::read(dir.path().join("audit.jsonl.1")).unwrap();
    let both = [old, std::fs::read(&path).unwrap()].concat();
    let whole = dir.path().join("both");
    std::fs::write(&whole, both).unwrap();
    assert_eq!(acts(&whole), [7]);
}

#[test]
fn two_files_at_most_and_nothing_in_between_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut audit = Audit::open_with(dir.path(), 2000).unwrap();
    for act in 0..100 {
        audit.append(&record(act));
    }
    let old = dir.path().join("audit.jsonl.1");
    let kept: Vec<u64> = acts(&old).into_iter().chain(acts(&path)).collect();
    assert_eq!(kept, (100 - kept.len() as u64..100).collect::<Vec<_>>());
    assert!(path.metadata().unwrap().len() <= 2000 && old.metadata().unwrap().len() <= 2000);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_file_that_is_moved_or_removed_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut audit = Audit::open_with(dir.path(), 2000).unwrap();
    audit.append(&record(1));
    std::fs::rename(&path, dir.path().join("taken-by-logrotate")).unwrap();
    audit.append(&record(2));
    assert_eq!(acts(&path), [2]);
    std::fs::remove_file(&path).unwrap();
    // Past the limit of what it counted so far, so that it wants to rotate, too.
    for act in 3..23 {
        audit.append(&record(act));
        assert!(!audit.failing, "{act}");
    }
    assert_eq!(acts(&path).last(), Some(&22));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_link_in_its_place_is_not_followed_and_is_got_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut audit = Audit::open_with(dir.path(), LIMIT).unwrap();
    audit.append(&record(1));
    let elsewhere = dir.path().join("elsewhere");
    std::fs::write(&elsewhere, "").unwrap();
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    audit.append(&record(2));
    assert!(audit.failing);
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"");
    std::fs::remove_file(&path).unwrap();
    audit.append(&record(3));
    assert!(!audit.failing);
    assert_eq!(acts(&path), [3]);
}

#[test]
fn a_full_disk_stops_nothing() {
    let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let log = Log { path: "/dev/full".into(), file, size: 0, torn: false, limit: LIMIT };
    let mut audit = Audit { sink: Sink::File(log), failing: false, _lock: None };
    audit.append(&record(1));
    assert!(audit.failing);
    audit.append(&record(2));
}

#[test]
fn what_cannot_be_opened_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = Audit::open(&file.join("state")).unwrap_err().to_string();
    assert!(below.contains("file/state") && below.contains("--state-dir"), "{below}");
    let made = dir.path().join("a/b");
    Audit::open(&made).unwrap();
    assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
    let target = dir.path().join("elsewhere");
    std::os::unix::fs::symlink(&target, dir.path().join("audit.jsonl")).unwrap();
    assert!(Audit::open(dir.path()).is_err());
    assert!(!target.exists());
}

#[test]
fn memory_is_bounded() {
    let mut audit = Audit::memory();
    for act in 0..1500 {
        audit.append(&record(act));
    }
    assert_eq!(audit.lines().count(), 1000);
    assert!(audit.lines().last().unwrap().contains("\"act\":1499"));
}
