//! What clients do to the server, over real sockets on loopback.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use tokio::sync::watch;

use super::patient::Limits;
use super::serve::serve_within;
use super::{Site, View, bind};
use crate::export::testing::{fleet, night};

mod flood;

const SECOND: Duration = Duration::from_secs(1);

/// A server in a runtime of its own, stopped when dropped.
struct Server {
    address: SocketAddr,
    view: Arc<View>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        Self::with(Limits { idle: 30 * SECOND, write: 20 * SECOND })
    }

    fn with(limits: Limits) -> Self {
        let view = Arc::new(View::new());
        view.publish(night().into());
        let (stop, stopped) = watch::channel(false);
        let (told, address) = std::sync::mpsc::channel();
        let shown = Arc::clone(&view);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listeners = bind(&[SocketAddr::from(([127, 0, 0, 1], 0))]).unwrap();
                told.send(listeners[0].local_addr().unwrap()).unwrap();
                let site = Site { telemetry_path: "/metrics".into(), allowed_hosts: Vec::new() };
                serve_within(listeners, shown, site, stopped, limits).await;
            });
        });
        Self { address: address.recv().unwrap(), view, stop, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(10 * SECOND)).unwrap();
        stream.set_write_timeout(Some(10 * SECOND)).unwrap();
        stream
    }

    /// Head and body of the answer to a request that closes its connection.
    fn ask(&self, head: &str) -> (String, Vec<u8>) {
        let mut stream = self.connect();
        write!(stream, "{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
    }

    fn scrape_works(&self) {
        let began = Instant::now();
        let (head, body) = self.ask("GET /metrics HTTP/1.1");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(String::from_utf8(body).unwrap().contains("leakwatch_unit_info{"));
        assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// Whether the peer has closed within the time.
fn closed_within(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn metrics_are_compressed_when_asked_for() {
    let server = Server::start();
    let (head, body) = server.ask("GET /metrics HTTP/1.1\r\nAccept-Encoding: gzip");
    assert!(head.to_ascii_lowercase().contains("content-encoding: gzip"), "{head}");
    let mut text = String::new();
    GzDecoder::new(&*body).read_to_string(&mut text).unwrap();
    assert!(text.contains("leakwatch_unit_info{"));
    let (head, body) = server.ask("GET /metrics HTTP/1.1\r\nAccept-Encoding: gzip;q=0");
    assert!(!head.to_ascii_lowercase().contains("content-encoding"), "{head}");
    assert!(body.starts_with(b"# HELP"));
}

#[test]
fn head_gives_the_head_of_get_and_no_body() {
    let server = Server::start();
    let (get, body) = server.ask("GET /api/v1/units HTTP/1.1");
    let (head, nothing) = server.ask("HEAD /api/v1/units HTTP/1.1");
    let length = |head: &str| {
        let line = head.lines().find(|l| l.to_ascii_lowercase().starts_with("content-length"));
        line.unwrap_or_else(|| panic!("no length: {head}")).to_owned()
    };
    assert_eq!(length(&get), length(&head));
    assert!(!body.is_empty() && nothing.is_empty());
}

#[test]
fn writing_is_refused_and_its_body_not_waited_for() {
    let server = Server::start();
    let began = Instant::now();
    let (head, _) = server.ask("POST /api/v1/units HTTP/1.1\r\nContent-Length: 1000000000");
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    assert!(head.to_ascii_lowercase().contains("allow: get, head"), "{head}");
    assert!(began.elapsed() < 2 * SECOND);
}

#[test]
fn heads_that_mean_two_things_are_refused_or_end_the_connection() {
    let server = Server::start();
    let get = "GET /-/healthy HTTP/1.1\r\n";
    let host = "Host: localhost\r\n";
    let chunk = "\r\n0\r\n\r\n";
    for (head, status, goes_on) in [
        (format!("{get}{host}\r\n"), "200", true),
        (format!("{get}\r\n"), "400", true),
        (format!("{get}{host}{host}\r\n"), "400", true),
        (format!("{get}Host: a b\r\n\r\n"), "400", true),
        (format!("{get}Host: evil.example\r\n\r\n"), "421", true),
        (format!("GET http://evil.example/ HTTP/1.1\r\n{host}\r\n"), "421", true),
        ("GET /-/healthy HTTP/1.0\r\n\r\n".to_owned(), "200", false),
        // RFC 9112, 6.1: by the chunks alone, and the connection must end: a
        // proxy that went by the length would take the rest for another request.
        (
            format!("{get}{host}Content-Length: 9\r\nTransfer-Encoding: chunked\r\n{chunk}"),
            "200",
            false,
        ),
        (
            format!("{get}{host}Transfer-Encoding: chunked\r\nContent-Length: 9\r\n{chunk}"),
            "200",
            false,
        ),
        (format!("{get}{host}Transfer-Encoding: gzip\r\n\r\n"), "400", false),
        (format!("{get}{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"), "400", false),
        (format!("{get}{host}Content-Length: -1\r\n\r\n"), "400", false),
        ("GET /-/healthy HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), "400", false),
    ] {
        let mut stream = server.connect();
        // A second request in the same breath is answered where the first was clear.
        let second = "GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{head}{second}").as_bytes()).unwrap();
        let mut answers = Vec::new();
        let _ = stream.read_to_end(&mut answers);
        let answers = String::from_utf8(answers).unwrap();
        assert_eq!(answers.split(' ').nth(1), Some(status), "{head:?}: {answers}");
        assert_eq!(answers.contains("leakwatch is ready."), goes_on, "{head:?}: {answers}");
    }
}

#[test]
fn one_connection_serves_many_requests() {
    let server = Server::start();
    let mut stream = server.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"leakwatch is healthy.\n") {
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
    }
}

#[test]
fn garbage_is_refused_and_hurts_nobody() {
    let server = Server::start();
    let garbage: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\xff\xfe\xfd GET / \r\n\r\n",
    ];
    for bytes in garbage {
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        server.scrape_works();
        assert!(closed_within(&mut stream, 2 * SECOND), "{bytes:?}");
    }
}

