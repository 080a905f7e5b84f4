use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::net::ConnectionHandle;
use crate::net::http2_frames::{Arrived, Http2Frames};

/// Stream of a [`Connection`](crate::net::Connection), or what lies above one such as TLS, as the library of HTTP
/// reads it.
///
/// It recognises HTTP/2 by the preface, and counts what the library may hold of what was read: bodies that no one
/// has read, with all that came beside them, trailers of requests that are not over, what compressed headers refer
/// to, streams, and the heads of an unauthenticated connection. While there is no memory for it, nothing more is read;
/// after 1 s of that, requests are [refused](crate::net::Activity::refused) that have not begun to read their bodies, and
/// after 10 s reading fails with [`TimedOut`](io::ErrorKind::TimedOut). See
/// [`Activity::body`](crate::net::Activity::body).
///
/// Of one caller, or of one network of unauthenticated clients, one connection of HTTP/2 at a time reads requests,
/// up to 16 of them before the next has its turn, and once those read before have [begun](crate::net::Activity::start):
/// thousands at once wait unread, and do not keep those of other callers waiting.
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
    /// What is in that.
    arrived: Arrived,
    /// While there is no memory.
    paused: Option<Paused>,
    turn: Turn,
}

/// Turn of a connection among those of its caller or network, behind the requests that were read before. It is given
/// up at once: the next one runs after this one, and before this one's next.
#[derive(Default)]
enum Turn {
    #[default]
    NotNeeded,
    Needed,
    Waiting(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
}

#[derive(Debug)]
struct Paused {
    since: Instant,
    interval: Duration,
    look: Pin<Box<Sleep>>,
}

impl<S> HttpStream<S> {
    /// Makes a stream of `stream`, of which nothing was read yet, and the handle of its connection.
    #[must_use]
    pub fn new(stream: S, handle: ConnectionHandle) -> Self {
        let (unseen, waiting) = (BytesMut::new(), BytesMut::new());
        let frames = Http2Frames::new();
        let (arrived, turn) = (Arrived::default(), Turn::default());
        Self { stream, handle, frames, unseen, waiting, arrived, paused: None, turn }
    }

    /// Whether there is memory for what the library may hold, and for what it is handed next.
    fn has_memory(&self) -> bool {
        let state = &self.handle.0;
        let begins_more = self.waiting.is_empty() && !self.unseen.is_empty();
        !self.frames.is_http2()
            || (state.try_count_held().is_ok() && (!begins_more || state.may_begin_more()))
    }

    /// Waits until there is memory.
    fn poll_memory(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.paused.is_some() {
                *self.handle.0.reader() = Some(cx.waker().clone());
            }
            if self.has_memory() {
                self.paused = None;
                return Poll::Ready(Ok(()));
            }
            if let Turn::Waiting(_) = self.turn {
                // Others have it meanwhile.
                self.turn = Turn::Needed;
            }
            let paused = self.paused.get_or_insert_with(Paused::new);
            if paused.since.elapsed() >= MEMORY_TIMEOUT {
                let problem = "there is no memory for what the client sends";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)));
            }
            // Others may give memory back, of which no one is told.
            ready!(paused.look.as_mut().poll(cx));
            paused.look_later();
            if paused.since.elapsed() >= REFUSAL_TIMEOUT {
                self.handle.0.unread.refuse_some();
            }
        }
    }

    /// Waits until this connection may read requests.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Turn::Needed = self.turn {
            self.turn = match self.handle.0.read_turn() {
                None => Turn::NotNeeded,
                Some(turn) => Turn::Waiting(Box::pin(turn)),
            };
        }
        if let Turn::Waiting(turn) = &mut self.turn {
            ready!(turn.as_mut().poll(cx));
            self.turn = Turn::NotNeeded;
        }
        Poll::Ready(())
    }

    /// Counts some of what was read, and returns how much; it is handed on once there is memory for it.
    fn count(&mut self, bytes: &[u8]) -> usize {
        let state = &self.handle.0;
        let (taken, arrived) = self.frames.advance(bytes, state.max_requests());
        if self.frames.is_http2() {
            self.handle.set_multiplexed();
            state.answers.count(arrived);
            state.unread.count(taken);
            self.arrived.data_frames += arrived.data_frames;
            self.arrived.data_bytes += arrived.data_bytes;
            if arrived.requests > 0 && matches!(self.turn, Turn::NotNeeded) {
                self.turn = Turn::Needed;
            }
            state.unfinished_head.store(self.frames.unfinished_head(), Relaxed);
            state.table_bytes.store(self.frames.table_bytes(), Relaxed);
        }
        taken
    }

    /// Counts the frames of bodies that are handed on.
    fn count_frames(&mut self) {
        self.handle.0.unread.count_frames(std::mem::take(&mut self.arrived));
    }

    /// Hands on what waits, as far as there is room for it.
    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        self.count_frames();
        let length = self.waiting.len().min(buffer.remaining());
        buffer.put_slice(&self.waiting[..length]);
        self.waiting.advance(length);
        if self.waiting.is_empty() {
            self.waiting = BytesMut::new();
            self.handle.0.answers.set_withheld(false);
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
            ready!(this.poll_memory(cx))?;
            if !this.waiting.is_empty() {
                ready!(this.poll_turn(cx));
                this.hand_on(buffer);
                return Poll::Ready(Ok(()));
            }
            if !this.unseen.is_empty() {
                let mut unseen = std::mem::take(&mut this.unseen);
                let taken = this.count(&unseen);
                this.waiting = unseen.split_to(taken);
                this.unseen = unseen;
                this.handle.0.answers.set_withheld(true);
                continue;
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let read = &buffer.filled()[before..];
            let taken = this.count(read);
            if taken == read.len() && this.has_memory() && this.poll_turn(cx).is_ready() {
                this.count_frames();
                return Poll::Ready(Ok(()));
            }
            this.waiting.extend_from_slice(&read[..taken]);
            this.unseen.extend_from_slice(&read[taken..]);
            buffer.set_filled(before);
            this.handle.0.answers.set_withheld(true);
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

impl Paused {
    fn new() -> Self {
        let look = Box::pin(sleep(MIN_MEMORY_INTERVAL));
        Self { since: Instant::now(), interval: MIN_MEMORY_INTERVAL, look }
    }

    fn look_later(&mut self) {
        self.interval = (2 * self.interval).min(MAX_MEMORY_INTERVAL);
        self.look.as_mut().reset(Instant::now() + self.interval);
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotNeeded => "NotNeeded",
            Self::Needed => "Needed",
            Self::Waiting(_) => "Waiting",
        })
    }
}

/// How often to look for memory that others give back: less often the longer there is none.
const MIN_MEMORY_INTERVAL: Duration = Duration::from_millis(50);
const MAX_MEMORY_INTERVAL: Duration = Duration::from_millis(400);
/// After so long requests are refused whose bodies nobody reads: what is read may wait for what they hold.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to look for it.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(10);
