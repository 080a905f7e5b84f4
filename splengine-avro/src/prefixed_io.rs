//! A connection of which some bytes were read to recognise its protocol.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gives what was read before, then what the stream does.
#[derive(Debug)]
pub(crate) struct Rewind<S> {
    read: BytesMut,
    stream: S,
    /// Of a handshake, how many bytes more it may read.
    left: Option<usize>,
}

impl<S> Rewind<S> {
    pub(crate) fn new(read: BytesMut, stream: S) -> Self {
        Self { read, stream, left: None }
    }

    /// The same for a handshake, which may read `max_bytes` until the bound is [lifted](Self::lift).
    #[cfg(feature = "tls")]
    pub(crate) fn bounded(read: BytesMut, stream: S, max_bytes: usize) -> Self {
        Self { left: Some(max_bytes), ..Self::new(read, stream) }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn lift(&mut self) {
        self.left = None;
    }
}

impl<S: AsyncRead + Unpin> Rewind<S> {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..length]);
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = match self.left {
            None => return self.poll_next(cx, buffer),
            Some(0) => {
                let problem = "its handshake is too long";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
            }
            Some(left) => left,
        };
        // One read may get what follows the handshake, too: it is left for later.
        let space = left.min(buffer.remaining());
        let mut bounded = ReadBuf::new(buffer.initialize_unfilled_to(space));
        ready!(self.poll_next(cx, &mut bounded))?;
        let read = bounded.filled().len();
        buffer.advance(read);
        self.left = Some(left - read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
