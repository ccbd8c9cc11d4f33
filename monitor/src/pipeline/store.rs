//! Keeps what was learned over a restart of the agent: `STATE_DIR/baselines.redb`.
//!
//! A database that survives a crash at any moment (redb: copy-on-write trees, each
//! transaction synced). One thread writes it, so that the loop never waits for a disk. One
//! that is damaged is set aside, and what was learned is learned anew: nothing that is
//! judged now depends on it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use tokio::sync::oneshot;

use crate::ledger::baseline::{Baseline, CohortKey, Learned};
use crate::text;

/// Unit, kind, cohort; then the baseline as JSON, to which fields can be added.
const BASELINES: TableDefinition<'static, (&str, &str, &str), &[u8]> =
    TableDefinition::new("baselines");
/// One row: [`FORMAT`].
const FORMATS: TableDefinition<'static, &str, u64> = TableDefinition::new("formats");
/// Of the table above. A later one is left alone: an older agent has no business there.
const FORMAT: u64 = 1;
/// So many starts that ended while they opened the store are no accident.
const ENDED: u64 = 2;
const NAME: &str = "baselines.redb";

/// What the loop hands learned baselines to.
pub(super) struct Store {
    learned: Option<Sender<Vec<Learned>>>,
    done: oneshot::Receiver<()>,
}

impl Store {
    /// Opens the store, or makes it; gives what is in it. Where that cannot be, the log
    /// says why and nothing is kept.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn open(state_dir: &Path) -> io::Result<(Self, Vec<(CohortKey, Baseline)>)> {
        let path = state_dir.join(NAME);
        let (learned, inbox) = channel();
        let (finished, done) = oneshot::channel();
        let (database, kept) = load(&path);
        let learned = match database {
            Some(database) => {
                thread::Builder::new().name("store".into()).spawn(move || {
                    // It closes it, which gives its lock back, before anybody goes on.
                    write(&path, database, &inbox);
                    let _ = finished.send(());
                })?;
                Some(learned)
            }
            None => None,
        };
        Ok((Self { learned, done }, kept))
    }

    /// Keeps these from now on.
    pub(super) fn keep(&self, learned: Vec<Learned>) {
        if let Some(sender) = self.learned.as_ref().filter(|_| !learned.is_empty()) {
            let _ = sender.send(learned);
        }
    }

    /// Waits until all is written.
    pub(super) async fn close(self) {
        drop(self.learned);
        let _ = self.done.await;
    }
}

/// Why a store is not used as it is.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// Its bytes make no sense: it is set aside.
    #[error("{0}")]
    Damaged(String),
    /// Something else, which may pass: it stays where it is.
    #[error("{0}")]
    Other(String),
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(e: E) -> Self {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        match e.into() {
            e @ (redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_)) => {
                Self::Damaged(e.to_string())
            }
            redb::Error::Io(e) if matches!(e.kind(), InvalidData | UnexpectedEof) => {
                Self::Damaged(e.to_string())
            }
            e => Self::Other(e.to_string()),
        }
    }
}

fn load(path: &Path) -> (Option<Database>, Vec<(CohortKey, Baseline)>) {
    let shown = text::printable(path.as_os_str().as_encoded_bytes());
    let opened = attempt(path);
    let first = match opened {
        Ok((database, kept)) => return (Some(database), kept),
        Err(trouble) => trouble,
    };
    let Trouble::Damaged(why) = first else {
        tracing::warn!(
            path = %shown,
            "what is learned of the units will not be kept over a restart: {first}; \
             see to the file, or name another --state-dir, and start leakwatch again"
        );
        return (None, Vec::new());
    };
    let aside = aside(path);
    match std::fs::rename(path, &aside) {
        Ok(()) => tracing::warn!(
            path = %shown,
            aside = %text::printable(aside.as_os_str().as_encoded_bytes()),
            "the store is damaged ({why}); it was set aside, and what is usual for the units is learned anew"
        ),
        Err(e) => {
            tracing::warn!(
                path = %shown,
                "the store is damaged ({why}) and cannot be set aside: {e}; remove it, and start leakwatch again"
            );
            return (None, Vec::new());
        }
    }
    match attempt(path) {
        Ok((database, kept)) => (Some(database), kept),
        Err(e) => {
            tracing::warn!(path = %shown, "no store can be made: {e}");
            (None, Vec::new())
        }
    }
}

/// Where a damaged store goes; the one that was there before is given up.
fn aside(path: &Path) -> PathBuf {
    path.with_extension("redb.damaged")
}

/// It is there while the store is opened, with a byte for each start that has not come to
/// the end of that.
fn opening(path: &Path) -> PathBuf {
    path.with_extension("redb.opening")
}

