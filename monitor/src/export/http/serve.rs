//! Accepting connections and letting go of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::patient::{Limits, Patient};
use super::view::View;
use super::{reply, route};

/// Connections at a time; one more is closed at once.
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
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut shutdown) => break,
        };
        while connections.try_join_next().is_some() {}
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
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
            if !full {
                tracing::warn!(
                    limit = MAX_CONNECTIONS,
                    "too many connections: new ones are closed"
                );
            }
            full = true;
            continue;
        };
        full = false;
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        connections.spawn(async move {
            converse(stream, &shared, shutdown).await;
            drop(place);
        });
    }
    drop(listener);
    let farewell = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(FAREWELL, farewell).await;
    connections.shutdown().await;
}

async fn converse(stream: TcpStream, shared: &Shared, mut shutdown: watch::Receiver<bool>) {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
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
