//! Clients of real servers, as much of each protocol as a case of the corpus needs.

pub mod http;
pub mod postgres;
pub mod redis;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long an answer may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection that blocks.
pub enum Stream {
    /// `HOST:PORT`.
    Tcp(TcpStream),
    /// `unix:PATH`.
    Unix(UnixStream),
}

impl Stream {
    /// Connects to `unix:PATH` or `HOST:PORT`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: &str) -> io::Result<Self> {
        if let Some(path) = address.strip_prefix("unix:") {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(LIMIT))?;
            Ok(Self::Unix(stream))
        } else {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(LIMIT))?;
            Ok(Self::Tcp(stream))
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What came is not what the protocol says.
fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
