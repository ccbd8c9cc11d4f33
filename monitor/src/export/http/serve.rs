//! Accepting connections and letting go of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::guests::{Conduct, Guests};
use super::host::Names;
use super::kept::Kept;
use super::patient::{Limits, Patient};
use super::reply::Reply;
use super::route;
use super::view::View;

/// Bytes of request line and headers; hyper allows no less than 8192.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 100;
/// On one connection; then it is closed, and whoever has more to ask comes again
/// and queues like the others.
const MAX_REQUESTS: u64 = 100;
const LIMITS: Limits = Limits { idle: Duration::from_secs(30), write: Duration::from_secs(20) };
/// For a whole head; also the time a kept connection may wait for its next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For answers under way when the agent stops.
const FAREWELL: Duration = Duration::from_millis(700);

/// What is served besides the view.
#[derive(Clone, Debug)]
pub struct Site {
    /// Path of the metrics.
    pub telemetry_path: String,
    /// Names that may be in `Host` over loopback, besides those of this host.
    pub allowed_hosts: Vec<String>,
}

/// What all connections share.
struct Shared {
    view: Arc<View>,
    telemetry_path: String,
    names: Names,
    kept: Kept,
    guests: Guests,
    limits: Limits,
}

/// Serves until `shutdown` turns true (or its sender is gone), then ends within
/// a second: answers under way are finished if they can be, all else is cut.
pub async fn serve(
    listeners: Vec<TcpListener>,
    view: Arc<View>,
    site: Site,
    shutdown: watch::Receiver<bool>,
) {
    serve_within(listeners, view, site, shutdown, LIMITS).await;
}

/// [`serve`], with limits that a test can wait for.
pub(super) async fn serve_within(
    listeners: Vec<TcpListener>,
    view: Arc<View>,
    site: Site,
    shutdown: watch::Receiver<bool>,
    limits: Limits,
) {
    let shared = Arc::new(Shared {
        view,
        names: Names::new(&site.allowed_hosts),
        telemetry_path: site.telemetry_path,
        kept: Kept::default(),
        guests: Guests::new(),
        limits,
    });
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(accept(listener, Arc::clone(&shared), shutdown.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut shutdown: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
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
        let Some(place) = shared.guests.place().await else { continue };
        let conduct = Arc::new(Conduct::new());
        let conversation =
            converse(stream, Arc::clone(&shared), Arc::clone(&conduct), shutdown.clone());
        let task = connections.spawn(async move {
            conversation.await;
            drop(place);
        });
        shared.guests.seat(conduct, task);
    }
    drop(listener);
    let farewell = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(FAREWELL, farewell).await;
    connections.shutdown().await;
}

async fn converse(
    stream: TcpStream,
    shared: Arc<Shared>,
    conduct: Arc<Conduct>,
    mut shutdown: watch::Receiver<bool>,
) {
    let loopback = stream.local_addr().is_ok_and(|a| a.ip().to_canonical().is_loopback());
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, asked) = (&*shared, conduct.asks());
        async move {
            // Who has had an answer lets the others have theirs first: else one
            // that asks a hundred things at once would have a hundred in a row.
            if asked > 1 {
                yield_now().await;
            }
            let mut answer = answer(&request, shared, loopback);
            if asked >= MAX_REQUESTS {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(answer.map(Full::new))
        }
    });
    let io = Patient::new(TokioIo::new(stream), shared.limits, Arc::clone(&conduct));
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

fn answer(request: &Request<Incoming>, shared: &Shared, loopback: bool) -> Reply {
    let (uri, headers) = (request.uri(), request.headers());
    if let Err(refusal) = shared.names.check(request.version(), uri, headers, loopback) {
        return *refusal;
    }
    let path = &shared.telemetry_path;
    route::route(request.method(), uri, headers, &shared.view, &shared.kept, path)
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: nobody could stop us any more.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
