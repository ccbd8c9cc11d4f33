//! HTTP clients.

use std::io::Write;
use std::net::TcpStream;
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
