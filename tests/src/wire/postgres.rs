//! The frontend/backend protocol of PostgreSQL, version 3.0: start, simple query, end.
//! <https://www.postgresql.org/docs/15/protocol-message-formats.html>

use std::io::{self, Read, Write};

use super::{Stream, wrong};

/// Version 3.0, as the startup message has it.
const VERSION: u32 = 3 << 16;
/// A longer message is not what such queries are answered with.
const LONGEST: usize = 1 << 20;

/// A session; its end is said to the server when it is dropped.
pub struct Session(Stream);

impl Session {
    /// Connects as `postgres` to the database `postgres` of a server that trusts us, and
    /// waits until it is ready for a query.
    ///
    /// # Errors
    /// It is not there, not ready yet, or has no place left.
    pub fn connect(address: &str) -> io::Result<Self> {
        let mut session = Self(Stream::connect(address)?);
        let mut body = VERSION.to_be_bytes().to_vec();
        body.extend_from_slice(b"user\0postgres\0database\0postgres\0\0");
        session.0.write_all(&length(body.len()))?;
        session.0.write_all(&body)?;
        session.answered("the start")?;
        Ok(session)
    }

    /// A simple query (one or more statements).
    ///
    /// # Errors
    /// The server has gone, or says that the query is wrong: then the session goes on.
    pub fn query(&mut self, sql: &str) -> io::Result<()> {
        let mut message = vec![b'Q'];
        message.extend_from_slice(&length(sql.len() + 1));
        message.extend_from_slice(sql.as_bytes());
        message.push(0);
        self.0.write_all(&message)?;
        self.answered(sql)
    }

    /// Reads until the server is ready for the next query.
    fn answered(&mut self, what: &str) -> io::Result<()> {
        let mut error = None;
        loop {
            let mut head = [0; 5];
            let got = self.0.read_exact(&mut head);
            // An error at the start is the last that comes.
            got.map_err(|e| error.take().unwrap_or(e))?;
            let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some(size) = size.checked_sub(4).filter(|n| *n <= LONGEST) else {
                return Err(wrong(format!("{what}: a message of {size} bytes")));
            };
            let mut body = vec![0; size];
            self.0.read_exact(&mut body)?;
            match head[0] {
                b'E' => {
                    let said = String::from_utf8_lossy(&body).replace('\0', " ");
                    error = Some(wrong(format!("{what}: {said}")));
                }
                b'Z' => return error.map_or(Ok(()), Err),
                _ => {}
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Else the server writes of a client that was lost.
        let _ = self.0.write_all(&[b'X', 0, 0, 0, 4]);
    }
}

/// Of a message with so much in it: the length counts itself.
fn length(body: usize) -> [u8; 4] {
    (body as u32 + 4).to_be_bytes()
}
