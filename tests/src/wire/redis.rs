//! RESP, the protocol of redis, by inline commands.

use std::io::{self, Read, Write};

use super::{Stream, wrong};

/// A connection.
pub struct Client(Stream);

impl Client {
    /// Connects, and has a first answer.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn connect(address: &str) -> io::Result<Self> {
        let mut client = Self(Stream::connect(address)?);
        client.command("PING")?;
        Ok(client)
    }

    /// A command whose answer is one line; gives it.
    ///
    /// # Errors
    /// The server has gone, or refuses.
    pub fn command(&mut self, command: &str) -> io::Result<String> {
        write!(self.0, "{command}\r\n")?;
        let mut line = Vec::new();
        // Nothing comes after it, for nothing else was asked.
        while !line.ends_with(b"\r\n") {
            let mut some = [0; 128];
            let n = self.0.read(&mut some)?;
            if n == 0 {
                return Err(wrong(format!("{command}: the server has gone")));
            }
            line.extend_from_slice(&some[..n]);
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.starts_with('-') { Err(wrong(format!("{command}: {line}"))) } else { Ok(line) }
    }
}
