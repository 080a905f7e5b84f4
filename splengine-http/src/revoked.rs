//! Ends the answers to callers whose credentials are taken back.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use splengine_core::{Caller, UserName};

use crate::problem::Problem;

/// Who a request is found to be from while it is answered; among its extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recognised(Arc<OnceLock<Caller>>);

impl Recognised {
    pub(crate) fn set(&self, caller: &Caller) {
        let _ = self.0.set(caller.clone());
    }

    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.0.get()
    }

    /// The caller's name, once it is known.
    pub(crate) fn user(&self) -> Option<&UserName> {
        self.0.get().map(Caller::user)
    }

    /// Resolves when the caller is revoked, once it is known that there is one who can be.
    fn revoked(&self) -> Option<Revoked> {
        let caller = self.0.get().filter(|caller| caller.is_revocable())?.clone();
        Some(Box::pin(async move { caller.revoked().await }))
    }
}

type Revoked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Gives a request up when its caller is revoked, as if the client had gone: what it runs is cancelled.
/// An answer that has begun is broken off, never ended as if it were whole.
pub(crate) async fn end_with_caller(mut request: Request, next: Next) -> Response {
    let recognised = Recognised::default();
    request.extensions_mut().insert(recognised.clone());
    let mut answering = std::pin::pin!(next.run(request));
    let mut revoked = None;
    let answered = poll_fn(|cx| {
        if let Poll::Ready(response) = answering.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        if revoked.is_none() {
            revoked = recognised.revoked();
        }
        let revoked = revoked.as_mut().map(|revoked| revoked.as_mut().poll(cx));
        if revoked.is_some_and(|revoked| revoked.is_ready()) {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    });
    let Some(response) = answered.await else {
        let detail = "the credentials were taken back";
        return Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    };
    // What is there already is sent at once.
    let is_short = response.body().size_hint().exact().is_some_and(|bytes| bytes <= SHORT);
    match revoked.or_else(|| recognised.revoked()) {
        Some(revoked) if !is_short => {
            response.map(|body| Body::new(UntilRevoked { body: Some(body), revoked }))
        }
        _ => response,
    }
}

/// A body that breaks off when its caller is revoked.
struct UntilRevoked {
    body: Option<Body>,
    revoked: Revoked,
}

#[derive(Debug, thiserror::Error)]
#[error("the caller's credentials were taken back")]
struct Broken;

impl http_body::Body for UntilRevoked {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.revoked.as_mut().poll(cx).is_ready() {
            this.body = None;
            return Poll::Ready(Some(Err(Broken.into())));
        }
        Pin::new(body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

/// In bytes: of an answer that is no longer than that, nothing waits.
const SHORT: u64 = 64 << 10;
