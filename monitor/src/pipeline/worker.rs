//! The census thread: owns the source, looks when asked.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::memory::Trimmer;
use super::priority;
use crate::attribution::hierarchy;
use crate::config::Config;
use crate::source::model::{Demand, Depth, Observation, ProcessId, ProcessSample, TaskEvent};
use crate::source::{Source, SourceError};
use crate::time::Boottime;

/// Opens the source on a thread of its own.
///
/// The verifier gives up with EAGAIN when a signal is pending for the thread
/// that loads (`kernel/bpf/verifier.c: do_check`), and each retry starts over:
/// so this thread takes no signals, and the loop stays free to act on them.
pub(super) fn open(config: Config) -> io::Result<oneshot::Receiver<Result<Source, SourceError>>> {
    let (opened, opening) = oneshot::channel();
    thread::Builder::new().name("opening".into()).spawn(move || {
        block_signals();
        let _ = opened.send(Source::open(&config, hierarchy::choose));
    })?;
    Ok(opening)
}

fn block_signals() {
    // SAFETY: a signal set is plain data that sigfillset initialises; the mask
    // is that of this thread alone.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}

/// What the thread sends back.
pub(super) enum Looked {
    /// A look, and the processor time that it and the last demand took.
    Saw(Box<Observation>, Duration),
    /// `/proc` could not be read this time.
    Failed(SourceError),
}

enum Order {
    Look(Depth, Vec<TaskEvent>),
    Glimpse(Vec<ProcessId>),
    Place(Vec<(ProcessId, Arc<str>)>),
    Demand(Demand),
    Reconfigure(Box<Config>),
}

/// A handle on the thread. Dropping it ends the thread, which drops the
/// source, which detaches every program.
pub(super) struct Worker {
    orders: Sender<Order>,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(
        source: Source,
        looked: mpsc::Sender<Looked>,
        glimpsed: mpsc::UnboundedSender<Vec<ProcessSample>>,
    ) -> io::Result<Self> {
        let (orders, inbox) = channel();
        thread::Builder::new().name("census".into()).spawn(move || {
            priority::come_first();
            serve(source, &inbox, &looked, &glimpsed);
        })?;
        Ok(Self { orders })
    }

    /// Asks for a look; false if the thread is gone.
    pub(super) fn look(&self, depth: Depth, events: Vec<TaskEvent>) -> bool {
        self.orders.send(Order::Look(depth, events)).is_ok()
    }

    /// Says what deserves probes, and whose each process is, so that the programs
    /// count for the right unit from now on.
    pub(super) fn demand(&self, demand: Demand) {
        let _ = self.orders.send(Order::Demand(demand));
    }

    /// Asks what has become of processes that run another program now.
    pub(super) fn glimpse(&self, ids: Vec<ProcessId>) {
        if !ids.is_empty() {
            let _ = self.orders.send(Order::Glimpse(ids));
        }
    }

    /// Says whose these are.
    pub(super) fn place(&self, units: Vec<(ProcessId, Arc<str>)>) {
        let _ = self.orders.send(Order::Place(units));
    }

    /// Passes a new config on.
    pub(super) fn reconfigure(&self, config: Config) {
        let _ = self.orders.send(Order::Reconfigure(Box::new(config)));
    }
}

fn serve(
    mut source: Source,
    inbox: &Receiver<Order>,
    looked: &mpsc::Sender<Looked>,
    glimpsed: &mpsc::UnboundedSender<Vec<ProcessSample>>,
) {
    let mut demanded = Duration::ZERO;
    let mut trimmer = Trimmer::new();
    for order in inbox {
        let heard = match order {
            Order::Look(depth, events) => {
                let since = thread_time().saturating_sub(std::mem::take(&mut demanded));
                if depth == Depth::Whole {
                    // Between two censuses least is allocated, and its budget pays for this, too.
                    trimmer.when_due();
                }
                looked.blocking_send(look(&mut source, depth, &events, since)).is_ok()
            }
            Order::Glimpse(ids) => glimpsed.send(source.glimpse(&ids)).is_ok(),
            Order::Place(units) => {
                source.place(&units);
                true
            }
            Order::Demand(demand) => {
                let before = thread_time();
                source.demand(&demand, Boottime::now());
                demanded += thread_time().saturating_sub(before);
                true
            }
            Order::Reconfigure(config) => {
                source.reconfigure(&config);
                true
            }
        };
        if !heard {
            return;
        }
    }
}

/// Processor time counts from `since` on.
fn look(source: &mut Source, depth: Depth, events: &[TaskEvent], since: Duration) -> Looked {
    source.note(events);
    match source.look(depth) {
        Ok(seen) => Looked::Saw(Box::new(seen), thread_time().saturating_sub(since)),
        Err(e) => Looked::Failed(e),
    }
}

/// Processor time of this thread.
pub(super) fn thread_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap_or(0))
}
