//! A request's body as a program's standard input.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use http_body::Body as _;
use splengine_core::execute::Stopper;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;

/// Reads a body as it arrives, and no faster than it is read.
///
/// A body that breaks off is no end of file: a program must not take half its input for the whole.
/// The reader then gives nothing more, and its [`Breakage`] ends the run.
pub(crate) struct BodyReader {
    body: Body,
    chunk: Bytes,
    broken: Option<oneshot::Sender<()>>,
}

/// Hears that a body broke off.
pub(crate) struct Breakage(oneshot::Receiver<()>);

impl BodyReader {
    pub(crate) fn new(body: Body) -> (Self, Breakage) {
        let (broken, breakage) = oneshot::channel();
        (Self { body, chunk: Bytes::new(), broken: Some(broken) }, Breakage(breakage))
    }
}

impl Breakage {
    /// Ends the run when the body breaks off.
    pub(crate) fn stops(self, stopper: Stopper) {
        tokio::spawn(async move {
            // An error means that the reader is gone: all was read, or nobody wanted it.
            if self.0.await.is_ok() {
                stopper.stop();
            }
        });
    }
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            if self.broken.is_none() {
                // Asked once more, the body might give an end.
                return Poll::Pending;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => {
                    if let Some(broken) = self.broken.take() {
                        let _ = broken.send(());
                    }
                    return Poll::Pending;
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = buffer.remaining().min(self.chunk.len());
        buffer.put_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        Poll::Ready(Ok(()))
    }
}
