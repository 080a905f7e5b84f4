use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::net::ConnectionHandle;
use crate::net::http2_frames::Http2Frames;

/// Stream of a [`Connection`](crate::net::Connection), or what lies above one such as TLS, as the library of HTTP
/// reads it.
///
/// It recognises HTTP/2 by the preface, and counts what the library may hold of what was read: bodies that no one
/// has read, with all that came beside them, trailers of requests that are not over, what compressed headers refer
/// to, and the streams of an unauthenticated connection. While there is no memory for it, nothing more is read; after
/// 10 s of that, reading fails with [`TimedOut`](io::ErrorKind::TimedOut). See
/// [`Activity::body`](crate::net::Activity::body).
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
    /// What was read and is not handed on yet: requests for whose streams there is no memory.
    unseen: BytesMut,
    /// What was counted and waits for memory, of which it becomes more once the library has it.
    waiting: BytesMut,
    /// How many frames of bodies are in that.
    data_frames: usize,
    /// While there is no memory.
    paused: Option<Paused>,
}

#[derive(Debug)]
struct Paused {
    since: Instant,
    look: Pin<Box<Sleep>>,
}

impl<S> HttpStream<S> {
    /// Makes a stream of `stream`, of which nothing was read yet, and the handle of its connection.
    #[must_use]
    pub fn new(stream: S, handle: ConnectionHandle) -> Self {
        let (unseen, waiting) = (BytesMut::new(), BytesMut::new());
        let frames = Http2Frames::new();
        Self { stream, handle, frames, unseen, waiting, data_frames: 0, paused: None }
    }

    /// Waits until `is_there`: memory for what the library may hold.
    fn poll_memory(
        &mut self,
        cx: &mut Context<'_>,
        is_there: impl Fn(&Self) -> bool,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(paused) = &mut self.paused {
                ready!(paused.look.as_mut().poll(cx));
            }
            if !self.frames.is_http2() || is_there(self) {
                self.paused = None;
                return Poll::Ready(Ok(()));
            }
            let since = self.paused.take().map_or_else(Instant::now, |paused| paused.since);
            if since.elapsed() >= MEMORY_TIMEOUT {
                let problem = "there is no memory for what the client sends";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)));
            }
            self.paused = Some(Paused { since, look: Box::pin(sleep(MEMORY_INTERVAL)) });
        }
    }

    /// Counts some of what was read, and returns how much; it is handed on once there is memory for it.
    fn count(&mut self, bytes: &[u8]) -> usize {
        let state = &self.handle.0;
        let (taken, arrived) = self.frames.advance(bytes, state.max_requests());
        if self.frames.is_http2() {
            self.handle.set_multiplexed();
            state.answers.count(arrived);
            state.unread.count(taken);
            self.data_frames += arrived.data_frames;
            state.unfinished_head.store(self.frames.unfinished_head(), Relaxed);
            state.table_bytes.store(self.frames.table_bytes(), Relaxed);
        }
        taken
    }

    /// Counts the frames of bodies that are handed on.
    fn count_frames(&mut self) {
        self.handle.0.unread.count_frames(std::mem::take(&mut self.data_frames));
    }

    /// Hands on what waits, as far as there is room for it.
    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        self.count_frames();
        let length = self.waiting.len().min(buffer.remaining());
        buffer.put_slice(&self.waiting[..length]);
        self.waiting.advance(length);
        if self.waiting.is_empty() {
            self.waiting = BytesMut::new();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            ready!(this.poll_memory(cx, |this| this.handle.0.try_count_held().is_ok()))?;
            if !this.waiting.is_empty() {
                this.hand_on(buffer);
                return Poll::Ready(Ok(()));
            }
            if !this.unseen.is_empty() {
                ready!(this.poll_memory(cx, |this| this.handle.0.may_begin_more()))?;
                let mut unseen = std::mem::take(&mut this.unseen);
                let taken = this.count(&unseen);
                this.waiting = unseen.split_to(taken);
                this.unseen = unseen;
                continue;
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let read = &buffer.filled()[before..];
            let taken = this.count(read);
            let is_there = !this.frames.is_http2() || this.handle.0.try_count_held().is_ok();
            if taken == read.len() && is_there {
                this.count_frames();
                return Poll::Ready(Ok(()));
            }
            this.waiting.extend_from_slice(&read[..taken]);
            this.unseen.extend_from_slice(&read[taken..]);
            buffer.set_filled(before);
        }
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
/// How long to look for it.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(10);
