//! The audit log: whatever stands in the file already, and whatever a record
//! tells, a line more is a line more.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use crate::cleanup::audit::Audit;
use crate::cleanup::record::{ActionRecord, Outcome};
use crate::config::model::{ActionKind, Mode};

/// Bytes at which the file under test is rotated.
const LIMIT: u64 = 1024;

/// `data` as a line, and as the file that an earlier run has left.
pub fn audit(data: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<ActionRecord>(data) {
        assert_eq!(read(&written(&record)).as_ref(), Some(&record), "written again");
    }
    let Ok(dir) = Scratch::new() else { return };
    let file = dir.0.join("audit.jsonl");
    if fs::write(&file, data).is_err() {
        return;
    }
    let told = String::from_utf8_lossy(data).into_owned();
    let Ok(mut audit) = Audit::open_with(&dir.0, LIMIT) else {
        panic!("a file that was there keeps the agent from starting")
    };
    let records = [record(1, &told), record(2, "short")];
    for record in &records {
        audit.append(record);
    }
    let old = fs::read(dir.0.join("audit.jsonl.1")).unwrap_or_default();
    let all = [old, fs::read(&file).unwrap_or_default()].concat();
    // With two rotations the file of before is gone, as it is meant to be; there is
    // one at most where both records fit one file. Escapes make them far longer
    // than what they tell.
    let ours: usize = records.iter().map(|record| written(record).len() + 2).sum();
    let crowded = ours as u64 + 2 > LIMIT;
    assert!(crowded || all.starts_with(data), "what an earlier run wrote is not what it was");
    let lines: Vec<&[u8]> = all.split(|b| *b == b'\n').collect();
    assert_eq!(lines.last(), Some(&&b""[..]), "the last line has no end");
    let last = lines.len().checked_sub(2).and_then(|at| read(lines[at]));
    assert_eq!(last.as_ref(), Some(&records[1]), "the last record");
    let long = lines.iter().filter_map(|line| read(line)).any(|r| r == records[0]);
    assert!(crowded || long, "the record before");
}

fn record(act: u64, told: &str) -> ActionRecord {
    ActionRecord {
        at: Timestamp::UNIX_EPOCH,
        act,
        leak: "0123456789ab".to_owned(),
        unit: told.to_owned(),
        rule: "orphan".to_owned(),
        action: ActionKind::KillOrphans,
        mode: Mode::Enforce,
        outcome: Outcome::Pending,
        pids: vec![42],
        detail: told.to_owned(),
    }
}

fn written(record: &ActionRecord) -> Vec<u8> {
    serde_json::to_vec(record).unwrap_or_default()
}

fn read(line: &[u8]) -> Option<ActionRecord> {
    serde_json::from_slice(line).ok()
}

/// A directory of this one call.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let name = format!("leakwatch-fuzz-{}-{call}", std::process::id());
        // In memory where there is such a place: this is called thousands of times.
        let base = PathBuf::from("/dev/shm");
        let base = if base.is_dir() { base } else { std::env::temp_dir() };
        let dir = base.join(name);
        fs::create_dir(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
