//! Bodies that are answered before they have been read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::http::{HeaderMap, Version};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Lets the bodies of all requests linger.
///
/// A client that still sends when its connection or stream is closed may never see its answer: TCP
/// throws that away on a reset, and some clients of HTTP/2 take the end of the answer for an error
/// while they send. So what is left of a body is read and thrown away, within bounds, and over
/// HTTP/2 an answer in one piece, and the end of a stream, wait for that.
pub(crate) async fn linger(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let hold_end = request.version() == Version::HTTP_2;
    let (over, body_over) = oneshot::channel();
    let (parts, body) = request.into_parts();
    let mut body = Lingering::new(&parts.headers, body);
    body.over = Some(over);
    let response = next.run(Request::from_parts(parts, Body::new(body))).await;
    if !hold_end {
        response
    } else if response.body().size_hint().exact().is_some() {
        // Clients that know from its length that they have it all make no haste with the rest.
        let _ = body_over.await;
        response
    } else {
        response.map(|body| Body::new(HeldEnd { body, ended: false, body_over: Some(body_over) }))
    }
}

/// A request's body. What is left of it when it is dropped is read and thrown away, within bounds of
/// time and bytes.
pub(crate) struct Lingering {
    body: Body,
    /// Its client waits to be told to send (`Expect: 100-continue`), which the first read does.
    waits_for_word: bool,
    is_over: bool,
    /// Dropped when nothing more is read.
    over: Option<oneshot::Sender<()>>,
}

impl Lingering {
    pub(crate) fn new(headers: &HeaderMap, body: Body) -> Self {
        let waits_for_word = headers.contains_key(EXPECT);
        Self { is_over: body.is_end_stream(), body, waits_for_word, over: None }
    }
}

impl http_body::Body for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waits_for_word = false;
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.is_over = true;
            self.over = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.is_over || self.waits_for_word || self.body.is_end_stream() {
            return;
        }
        let (over, mut body) = (self.over.take(), std::mem::take(&mut self.body));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(LINGER, async move {
                let mut left = MAX_LINGER_BYTES;
                while let Ok(Some(Ok(frame))) = timeout(READ_TIMEOUT, body.frame()).await {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    let Some(rest) = left.checked_sub(length) else { break };
                    left = rest;
                }
                drop(over);
            }));
        }
    }
}

/// A response's body whose end comes no sooner than the end of the request's.
struct HeldEnd {
    body: Body,
    ended: bool,
    body_over: Option<oneshot::Receiver<()>>,
}

impl http_body::Body for HeldEnd {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.ended {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.ended = true,
                frame => return Poll::Ready(frame),
            }
        }
        if let Some(body_over) = &mut self.body_over {
            let _ = ready!(Pin::new(body_over).poll(cx));
            self.body_over = None;
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How much of the rest of a body is read; over it the connection, or the stream, is closed.
const MAX_LINGER_BYTES: usize = 64 << 20;
/// How long the rest of a body is read in all, and how long a piece of it is waited for.
const LINGER: Duration = Duration::from_secs(30);
const READ_TIMEOUT: Duration = Duration::from_secs(2);
