//! The one loop: moves data from stage to stage.
//!
//! ```text
//! worker thread            the loop                          blocking pool
//! ─────────────            ────────                          ─────────────
//!   Source ── Observation ─► attribution ► ledger ► docket ─► Act ─┐
//!      ▲                        ▲                     │            │
//!      └────── Demand ──────────┼─────────────────────┘◄─ Report ──┘
//!                          task events            Snapshot ─► export
//! ```
//!
//! The census blocks, so it has a thread; acts block, so they run in the pool;
//! everything between is done by [`turn::Turn`], in one place and in order.

mod memory;
mod pace;
mod priority;
mod store;
pub mod trace;
mod turn;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use jiff::Timestamp;
use leakwatch_common::TASKS_PERIOD_MS;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until};

use self::store::Store;
use self::turn::{Turn, announce};
use self::worker::{Looked, Worker, thread_time};
use crate::attribution::hierarchy;
use crate::cleanup::{Audit, AuditError, Report};
use crate::config::{Config, DEFAULT_PATH, load};
use crate::export::http::{self, BindError, Site, View};
use crate::export::snapshot::Snapshot;
use crate::source::events;
use crate::source::model::{BootId, Depth, TaskEvent};
use crate::source::{Source, SourceError};
use crate::text;
use crate::time::{Boottime, ClockPair};

/// What `leakwatch watch` runs with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Read again on SIGHUP.
    pub config_path: Option<PathBuf>,
    /// The config at start.
    pub config: Config,
    /// Audit log.
    pub state_dir: PathBuf,
    /// Addresses to serve.
    pub listen: Vec<SocketAddr>,
    /// What is served there.
    pub site: Site,
}

/// The agent cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The state directory cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// There is no usable `/proc`.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A glob that the config's check let pass.
    #[error("the config has a malformed glob: {0}")]
    Glob(#[from] globset::Error),
    /// The runtime cannot be had.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
    /// The census thread died.
    #[error("the census thread ended unexpectedly; the log says why")]
    Worker,
}

/// The agent is stopped within 2 s; what still runs then is abandoned.
const STOP: Duration = Duration::from_millis(1500);
/// After a process has ended: wait for its siblings, then judge.
const SETTLE: Duration = Duration::from_millis(50);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// See [`Error`].
pub fn run(options: Options) -> Result<(), Error> {
    // Whoever is served or acted on waits like everybody; the loop does not, so it has a
    // thread of its own: this one's priority is what the agent was given.
    let usual = priority::own();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || priority::set(usual))
        .enable_all()
        .build()?;
    let result = thread::scope(|scope| {
        let watching = || runtime.block_on(watch(options));
        let thread = thread::Builder::new().name("loop".into()).spawn_scoped(scope, watching)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// One census of its own, for `status` without an agent. It sees no growth.
///
/// # Errors
/// There is no usable `/proc`.
pub fn once(config: &Config) -> Result<Snapshot, Error> {
    let mut source = Source::open(config, hierarchy::choose)?;
    let now = ClockPair::now();
    let mut turn = Turn::new(config.clone(), Audit::memory(), now.wall)?;
    turn.observed(source.look(Depth::Whole)?, ClockPair::now());
    Ok(turn.snapshot())
}

async fn watch(options: Options) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reload = signal(SignalKind::hangup())?;
    let listeners = http::bind(&options.listen)?;
    let addresses: Vec<String> = listeners
        .iter()
        .filter_map(|l| l.local_addr().ok())
        .map(|a| format!("http://{a}/"))
        .collect();
    let audit = Audit::open(&options.state_dir)?;
    let (store, kept) = Store::open(&options.state_dir)?;
    let opening = worker::open(options.config.clone())?;
    let mut source = tokio::select! {
        opened = opening => opened.map_err(|_| Error::Worker)??,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let boot = source.boot();
    let mut ring = source.task_ring().and_then(|r| readable(r, "task events"));
    let mut log = source.bpf_log().and_then(|l| readable(l, "the programs' log"));
    let mut turn = Turn::new(options.config, audit, Timestamp::now())?;
    turn.remember(kept);

    let view = Arc::new(View::new());
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(http::serve(listeners, view.clone(), options.site, stopped));
    let (looked, mut observations) = mpsc::channel::<Looked>(1);
    let (glimpsed, mut glimpses) = mpsc::unbounded_channel();
    let worker = Worker::start(source, looked, glimpsed)?;
    priority::come_first();
    let (reported, mut reports) = mpsc::unbounded_channel::<Report>();
    let mut acts = JoinSet::new();
    tracing::info!(addresses = %addresses.join(" "), "leakwatch watches");

    worker.look(Depth::Whole, Vec::new());
    let mut busy = true;
    let mut pending = Vec::new();
    let mut next_look = Instant::now() + turn.interval();
    let mut next_judgement: Option<Instant> = None;
    let mut heart = tokio::time::interval(Duration::from_secs(1));
    let mut glance = tokio::time::interval(Duration::from_millis(TASKS_PERIOD_MS));
    glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = heart.tick() => {}
            _ = reload.recv() => {
                if let Some(config) = reread(options.config_path.as_deref(), &mut turn) {
                    worker.reconfigure(config);
                    worker.demand(turn.demand());
                }
                view.publish(Arc::new(turn.snapshot()));
            }
            () = sleep_until(next_look), if !busy => {
                busy = worker.look(turn.depth(), std::mem::take(&mut pending));
                next_look = Instant::now() + turn.interval();
            }
            looked = observations.recv() => {
                let Some(looked) = looked else { break Err(Error::Worker) };
                busy = false;
                let before = thread_time();
                let mut looked_at = None;
                // What happened before the census is told before it.
                let events = take(&mut ring, boot);
                turn.tasks(&events);
                let newcomers = Turn::newcomers(&events);
                pending.extend(events);
                match looked {
                    Looked::Saw(seen, cpu) => {
                        looked_at = Some((seen.depth, seen.countable, cpu));
                        announce(&turn.observed(*seen, ClockPair::now()));
                        store.keep(turn.take_learned());
                        worker.demand(turn.demand());
                    }
                    Looked::Failed(e) => tracing::error!("the census failed: {e}"),
                }
                worker.glimpse(newcomers);
                perform(&mut turn, &mut acts, &reported);
                view.publish(Arc::new(turn.snapshot()));
                if let Some((depth, countable, cpu)) = looked_at {
                    turn.spent(depth, countable, cpu + thread_time().saturating_sub(before));
                }
                next_look = Instant::now() + turn.interval();
            }
            events = next_events(&mut ring, &mut glance, boot) => {
                if turn.tasks(&events) && next_judgement.is_none() {
                    next_judgement = Some(Instant::now() + SETTLE.max(turn.cost() * 20));
                }
                worker.glimpse(Turn::newcomers(&events));
                pending.extend(events);
                // A census that takes long must not let this grow: what is
                // dropped, it sees for itself.
                pending.truncate(100_000);
            }
            Some(seen) = glimpses.recv() => worker.place(turn.glimpsed(&seen, Boottime::now())),
            () = sleep_until(next_judgement.unwrap_or_else(Instant::now)), if next_judgement.is_some() => {
                next_judgement = None;
                announce(&turn.judge(ClockPair::now()));
                worker.demand(turn.demand());
                perform(&mut turn, &mut acts, &reported);
                view.publish(Arc::new(turn.snapshot()));
            }
            Some(report) = reports.recv() => {
                turn.reported(report, ClockPair::now());
                // Whether it worked is the census's to say, and soon.
                next_look = Instant::now();
                view.publish(Arc::new(turn.snapshot()));
            }
            () = flush(&mut log) => {}
            Some(_) = acts.join_next() => {}
        }
        view.beat();
    };
    tracing::info!("stopping");
    let _ = stop.send(true);
    drop(worker);
    let end = async {
        store.close().await;
        let _ = server.await;
        // The thread hangs up when it has detached the programs.
        while observations.recv().await.is_some() {}
    };
    if tokio::time::timeout(STOP, end).await.is_err() {
        tracing::warn!("stopped without waiting for all of it");
    }
    result
}

