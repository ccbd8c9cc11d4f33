//! HTTP clients.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use leakwatch_tests::agent::{FAST, Plan};
use leakwatch_tests::component::need_root;
use leakwatch_tests::http;

#[test]
fn hostile_clients_do_not_stop_the_scrape_of_another() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(FAST).start();
    let to = agent.address;
    let scrape = |who: &str| {
        let begun = Instant::now();
        let answer = http::get(to, "/metrics").unwrap_or_else(|e| panic!("beside {who}: {e}"));
        assert_eq!(answer.status, 200, "beside {who}");
        assert!(begun.elapsed() < Duration::from_secs(2), "beside {who}: {:?}", begun.elapsed());
    };

    let mut many = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
    for i in 0..10_000 {
        many.extend_from_slice(format!("X-{i}: {i}\r\n").as_bytes());
    }
    many.extend_from_slice(b"\r\n");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20));
    for (who, bytes) in [
        ("garbage", &b"\x16\x03\x01\x02\x00\x01\xff\xfe\0\0\0\r\n\r\n"[..]),
        ("10,000 headers", &many),
        ("an endless path", long.as_bytes()),
        ("half a request", b"GET / HT"),
        ("a body that never comes", b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(to).expect("it listens");
        // It may hang up on us before we are done.
        let _ = stream.write_all(bytes);
        scrape(who);
    }
    // Those who say nothing and stay.
    let silent: Vec<TcpStream> = (0..300).filter_map(|_| TcpStream::connect(to).ok()).collect();
    assert!(silent.len() >= 200, "{} connected", silent.len());
    scrape("300 silent clients");
    drop(silent);

    for (method, path, wanted) in [
        ("POST", "/metrics", 405),
        ("DELETE", "/api/v1/leaks", 405),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/api/v1/leaks/none", 404),
        ("GET", "/api/v1/units/none", 404),
        ("GET", "/-/healthy", 200),
        ("GET", "/-/ready", 200),
        ("HEAD", "/metrics", 200),
    ] {
        let answer = http::request(to, method, path, &[]).expect("it answers");
        assert_eq!(answer.status, wanted, "{method} {path}");
    }
}

/// What the agent keeps in memory, in KiB, by its own kernel's word.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("it is a number")
}

/// Asks two hundred times in one breath, as far as the socket takes that, and reads
/// nothing.
fn ask_blindly(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_nonblocking(true).expect("it is a socket");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {to}\r\n\r\n").repeat(200);
    let _ = stream.write(request.as_bytes());
    stream
}

#[test]
fn clients_that_ask_without_reading_keep_no_scrape_from_its_answer() {
    const CLIENTS: usize = 300;
    const SCRAPES: usize = 10;
    // A quarter of what a scraper waits at its defaults.
    const TIMEOUT: Duration = Duration::from_millis(2_500);
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(FAST).start();
    let to = agent.address;
    agent.metrics();
    let before = resident(agent.pid());
    let mut deaf: Vec<TcpStream> = (0..CLIENTS).map(|_| ask_blindly(to)).collect();
    let mut most = 0;
    for i in 0..SCRAPES {
        let begun = Instant::now();
        let answer = http::get(to, "/metrics").unwrap_or_else(|e| panic!("scrape {i}: {e}"));
        let took = begun.elapsed();
        assert_eq!(answer.status, 200, "scrape {i}");
        assert!(answer.text().contains("leakwatch_census_fds"), "scrape {i} is whole");
        assert!(took < TIMEOUT, "scrape {i} took {took:?}");
        most = most.max(resident(agent.pid()));
        // Those who were sent away for it come again: 30 of 300 each time.
        for stream in deaf.iter_mut().skip(i).step_by(SCRAPES) {
            *stream = ask_blindly(to);
        }
    }
    // A connection may keep its buffers (heads of 16 KiB, an answer that all share),
    // so 256 of them have 32 MiB at the very most.
    let grown = most.saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more than the {before} KiB before");
    drop(deaf);
    assert_eq!(http::get(to, "/-/ready").expect("it answers").status, 200);
}
