//! Many clients at once that ask more than they should.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// More than there are places.
const MANY: usize = 300;
const SCRAPES: usize = 10;

fn with_a_fleet() -> Server {
    let server = Server::start();
    server.view.publish(fleet(500).into());
    server
}

/// Asks as much as the connection takes at once, and reads nothing.
fn ask_blindly(server: &Server, requests: usize) -> TcpStream {
    let mut stream = server.connect();
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(requests);
    stream.set_nonblocking(true).unwrap();
    let _ = stream.write(&request);
    stream
}

#[test]
fn more_clients_that_ask_and_never_read_than_places_keep_nobody_out() {
    let server = with_a_fleet();
    let mut deaf: Vec<TcpStream> = (0..MANY).map(|_| ask_blindly(&server, 100)).collect();
    for i in 0..SCRAPES {
        server.scrape_works();
        // Those who were sent away come again.
        for stream in deaf.iter_mut().skip(i).step_by(SCRAPES) {
            *stream = ask_blindly(&server, 100);
        }
    }
}

#[test]
fn more_clients_that_ask_all_the_time_than_places_keep_nobody_out() {
    let server = with_a_fleet();
    let over = AtomicBool::new(false);
    let (answers, sent_away) = (AtomicU64::new(0), AtomicU64::new(0));
    let ask = |mut stream: &TcpStream| -> std::io::Result<()> {
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        // An answer, or a part of it: enough to be one that reads.
        if stream.read(&mut [0; 256])? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    };
    // Not for ever, should a scrape fail.
    let begun = Instant::now();
    let patient = || begun.elapsed() < 30 * SECOND;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut streams: Vec<TcpStream> = (0..MANY).map(|_| server.connect()).collect();
            while !over.load(Ordering::Relaxed) && patient() {
                for stream in &mut streams {
                    if ask(stream).is_err() {
                        // Who is sent away comes again and asks at once: in its turn only,
                        // it would be the longest idle by then, and nobody had an answer.
                        *stream = server.connect();
                        sent_away.fetch_add(1, Ordering::Relaxed);
                        if ask(stream).is_err() {
                            continue;
                        }
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // No place is free from when the first is sent away for another.
        while sent_away.load(Ordering::Relaxed) == 0 && patient() {
            std::thread::yield_now();
        }
        for _ in 0..SCRAPES {
            server.scrape_works();
        }
        over.store(true, Ordering::Relaxed);
    });
    let (answers, sent_away) = (answers.into_inner(), sent_away.into_inner());
    assert!(answers > 0 && sent_away > 0, "{answers} answers, {sent_away} sent away");
}

#[test]
fn one_more_than_there_are_places_takes_that_of_an_idle_one() {
    let server = Server::start();
    let mut held: Vec<TcpStream> = (0..256).map(|_| server.connect()).collect();
    for stream in &mut held {
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    server.scrape_works();
    // One has gone, and the others are still served.
    let lost = held
        .iter_mut()
        .filter_map(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            closed_within(stream, Duration::from_millis(1)).then_some(())
        })
        .count();
    assert_eq!(lost, 1);
}

#[test]
fn a_connection_ends_after_a_hundred_answers() {
    let server = Server::start();
    let mut stream = server.connect();
    let request = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(101);
    stream.write_all(&request).unwrap();
    let mut answers = String::new();
    // The hundred-and-first may be lost to a reset; the others are not.
    let _ = stream.read_to_string(&mut answers);
    let count = answers.matches("HTTP/1.1 200 OK").count();
    assert_eq!(count, 100);
    assert_eq!(answers.to_ascii_lowercase().matches("connection: close").count(), 1);
}
