//! A connection whose patience ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::{Instant, Sleep, sleep};

use super::guests::Conduct;

/// How long a connection may wait, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Without a byte in either direction.
    pub(super) idle: Duration,
    /// From the first byte of an answer that the peer does not take at once to
    /// the last: a peer that reads a byte per second makes progress for ever.
    pub(super) write: Duration,
}

/// Wraps a stream; a wait beyond its limit is an error of kind `TimedOut`,
/// which makes hyper drop the connection. What the peer does with its answers
/// goes into its conduct.
pub(super) struct Patient<T> {
    inner: T,
    limits: Limits,
    conduct: Arc<Conduct>,
    idle: Pin<Box<Sleep>>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    /// Must be called within a tokio runtime.
    pub(super) fn new(inner: T, limits: Limits, conduct: Arc<Conduct>) -> Self {
        Self { inner, limits, conduct, idle: Box::pin(sleep(limits.idle)), writing: None }
    }

    fn progressed(&mut self) {
        self.idle.as_mut().reset(Instant::now() + self.limits.idle);
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let over = self.idle.as_mut().poll(cx).is_ready()
            || self.writing.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        if over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// What a write gave, with the waits accounted for.
    fn wrote<R>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if result.is_pending() {
            let limit = self.limits.write;
            self.conduct.stalls();
            self.writing.get_or_insert_with(|| Box::pin(sleep(limit)));
            self.wait(cx)?;
        } else {
            self.progressed();
            // Progress, but not to the end: the time goes on.
            if self.writing.is_some() {
                self.wait(cx)?;
            }
        }
        result
    }
}

impl<T: Read + Unpin> Read for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if result.is_pending() {
            self.wait(cx)?;
        } else {
            self.progressed();
        }
        result
    }
}

impl<T: Write + Unpin> Write for Patient<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    // hyper flushes the stream only when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        if result.is_ready() {
            self.writing = None;
            self.conduct.is_served();
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
