//! A connection as hyper gets it: its first bytes must come in time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use splengine_core::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A connection whose first bytes must come in time.
///
/// hyper's header timeout begins once it knows the version; a client that sends nothing, or a part
/// of what HTTP/2 begins with (RFC 9113, section 3.4), would be waited for without end before.
pub(crate) struct Opening {
    connection: Connection,
    /// `None` once the version is known.
    deadline: Option<Pin<Box<Sleep>>>,
    /// So many of the first bytes are those of HTTP/2.
    matched: usize,
}

impl Opening {
    pub(crate) fn new(connection: Connection, within: Duration) -> Self {
        Self { connection, deadline: Some(Box::pin(sleep(within))), matched: 0 }
    }

    fn look(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if PREFACE.get(self.matched) == Some(byte) {
                self.matched += 1;
            } else {
                self.deadline = None;
                return;
            }
        }
        if self.matched == PREFACE.len() {
            self.deadline = None;
        }
    }
}

impl AsyncRead for Opening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(cx, buffer);
        if self.deadline.is_some() {
            self.look(&buffer.filled()[before..]);
        }
        if read.is_pending()
            && let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Opening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