/// Runs what the docket's verdicts call for, off the loop.
fn perform(turn: &mut Turn, acts: &mut JoinSet<()>, reported: &mpsc::UnboundedSender<Report>) {
    for act in turn.acts(ClockPair::now()) {
        let reported = reported.clone();
        acts.spawn_blocking(move || {
            let _ = reported.send(act.perform());
        });
    }
}

/// Reads the config again; `None` keeps the old one.
fn reread(path: Option<&std::path::Path>, turn: &mut Turn) -> Option<Config> {
    // Started without a file, it may have been written since.
    let default = std::path::Path::new(DEFAULT_PATH);
    let Some(path) = path.or_else(|| default.exists().then_some(default)) else {
        tracing::warn!("SIGHUP: there is no {DEFAULT_PATH} to read");
        return None;
    };
    match load(path).map_err(|e| e.to_string()).and_then(|c| turn.reconfigure(c)) {
        Ok(config) => {
            tracing::info!(path = %text::printable(path.to_string_lossy().as_bytes()), "config reloaded");
            Some(config)
        }
        Err(problem) => {
            turn.reload_failed();
            tracing::error!("the old config stays, for the new one is wrong: {problem}");
            None
        }
    }
}

fn readable<T: std::os::fd::AsFd + std::os::fd::AsRawFd>(
    inner: T,
    what: &str,
) -> Option<AsyncFd<T>> {
    // SAFETY: both kinds of `T` here, a ring buffer and the log's, own their
    // descriptor and keep the same one until they are dropped.
    unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }
        .inspect_err(|e| tracing::warn!("cannot wait for {what}: {e}"))
        .ok()
}

/// The next task events, a period after the last ones or when there are many;
/// never, where there are none to be had.
async fn next_events(
    ring: &mut Option<AsyncFd<RingBuf<MapData>>>,
    glance: &mut Interval,
    boot: BootId,
) -> Vec<TaskEvent> {
    loop {
        let Some(fd) = ring else { return std::future::pending().await };
        tokio::select! {
            _ = glance.tick() => {}
            guard = fd.readable_mut() => match guard {
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return std::future::pending().await,
            },
        }
        let events = take(ring, boot);
        if !events.is_empty() {
            return events;
        }
    }
}

/// The task events that have come meanwhile.
fn take(ring: &mut Option<AsyncFd<RingBuf<MapData>>>, boot: BootId) -> Vec<TaskEvent> {
    ring.as_mut().map_or_else(Vec::new, |fd| events::drain(fd.get_mut(), boot))
}

/// Passes on what the programs log; never returns where they cannot.
async fn flush(log: &mut Option<AsyncFd<aya_log::EbpfLogger<&'static dyn log::Log>>>) {
    let Some(fd) = log else { return std::future::pending().await };
    if let Ok(mut guard) = fd.readable_mut().await {
        guard.get_inner_mut().flush();
        guard.clear_ready();
    }
}
