//! The loop of `leakwatch record`: that of `watch` without acts and without HTTP.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use leakwatch_common::TASKS_PERIOD_MS;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use super::header::Header;
use super::session::Session;
use super::tell::Teller;
use super::write::{WriteError, Writer};
use crate::cleanup::Audit;
use crate::config::Config;
use crate::pipeline::turn::Turn;
use crate::pipeline::worker::{self, Looked, Worker, thread_time};
use crate::pipeline::{Error, SETTLE, STOP, flush, next_events, readable, reread, take};
use crate::source::model::Depth;
use crate::time::{Boottime, ClockPair};

/// What `leakwatch record` runs with.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Read again on SIGHUP.
    pub config_path: Option<PathBuf>,
    /// The config at start.
    pub config: Config,
    /// How long at most.
    pub duration: Option<Duration>,
    /// Bytes of the trace at most; the look that reaches them is still written.
    pub max_size: u64,
}

/// A recording that could not be begun, or that has ended too early. The trace
/// then holds what is whole.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The agent cannot start or go on.
    #[error(transparent)]
    Agent(#[from] Error),
    /// The trace cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

/// What has been recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Why it ended.
    pub why: String,
    /// Bytes of the trace.
    pub bytes: u64,
}

/// Records until SIGTERM or SIGINT, or a bound. `open` makes what the trace goes to,
/// once the source works.
///
/// # Errors
/// See [`RecordError`].
pub fn record<W: Write>(
    recording: Recording,
    open: impl FnOnce() -> io::Result<W>,
    teller: Teller<'_>,
) -> Result<Recorded, RecordError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Error::Io)?;
    let result = runtime.block_on(run(recording, open, teller));
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn run<W: Write>(
    recording: Recording,
    open: impl FnOnce() -> io::Result<W>,
    teller: Teller<'_>,
) -> Result<Recorded, RecordError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Io)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Io)?;
    let mut reload = signal(SignalKind::hangup()).map_err(Error::Io)?;
    let Recording { config_path, config, duration, max_size } = recording;
    let opening = worker::open(config.clone()).map_err(Error::Io)?;
    let none = |why: &str| Ok(Recorded { why: why.to_owned(), bytes: 0 });
    let mut source = tokio::select! {
        opened = opening => opened.map_err(|_| Error::Worker)?.map_err(Error::Source)?,
        _ = terminate.recv() => return none("SIGTERM before the first census"),
        _ = interrupt.recv() => return none("SIGINT before the first census"),
    };
    let boot = source.boot();
    let mut ring = source.task_ring().and_then(|r| readable(r, "task events"));
    let mut log = source.bpf_log().and_then(|l| readable(l, "the programs' log"));

    let started = Timestamp::now();
    let turn = Turn::new(config.clone(), Audit::memory(), started).map_err(Error::Glob)?;
    let to = open().map_err(WriteError::Io)?;
    let writer = Writer::new(to, &Header::new(boot, started))?;
    let mut session = Session::new(turn, &config, writer, teller)?;
    let (looked, mut observations) = mpsc::channel::<Looked>(1);
    let (glimpsed, mut glimpses) = mpsc::unbounded_channel();
    let worker = Worker::start(source, looked, glimpsed).map_err(Error::Io)?;
    tracing::info!("leakwatch records");

    worker.look(Depth::Whole, Vec::new());
    let mut busy = true;
    let mut pending = Vec::new();
    let begun = Instant::now();
    let end = duration.and_then(|duration| begun.checked_add(duration));
    let mut next_look = begun + session.turn.interval();
    let mut next_judgement: Option<Instant> = None;
    let mut glance = tokio::time::interval(Duration::from_millis(TASKS_PERIOD_MS));
    glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let why = loop {
        if let Some(why) = session.over(max_size) {
            break why;
        }
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            () = sleep_until(end.unwrap_or(begun)), if end.is_some() => {
                break "its time is over";
            }
            _ = reload.recv() => {
                if let Some(config) = reread(config_path.as_deref(), &mut session.turn) {
                    session.config(&config)?;
                    worker.reconfigure(config);
                    worker.demand(session.turn.demand());
                }
            }
            () = sleep_until(next_look), if !busy => {
                busy = worker.look(session.turn.depth(), std::mem::take(&mut pending));
                next_look = Instant::now() + session.turn.interval();
            }
            looked = observations.recv() => {
                let Some(looked) = looked else { return Err(Error::Worker.into()) };
                busy = false;
                let before = thread_time();
                // What happened before the census is told before it.
                let events = take(&mut ring, boot);
                session.tasks(&events)?;
                let newcomers = Turn::newcomers(&events);
                pending.extend(events);
                match looked {
                    Looked::Saw(seen, cpu) => {
                        let (depth, countable) = (seen.depth, seen.countable);
                        session.look(*seen, ClockPair::now())?;
                        worker.demand(session.turn.demand());
                        let own = thread_time().saturating_sub(before);
                        session.turn.spent(depth, countable, cpu + own);
                    }
                    Looked::Failed(e) => tracing::error!("the census failed: {e}"),
                }
                worker.glimpse(newcomers);
                next_look = Instant::now() + session.turn.interval();
            }
            events = next_events(&mut ring, &mut glance, boot) => {
                if session.tasks(&events)? && next_judgement.is_none() {
                    let settled = SETTLE.max(session.turn.cost() * 20);
                    next_judgement = Some(Instant::now() + settled);
                }
                worker.glimpse(Turn::newcomers(&events));
                pending.extend(events);
                // A census that takes long must not let this grow: what is
                // dropped, it sees for itself.
                pending.truncate(100_000);
            }
            Some(seen) = glimpses.recv() => {
                worker.place(session.glimpse(&seen, Boottime::now())?);
            }
            () = sleep_until(next_judgement.unwrap_or(begun)), if next_judgement.is_some() => {
                next_judgement = None;
                session.judge(ClockPair::now())?;
                worker.demand(session.turn.demand());
            }
            () = flush(&mut log) => {}
        }
    };
    let (bytes, deaf) = session.end(why)?;
    drop(worker);
    // The thread hangs up when it has detached the programs.
    let detached = async { while observations.recv().await.is_some() {} };
    let _ = tokio::time::timeout(STOP, detached).await;
    match deaf {
        Some(e) => Err(RecordError::Output(e)),
        None => Ok(Recorded { why: why.to_owned(), bytes }),
    }
}
