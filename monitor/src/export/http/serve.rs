//! Accepting connections and letting go of them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::patient::{Limits, Patient};
use super::view::View;
use super::{reply, route};

/// Connections at a time. For one more, the oldest that has not asked anything
/// yet has to go, so that silent clients keep nobody out; where all have asked,
/// the new one is closed at once.
const MAX_CONNECTIONS: usize = 256;
/// Bytes of request line and headers; hyper allows no less than 8192.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 100;
const LIMITS: Limits = Limits { idle: Duration::from_secs(30), write: Duration::from_secs(20) };
/// For a whole head; also the time a kept connection may wait for its next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For answers under way when the agent stops.
const FAREWELL: Duration = Duration::from_millis(700);

/// What all connections share.
struct Shared {
    view: Arc<View>,
    telemetry_path: String,
    places: Arc<Semaphore>,
    limits: Limits,
}

/// A connection as the accepting loop remembers it.
struct Guest {
    asked: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Serves until `shutdown` turns true (or its sender is gone), then ends within
/// a second: answers under way are finished if they can be, all else is cut.
pub async fn serve(
    listeners: Vec<TcpListener>,
    view: Arc<View>,
    telemetry_path: String,
    shutdown: watch::Receiver<bool>,
) {
    serve_within(listeners, view, telemetry_path, shutdown, LIMITS).await;
}

/// [`serve`], with limits that a test can wait for.
pub(super) async fn serve_within(
    listeners: Vec<TcpListener>,
    view: Arc<View>,
    telemetry_path: String,
    shutdown: watch::Receiver<bool>,
    limits: Limits,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let shared = Arc::new(Shared { view, telemetry_path, places, limits });
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(accept(listener, Arc::clone(&shared), shutdown.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut shutdown: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut guests = VecDeque::new();
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut shutdown) => break,
        };
        while connections.try_join_next().is_some() {}
        guests.retain(|guest: &Guest| !guest.task.is_finished());
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // ECONNABORTED is the peer's affair; EMFILE and ENFILE pass, but
                // not sooner for being asked about all the time.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = place(&shared.places, &mut guests).await else {
            if !full {
                tracing::warn!(limit = MAX_CONNECTIONS, "too many connections: closing new ones");
            }
            full = true;
            continue;
        };
        full = false;
        let asked = Arc::new(AtomicBool::new(false));
        let (shared, shutdown, tell) = (Arc::clone(&shared), shutdown.clone(), Arc::clone(&asked));
        let task = connections.spawn(async move {
            converse(stream, &shared, &tell, shutdown).await;
            drop(place);
        });
        guests.push_back(Guest { asked, task });
    }
    drop(listener);
    let farewell = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(FAREWELL, farewell).await;
    connections.shutdown().await;
}

/// A place for one more, where there is one or one can be made.
async fn place(
    places: &Arc<Semaphore>,
    guests: &mut VecDeque<Guest>,
) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    let silent = guests.iter().position(|guest| !guest.asked.load(Ordering::Relaxed))?;
    guests.remove(silent)?.task.abort();
    // It gives its place back as soon as the runtime drops it.
    let freed = Arc::clone(places).acquire_owned();
    timeout(Duration::from_millis(100), freed).await.ok()?.ok()
}

async fn converse(
    stream: TcpStream,
    shared: &Shared,
    asked: &AtomicBool,
    mut shutdown: watch::Receiver<bool>,
) {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let answer =
            route::route(request.method(), request.uri(), &shared.view, &shared.telemetry_path);
        let answer = reply::encode(request.headers(), answer);
        async { Ok::<_, Infallible>(answer) }
    });
    let io = Patient::new(TokioIo::new(stream), shared.limits);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // What a client does wrong is its own affair, and it has been told.
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: nobody could stop us any more.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
