//! HTTP/1.1 (RFC 9112), one request for each connection.

use std::io::{self, Read, Write};

use super::{Stream, wrong};

/// The host that is asked for where none is named.
const HOST: &str = "corpus";

/// Asks for `path` and reads the answer to its end; gives its length, head and all.
///
/// # Errors
/// Nobody answers, or not with 200.
pub fn get(address: &str, path: &str) -> io::Result<usize> {
    get_of(HOST, address, path)
}

/// The same of a host that is not the only one there.
///
/// # Errors
/// As [`get`].
pub fn get_of(host: &str, address: &str, path: &str) -> io::Result<usize> {
    let mut answer = Vec::new();
    let mut stream = ask(host, address, path, &mut answer)?;
    stream.read_to_end(&mut answer)?;
    Ok(answer.len())
}

/// Asks for `path`, and has the connection when the answer has begun: the rest of it
/// is still to come.
///
/// # Errors
/// As [`get`].
pub fn begin(address: &str, path: &str) -> io::Result<Stream> {
    ask(HOST, address, path, &mut Vec::new())
}

/// Sends the request, and reads into `answer` until its status is there.
fn ask(host: &str, address: &str, path: &str, answer: &mut Vec<u8>) -> io::Result<Stream> {
    const OK: &[u8] = b"HTTP/1.1 200";
    const OLD: &[u8] = b"HTTP/1.0 200";
    let mut stream = Stream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut buffer = [0; 512];
    while answer.len() < OK.len() {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err(wrong(format!("{path}: no answer")));
        }
        answer.extend_from_slice(&buffer[..n]);
    }
    if answer.starts_with(OK) || answer.starts_with(OLD) {
        return Ok(stream);
    }
    Err(wrong(format!("{path}: {}", String::from_utf8_lossy(answer))))
}
