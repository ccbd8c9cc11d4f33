//! Feeds the stages from a trace.

use std::collections::BTreeMap;
use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::header::Header;
use super::read::{ReadError, Reader};
use super::tell::Teller;
use crate::cleanup::Audit;
use crate::config::Config;
use crate::pipeline::turn::Turn;
use crate::time::Boottime;

/// A trace that is not replayed, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// The config is none for the stages.
    #[error("the config has a malformed glob: {0}")]
    Config(String),
}

/// What has been replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Censuses.
    pub looks: u64,
    /// From the first to the last of them.
    pub span: Duration,
    /// How long that took.
    pub took: Duration,
    /// Why the recording ended; `None` where the trace does not say.
    pub ended: Option<String>,
}

/// Judges a trace; with another config than its own where one is given. What is
/// whole of it is judged even where it ends in an error.
///
/// # Errors
/// See [`ReplayError`].
pub fn replay(
    mut reader: Reader<'_>,
    config: Option<&Config>,
    teller: &mut Teller<'_>,
) -> (Replayed, Result<(), ReplayError>) {
    let begun = Instant::now();
    if config.is_some() {
        reader = reader.without_configs();
    }
    let mut replayed = Replayed::default();
    let header = reader.header().clone();
    // Reading takes nearly as long as judging: a thread for each. The queue is short,
    // for an entry may be large.
    let (read, entries) = sync_channel(1);
    let (ended, result) = thread::scope(|scope| {
        let ahead = thread::Builder::new().spawn_scoped(scope, move || {
            while let Some(entry) = reader.next_entry().transpose() {
                let over = entry.is_err();
                if read.send(entry).is_err() || over {
                    break;
                }
            }
            reader.ended().map(str::to_owned)
        });
        match ahead {
            Ok(ahead) => {
                let result = feed(&header, entries, config, teller, &mut replayed);
                (ahead.join().unwrap_or_else(|panic| resume_unwind(panic)), result)
            }
            Err(e) => (None, Err(ReadError::Io(e).into())),
        }
    });
    (replayed.took, replayed.ended) = (begun.elapsed(), ended);
    (replayed, result)
}

fn feed(
    header: &Header,
    entries: Receiver<Result<Entry, ReadError>>,
    config: Option<&Config>,
    teller: &mut Teller<'_>,
    replayed: &mut Replayed,
) -> Result<(), ReplayError> {
    let malformed = |e: globset::Error| ReplayError::Config(e.to_string());
    let config = config.cloned().unwrap_or_default();
    let mut turn = Turn::new(config, Audit::memory(), header.started).map_err(malformed)?;
    // Nothing is asked of the machine that replays.
    turn.tell_users(BTreeMap::new());
    let mut first: Option<Boottime> = None;
    let mut result = Ok(());
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                result = Err(e.into());
                break;
            }
        };
        let (at, changes) = match entry {
            Entry::Config(config) => {
                turn.reconfigure(*config).map_err(ReplayError::Config)?;
                continue;
            }
            Entry::Users(names) => {
                turn.tell_users(names);
                continue;
            }
            Entry::Tasks(events) => {
                turn.tasks(&events);
                continue;
            }
            Entry::Glimpse(seen, at) => {
                turn.glimpsed(&seen, at);
                continue;
            }
            Entry::Look(seen, judged) => {
                replayed.looks += 1;
                replayed.span = seen.at.boot.since(*first.get_or_insert(seen.at.boot));
                (judged, turn.observed(*seen, judged))
            }
            Entry::Judge(at) => (at, turn.judge(at)),
        };
        teller.changes(at.wall, &changes).map_err(ReplayError::Output)?;
    }
    teller.end(turn.leaks()).map_err(ReplayError::Output)?;
    result
}
