//! Frames that a client sends, held back until there may be as much of them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use splengine_core::quota::{MemoryBudget, MemoryError, Reservation};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::coop;
use tokio_tungstenite::WebSocketStream;

/// A WebSocket whose messages are bounded before they are read.
pub(crate) type Socket = WebSocketStream<MeteredStream<TokioIo<Upgraded>>>;

/// A connection with WebSocket frames in it. Before the payload of a message is read, it must be small
/// enough, and the memory for it reserved; until then nothing more is taken from the connection.
pub(crate) struct MeteredStream<S> {
    stream: S,
    frame_memory: Arc<FrameMemory>,
    /// What was read and not handed on yet: a part of a header, or what is behind it.
    read: BytesMut,
    /// So many bytes may be handed on: a frame's header and payload, or the rest of them.
    passing: u64,
    /// What came before of the message that is not whole yet.
    partial: u64,
    reserving: Option<Reserving>,
    /// The client has not taken what was written to it last.
    is_full: bool,
    /// Who waits to read a ping until it has.
    unanswered: Option<Waker>,
}

type Reserving = Pin<Box<dyn Future<Output = Result<Reservation, MemoryError>> + Send>>;

/// How large messages a client may send, and the memory that is reserved for them.
#[derive(Debug)]
pub(crate) struct FrameMemory {
    state: Mutex<FrameMemoryState>,
    refused: Notify,
}

#[derive(Debug)]
struct FrameMemoryState {
    stage: Stage,
    /// The largest message that memory is reserved for; what is larger is refused by whoever reads.
    max_message: u64,
    /// What memory is reserved from: the part of clients that nobody knows, then the caller's share.
    budget: MemoryBudget,
    /// The memory of the message that was read last, until the next is asked for.
    reservation: Option<Reservation>,
    waiting: Option<Waker>,
    shortage: Option<MemoryError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody is recognised yet.
    Unknown,
    Known,
    /// Whatever comes is thrown away.
    Discarding,
}

impl FrameMemory {
    pub(crate) fn new(max_message: usize, unknown: MemoryBudget) -> Self {
        let state = FrameMemoryState {
            stage: Stage::Unknown,
            max_message: max_message as u64,
            budget: unknown,
            reservation: None,
            waiting: None,
            shortage: None,
        };
        Self { state: Mutex::new(state), refused: Notify::new() }
    }

    /// Lets messages through that are larger than those of clients that nobody knows, with memory of
    /// `share`, that of the caller.
    pub(crate) fn set_share(&self, share: MemoryBudget) {
        self.state().budget = share;
        self.enter(Stage::Known);
    }

    /// Throws away what comes from now on, so that its sender reads what was said last: a connection
    /// that is closed with something unread is reset.
    pub(crate) fn throw_away(&self) {
        self.enter(Stage::Discarding);
    }

    /// Resolves when a client that nobody knows sends a message that is too large for one.
    pub(crate) async fn refused(&self) {
        self.refused.notified().await;
    }

    /// Why there was no memory for a message in time.
    pub(crate) fn shortage(&self) -> Option<MemoryError> {
        self.state().shortage
    }

    /// Returns the memory that is reserved for the message that was read last, if it takes any, for
    /// whoever keeps its content longer.
    pub(crate) fn take_reservation(&self) -> Option<Reservation> {
        self.state().reservation.take()
    }