#[test]
fn ten_thousand_headers_are_refused_and_hurt_nobody() {
    let server = Server::start();
    let mut stream = server.connect();
    let mut request = b"GET /metrics HTTP/1.1\r\n".to_vec();
    for i in 0..10_000 {
        request.extend_from_slice(format!("X-Header-{i}: {i}\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    // The server may close before it has read all: that is the point.
    let _ = stream.write_all(&request);
    server.scrape_works();
    assert!(closed_within(&mut stream, 2 * SECOND));

    // Few enough bytes, too many headers: this one is told why.
    let mut stream = server.connect();
    let request = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200));
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[test]
fn clients_that_say_nothing_hurt_nobody_and_are_let_go() {
    let server = Server::start();
    let mut silent: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    let mut slow = server.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nX-Sl").unwrap();
    server.scrape_works();
    // The time for a head is 5 s, for one that dribbles too.
    assert!(closed_within(&mut slow, 7 * SECOND));
    assert!(silent.iter_mut().all(|stream| closed_within(stream, SECOND)));
    server.scrape_works();
}

#[test]
fn more_silent_clients_than_places_keep_nobody_out() {
    let server = Server::start();
    let _silent: Vec<TcpStream> = (0..400).map(|_| server.connect()).collect();
    server.scrape_works();
}

#[test]
fn a_reader_that_does_not_read_is_cut() {
    let server = Server::with(Limits { idle: 30 * SECOND, write: SECOND });
    server.view.publish(fleet(500).into());
    let mut lazy = server.connect();
    // Far more answers than the socket buffers of both ends hold.
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let _ = lazy.write_all(&request);
    std::thread::sleep(3 * SECOND);
    server.view.publish(night().into());
    server.scrape_works();
    // What is in the buffers can still be read; then the end comes early.
    let mut all = Vec::new();
    let _ = lazy.read_to_end(&mut all);
    let answers = all.windows(15).filter(|w| w == b"HTTP/1.1 200 OK").count();
    assert!(answers < 100, "{answers} answers of {} bytes", all.len());
}

#[test]
fn an_idle_connection_is_cut() {
    let server = Server::with(Limits { idle: SECOND, write: SECOND });
    let mut idle = server.connect();
    let began = Instant::now();
    assert!(closed_within(&mut idle, 3 * SECOND));
    assert!(began.elapsed() >= Duration::from_millis(900));
}

#[test]
fn the_end_comes_within_a_second_whoever_is_connected() {
    let mut server = Server::start();
    let _silent: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    let mut half = server.connect();
    half.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    server.scrape_works();
    let began = Instant::now();
    server.stop.send(true).unwrap();
    server.thread.take().unwrap().join().unwrap();
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    assert!(TcpStream::connect(server.address).is_err());
}