/// Reads it, unless that has ended the process before: what is damaged may ask for more
/// memory than there is, which nothing can catch. A process that was killed meanwhile looks
/// the same, so it takes [`ENDED`] of them.
fn attempt(path: &Path) -> Result<(Database, Vec<(CohortKey, Baseline)>), Trouble> {
    let opening = opening(path);
    let ended = std::fs::metadata(&opening).map_or(0, |m| m.len());
    let done = if ended >= ENDED && path.exists() {
        let why = format!("the last {ended} starts of leakwatch ended while they opened it");
        Err(Trouble::Damaged(why))
    } else {
        // Without it, less is known if it comes to the worst.
        let mark = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&opening);
        let _ = mark.and_then(|mut mark| mark.write_all(b"."));
        careful(|| read(path))
    };
    let _ = std::fs::remove_file(opening);
    done
}

/// The library asserts what it reads: a damaged file may end in a panic.
fn careful<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Trouble::Damaged("it contradicts itself".to_owned())))
}

fn read(path: &Path) -> Result<(Database, Vec<(CohortKey, Baseline)>), Trouble> {
    let mut database = Database::builder().create_file(open(path).map_err(redb::Error::from)?)?;
    // Lengths that are read before they are checked could ask for more memory than there
    // is. What cannot be repaired is an error.
    database.check_integrity()?;
    let tables: Vec<String> = {
        let begun = database.begin_read()?;
        begun.list_tables()?.map(|table| table.name().to_owned()).collect()
    };
    if !tables.is_empty() && !tables.iter().any(|name| name == FORMATS.name()) {
        return Err(Trouble::Other("it is the database of another program".to_owned()));
    }
    let begin = database.begin_write()?;
    {
        let mut formats = begin.open_table(FORMATS)?;
        let known = formats.get("baselines")?.map(|format| format.value());
        match known {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(Trouble::Other(format!(
                    "it is of format {other}, this leakwatch knows {FORMAT}; remove the file to begin anew"
                )));
            }
            None => _ = formats.insert("baselines", FORMAT)?,
        }
        begin.open_table(BASELINES)?;
    }
    begin.commit()?;
    let mut kept = Vec::new();
    for row in database.begin_read()?.open_table(BASELINES)?.iter()? {
        let (key, value) = row?;
        let (unit, kind, cohort) = key.value();
        let key = CohortKey { unit: unit.into(), kind: kind.into(), cohort: cohort.into() };
        let baseline = serde_json::from_slice(value.value())
            .map_err(|e| Trouble::Damaged(format!("a baseline makes no sense: {e}")))?;
        kept.push((key, baseline));
    }
    Ok((database, kept))
}

/// For its owner only; what lies there under the name is no link, device or pipe.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// Writes until the loop hangs up. What could not be written waits, and is tried again with
/// what comes next: a disk that was full has room again some day.
fn write(path: &Path, database: Database, inbox: &Receiver<Vec<Learned>>) {
    let mut database = Some(database);
    let mut waits: BTreeMap<CohortKey, Option<Arc<Baseline>>> = BTreeMap::new();
    let mut failing = false;
    let shown = text::printable(path.as_os_str().as_encoded_bytes());
    for learned in inbox {
        // What has piled up goes into one transaction.
        waits.extend(learned.into_iter().chain(inbox.try_iter().flatten()));
        match careful(|| keep(path, &mut database, &waits)) {
            Ok(()) => {
                waits.clear();
                if std::mem::take(&mut failing) {
                    tracing::info!(path = %shown, "what was learned is kept again");
                }
            }
            Err(e) => {
                // One that has failed stays so until it is opened again.
                database = None;
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        path = %shown,
                        "what was learned cannot be kept: {e}; it is tried again with all that comes"
                    );
                }
            }
        }
    }
}

fn keep(
    path: &Path,
    database: &mut Option<Database>,
    waits: &BTreeMap<CohortKey, Option<Arc<Baseline>>>,
) -> Result<(), Trouble> {
    let database = match database {
        Some(database) => database,
        None => database.insert(attempt(path)?.0),
    };
    commit(database, waits)
}

fn commit(
    database: &Database,
    batch: &BTreeMap<CohortKey, Option<Arc<Baseline>>>,
) -> Result<(), Trouble> {
    let begin = database.begin_write()?;
    {
        let mut table = begin.open_table(BASELINES)?;
        for (key, baseline) in batch {
            let key = (&*key.unit, &*key.kind, &*key.cohort);
            match baseline {
                Some(baseline) => {
                    let value = serde_json::to_vec(&**baseline)
                        .map_err(|e| Trouble::Other(e.to_string()))?;
                    table.insert(key, value.as_slice())?;
                }
                None => _ = table.remove(key)?,
            }
        }
    }
    begin.commit()?;
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