    fn enter(&self, stage: Stage) {
        let mut state = self.state();
        state.stage = stage;
        if let Some(waiting) = state.waiting.take() {
            waiting.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, FrameMemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> MeteredStream<S> {
    pub(crate) fn new(stream: S, frame_memory: Arc<FrameMemory>) -> Self {
        Self {
            stream,
            frame_memory,
            read: BytesMut::new(),
            passing: 0,
            partial: 0,
            reserving: None,
            is_full: false,
            unanswered: None,
        }
    }

    /// Waits until the frame of this header may pass.
    fn poll_admit(&mut self, cx: &mut Context<'_>, header: Header) -> Poll<io::Result<()>> {
        if header.is_ping && self.is_full {
            // Each is answered: the answers of a client that reads none of them would gather.
            self.unanswered = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // Many frames come with one read; each has a part in the turn of its task, as a read has.
        let turn = ready!(coop::poll_proceed(cx));
        let total = self.partial.saturating_add(header.payload);
        let mut state = self.frame_memory.state();
        if state.stage == Stage::Unknown && total > MAX_UNKNOWN {
            state.waiting = Some(cx.waker().clone());
            self.frame_memory.refused.notify_one();
            return Poll::Pending;
        }
        // A control frame has 125 bytes; one of a length that is no length is refused later.
        let needs = header.is_data && (ALLOWANCE..=state.max_message).contains(&total);
        if needs && self.reserving.is_none() {
            let reservation = state.reservation.take();
            let mut reservation = reservation.unwrap_or_else(|| state.budget.reservation());
            let bytes = usize::try_from(total).unwrap_or(usize::MAX);
            self.reserving = Some(Box::pin(async move {
                reservation.resize_within(bytes, MEMORY_TIMEOUT).await?;
                Ok(reservation)
            }));
        }
        drop(state);
        if let Some(reserving) = &mut self.reserving {
            let reserved = ready!(reserving.as_mut().poll(cx));
            self.reserving = None;
            let mut state = self.frame_memory.state();
            match reserved {
                Ok(reservation) => state.reservation = Some(reservation),
                Err(shortage) => {
                    state.shortage = Some(shortage);
                    return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
                }
            }
        }
        if header.is_data {
            self.partial = if header.is_final { 0 } else { total };
        }
        self.passing = header.length as u64 + header.payload;
        turn.made_progress();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.frame_memory.state().stage == Stage::Discarding {
                this.read.clear();
                let mut scratch = [0; 4096];
                let mut scratch = ReadBuf::new(&mut scratch);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut scratch))?;
                if scratch.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if this.passing > 0 {
                let most = usize::try_from(this.passing).unwrap_or(usize::MAX);
                let length = most.min(buffer.remaining());
                let before = buffer.filled().len();
                if this.read.is_empty() {
                    // Straight from the connection, but not beyond the frame.
                    let mut part = buffer.take(length);
                    ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
                    let read = part.filled().len();
                    buffer.advance(read);
                } else {
                    let length = length.min(this.read.len());
                    buffer.put_slice(&this.read[..length]);
                    this.read.advance(length);
                }
                this.passing -= (buffer.filled().len() - before) as u64;
                return Poll::Ready(Ok(()));
            }
            if this.partial == 0 && this.reserving.is_none() {
                // Whoever reads on has done with the message before.
                this.frame_memory.state().reservation = None;
            }
            if let Some(header) = Header::read(&this.read) {
                ready!(this.poll_admit(cx, header))?;
                continue;
            }
            let mut piece = [0; 4096];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.read.extend_from_slice(piece.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.is_full = written.is_pending();
        if let Some(waiting) = self.unanswered.take_if(|_| written.is_ready()) {
            waiting.wake();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What the head of a frame says (RFC 6455, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// Its own length.
    length: usize,
    payload: u64,
    is_final: bool,
    is_data: bool,
    is_ping: bool,
}

impl Header {
    /// `None` while it is not whole.
    fn read(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (extended, payload) = match second & 0x7f {
            126 => (2, u64::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?))),
            127 => (8, u64::from_be_bytes(rest.get(..8)?.try_into().ok()?)),
            short => (0, u64::from(short)),
        };
        let length = 2 + extended + if second & 0x80 == 0 { 0 } else { 4 };
        let is_whole = bytes.len() >= length;
        let (is_final, is_data) = (first & 0x80 != 0, first & 0x08 == 0);
        let is_ping = first & 0x0f == 0x09;
        is_whole.then_some(Self { length, payload, is_final, is_data, is_ping })
    }
}

/// The largest message of a client that nobody has recognised yet: what brings a ticket.
pub(crate) const MAX_UNKNOWN: u64 = 16 << 10;
/// Messages below it are not counted: a client has buffers of that size anyway.
const ALLOWANCE: u64 = 16 << 10;
/// How long memory is waited for; then the WebSocket is closed.
pub(crate) const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    const MIB: usize = 1 << 20;

    fn metered_stream()
    -> (DuplexStream, MeteredStream<DuplexStream>, Arc<FrameMemory>, MemoryBudget) {
        let (client, server) = duplex(4 * MIB);
        let budget = MemoryBudget::new(MIB);
        let frame_memory = Arc::new(FrameMemory::new(8 * MIB, budget.share(MIB / 4)));
        (client, MeteredStream::new(server, Arc::clone(&frame_memory)), frame_memory, budget)
    }

    /// A frame as a client sends it, of `0`s.
    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match payload {
            0..126 => frame.push(0x80 | payload as u8),
            126..65536 => {
                frame.push(0x80 | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.resize(frame.len() + payload, 0);
        frame
    }

    #[test]
    fn headers_are_read_once_they_are_whole() {
        for (first, payload) in [(0x81, 0), (0x82, 125), (0x02, 126), (0x80, 65535), (0x89, 70000)]
        {
            let frame = frame(first, payload);
            let length = frame.len() - payload;
            assert!((0..length).all(|cut| Header::read(&frame[..cut]).is_none()));
            let header = Header::read(&frame).expect("whole");
            assert_eq!((header.length, header.payload), (length, payload as u64));
            assert_eq!((header.is_final, header.is_data), (first & 0x80 != 0, first < 0x88));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_message_waits_until_its_client_is_known() {
        let (mut client, mut server, frame_memory, budget) = metered_stream();
        let (small, large) = (frame(0x81, 16 << 10), frame(0x82, MIB / 2));
        client.write_all(&[&small[..], &large].concat()).await.expect("sent");
        let mut read = vec![0; small.len()];
        server.read_exact(&mut read).await.expect("read");
        assert_eq!(read, small);
        let mut next = [0; 4096];
        assert!(timeout(Duration::from_secs(1), server.read(&mut next)).await.is_err());
        frame_memory.refused().await;
        assert!(server.read.len() <= 4096 && budget.available() == MIB, "little is held");
        frame_memory.set_share(budget.clone());
        let mut read = vec![0; large.len()];
        server.read_exact(&mut read).await.expect("read");
        assert_eq!(read, large);
        assert_eq!(budget.available(), MIB / 2, "until the next is asked for");
        assert!(timeout(Duration::from_secs(1), server.read(&mut next)).await.is_err());
        assert_eq!(budget.available(), MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn the_parts_of_a_message_are_counted_together() {
        let (mut client, mut server, frame_memory, budget) = metered_stream();
        let part = frame(0x01, 10 << 10);
        client
            .write_all(&[&part[..], &frame(0x89, 5), &frame(0x00, 7 << 10)].concat())
            .await
            .expect("sent");
        let mut read = vec![0; part.len() + frame(0x89, 5).len()];
        server.read_exact(&mut read).await.expect("read");
        let mut next = [0; 4096];
        assert!(timeout(Duration::from_secs(1), server.read(&mut next)).await.is_err());
        frame_memory.refused().await;
        frame_memory.set_share(budget.clone());
        server.read_exact(&mut next).await.expect("read");
        assert_eq!(budget.available(), MIB - (20 << 10), "17 KiB in steps of 4");
    }

    #[tokio::test(start_paused = true)]
    async fn without_memory_a_client_is_told() {
        let (mut client, mut server, frame_memory, budget) = metered_stream();
        frame_memory.set_share(budget.clone());
        let (mut most, mut beyond) = (budget.reservation(), budget.reservation());
        most.resize(MIB).await;
        beyond.resize(1).await;
        client.write_all(&frame(0x82, MIB)).await.expect("sent");
        let failed = server.read(&mut [0; 4096]).await.expect_err("no memory");
        assert_eq!(failed.kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(frame_memory.shortage(), Some(MemoryError::Unavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_of_a_message_can_be_kept_beyond_the_next() {
        let (mut client, mut server, frame_memory, budget) = metered_stream();
        frame_memory.set_share(budget.clone());
        let frame = frame(0x82, MIB / 2);
        client.write_all(&frame).await.expect("sent");
        server.read_exact(&mut vec![0; frame.len()]).await.expect("read");
        let kept = frame_memory.take_reservation().expect("it takes some");
        assert!(timeout(Duration::from_secs(1), server.read(&mut [0; 16])).await.is_err());
        assert_eq!(budget.available(), MIB / 2);
        drop(kept);
        assert_eq!(budget.available(), MIB);
        assert!(frame_memory.take_reservation().is_none());
    }

    #[tokio::test]
    async fn what_is_thrown_away_is_read_all_the_same() {
        let (mut client, mut server, frame_memory, _) = metered_stream();
        client.write_all(&frame(0x82, 2 * MIB)).await.expect("sent");
        drop(client);
        frame_memory.throw_away();
        assert_eq!(server.read(&mut [0; 16]).await.expect("an end"), 0);
    }
}
