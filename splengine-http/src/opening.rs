//! A connection as hyper gets it: its first bytes must come in time, and it is watched for a peer
//! that leaves while nobody reads.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt as _;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A connection whose first bytes must come in time.
///
/// hyper's header timeout begins once it knows the version; a client that sends nothing, or a part
/// of what HTTP/2 begins with (RFC 9113, section 3.4), would be waited for without end before.
pub(crate) struct Opening {
    stream: Arc<TcpStream>,
    /// `None` once the version is known.
    deadline: Option<Pin<Box<Sleep>>>,
    /// So many of the first bytes are those of HTTP/2.
    matched: usize,
}

/// Resolves when the peer has closed the connection, or its half of it, and what it sent last lies
/// unread.
///
/// hyper notices a peer that leaves when it reads, and it does not read while a program leaves its
/// input alone.
pub(crate) async fn peer_left(stream: &TcpStream) {
    let mut left_before = false;
    loop {
        sleep(LOOK).await;
        let ready = stream.ready(Interest::READABLE).now_or_never();
        let closed = matches!(ready, Some(Ok(ready)) if ready.is_read_closed());
        let unread = || {
            let peek = || SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
            matches!(stream.try_io(Interest::READABLE, peek), Ok(1..))
        };
        let left = closed && unread();
        if left && left_before {
            return;
        }
        left_before = left;
    }
}

impl Opening {
    pub(crate) fn new(stream: Arc<TcpStream>, within: Duration) -> Self {
        Self { stream, deadline: Some(Box::pin(sleep(within))), matched: 0 }
    }

    fn read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }

    fn write(
        &self,
        cx: &mut Context<'_>,
        attempt: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match attempt(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
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
        let read = self.read(cx, buffer);
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
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(Shutdown::Write))
    }
}

/// How often to look for a peer that left.
const LOOK: Duration = Duration::from_secs(1);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
