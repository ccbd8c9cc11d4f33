//! The census thread: owns the source, looks when asked.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::attribution::hierarchy;
use crate::config::Config;
use crate::source::model::{Demand, Observation, TaskEvent};
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
    /// A look, and the processor time it took.
    Saw(Box<Observation>, Duration),
    /// `/proc` could not be read this time.
    Failed(SourceError),
}

enum Order {
    Look(Vec<TaskEvent>),
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
    pub(super) fn start(source: Source, looked: mpsc::Sender<Looked>) -> io::Result<Self> {
        let (orders, inbox) = channel();
        thread::Builder::new()
            .name("census".into())
            .spawn(move || serve(source, &inbox, &looked))?;
        Ok(Self { orders })
    }

    /// Asks for a look; false if the thread is gone.
    pub(super) fn look(&self, events: Vec<TaskEvent>) -> bool {
        self.orders.send(Order::Look(events)).is_ok()
    }

    /// Says what deserves probes, and whose each process is, so that the programs
    /// count for the right unit from now on.
    pub(super) fn demand(&self, demand: Demand) {
        let _ = self.orders.send(Order::Demand(demand));
    }

    /// Passes a new config on.
    pub(super) fn reconfigure(&self, config: Config) {
        let _ = self.orders.send(Order::Reconfigure(Box::new(config)));
    }
}

fn serve(mut source: Source, inbox: &Receiver<Order>, looked: &mpsc::Sender<Looked>) {
    for order in inbox {
        let events = match order {
            Order::Look(events) => events,
            Order::Demand(demand) => {
                source.demand(&demand, Boottime::now());
                continue;
            }
            Order::Reconfigure(config) => {
                source.reconfigure(&config);
                continue;
            }
        };
        let before = thread_time();
        source.note(&events);
        let result = match source.look() {
            Ok(seen) => Looked::Saw(Box::new(seen), thread_time().saturating_sub(before)),
            Err(e) => Looked::Failed(e),
        };
        if looked.blocking_send(result).is_err() {
            return;
        }
    }
}

/// Processor time of this thread.
pub(super) fn thread_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap_or(0))
}
