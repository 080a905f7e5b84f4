use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::net::ConnectionHandle;
use crate::net::http2_frames::{Arrived, Http2Frames};

/// Stream of a [`Connection`](crate::net::Connection), or what lies above one such as TLS, as the library of HTTP
/// reads it.
///
/// It recognises HTTP/2 by the preface, and counts what the library may hold of what was read: bodies that nobody
/// has read, with all that came beside them, trailers of requests that are not over, and the streams of an
/// unauthenticated connection. While there is no memory for it, nothing more is read. See [`Activity::body`](crate::net::Activity::body).
///
/// ```
/// use splengine_core::net::{Connection, HttpStream};
///
/// fn for_the_http_library(connection: Connection) -> HttpStream<Connection> {
///     let handle = connection.handle();
///     HttpStream::new(connection, handle)
/// }
/// ```
#[derive(Debug)]
pub struct HttpStream<S> {
    stream: S,
    handle: ConnectionHandle,
    frames: Http2Frames,
    /// What was read and has to wait for memory, of which it becomes more once the library has it.
    waiting: BytesMut,
    /// While there is no memory.
    paused: Option<Pin<Box<Sleep>>>,
}

impl<S> HttpStream<S> {
    /// Makes a stream of `stream`, of which nothing was read yet, and the handle of its connection.
    #[must_use]
    pub fn new(stream: S, handle: ConnectionHandle) -> Self {
        Self { stream, handle, frames: Http2Frames::new(), waiting: BytesMut::new(), paused: None }
    }

    /// Waits until there is memory for what the library may hold.
    fn poll_memory(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(paused) = &mut self.paused {
                ready!(paused.as_mut().poll(cx));
                self.paused = None;
            }
            if !self.frames.is_http2() || self.handle.0.try_count_unread().is_ok() {
                return Poll::Ready(());
            }
            self.paused = Some(Box::pin(sleep(MEMORY_INTERVAL)));
        }
    }

    /// Counts what was read, and returns whether there is memory for it.
    fn count(&mut self, bytes: &[u8]) -> bool {
        let before = self.frames.unfinished_head();
        let arrived = self.frames.advance(bytes);
        if !self.frames.is_http2() {
            return true;
        }
        let (state, unfinished) = (&self.handle.0, self.frames.unfinished_head());
        self.handle.set_multiplexed();
        state.unread.count(bytes.len());
        if arrived == Arrived::default() && unfinished == before {
            return true;
        }
        state.answers.count(arrived);
        state.unfinished_head.store(unfinished, Relaxed);
        state.try_count_unread().is_ok()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_memory(cx));
        if self.waiting.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            let read = &buffer.filled()[before..];
            if self.count(read) {
                return Poll::Ready(Ok(()));
            }
            self.waiting.extend_from_slice(read);
            buffer.set_filled(before);
            ready!(self.poll_memory(cx));
        }
        let length = self.waiting.len().min(buffer.remaining());
        buffer.put_slice(&self.waiting[..length]);
        self.waiting.advance(length);
        if self.waiting.is_empty() {
            self.waiting = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HttpStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How often to look for memory, and so how long a connection that has none is not read at least.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);
