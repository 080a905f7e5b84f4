//! Bodies that are answered before they have been read.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

/// A request's body. What is left of it when it is dropped is read and thrown away, for
/// [`LINGER`] at most: a client that still sends when the connection is closed may never see its
/// answer, since a TCP stack throws that away on a reset.
struct Lingering {
    body: Body,
    ended: bool,
}

/// Lets the bodies of all requests linger, but those whose clients wait to be told to send
/// (`Expect: 100-continue`): reading would tell them.
pub(crate) async fn linger(request: Request, next: Next) -> Response {
    if request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    next.run(request.map(|body| Body::new(Lingering { ended: body.is_end_stream(), body }))).await
}

impl http_body::Body for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.ended |= matches!(frame, Poll::Ready(None | Some(Err(_))));
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
        if self.ended || self.body.is_end_stream() {
            return;
        }
        let mut body = std::mem::take(&mut self.body);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(LINGER, async move {
                while let Ok(Some(Ok(_))) = timeout(SILENCE, body.frame()).await {}
            }));
        }
    }
}

/// How long the rest of a body is read in all, and how long a piece of it is waited for; as nginx
/// does (`lingering_time`, `lingering_timeout`).
const LINGER: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(5);
