//! The body of a response, as hyper gets it: until its end its request is worked at.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use splengine_core::net::Activity;

/// A body that holds its request's [`Activity`] until the last of it was written. It hands on small
/// pieces, of which hyper takes as many as the client has room for: of one large piece nobody knows
/// how much the client has read.
pub(crate) struct Tracked<B> {
    /// None of a refusal.
    body: Option<B>,
    /// What is left of the last piece.
    rest: Bytes,
    activity: Option<Arc<Activity>>,
    max_piece: usize,
}

impl<B> Tracked<B> {
    /// The body of an answer, which is one stream of several or all that is written.
    pub(crate) fn new(body: B, activity: Activity, is_stream: bool) -> Self {
        activity.set_waits_for_client(true);
        let max_piece = if is_stream { MAX_STREAM_PIECE_BYTES } else { MAX_PIECE_BYTES };
        Self { body: Some(body), rest: Bytes::new(), activity: Some(Arc::new(activity)), max_piece }
    }

    /// The body of a refusal of a request that is one stream of several.
    pub(crate) fn whole(rest: Bytes, activity: Activity) -> Self {
        activity.set_waits_for_client(!rest.is_empty());
        let activity = (!rest.is_empty()).then(|| Arc::new(activity));
        Self { body: None, rest, activity, max_piece: MAX_STREAM_PIECE_BYTES }
    }

    fn set_waits_for_client(&self, waits: bool) {
        if let Some(activity) = &self.activity {
            activity.set_waits_for_client(waits);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Tracked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.rest.is_empty() {
            // Whoever asks has room for some of it.
            self.set_waits_for_client(false);
            let frame = match &mut self.body {
                Some(body) => ready!(Pin::new(body).poll_frame(cx)),
                None => None,
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.activity = None;
                    return Poll::Ready(None);
                }
            }
        }
        let length = self.rest.len().min(self.max_piece);
        let mut piece = self.rest.split_to(length);
        if let Some(activity) = &self.activity {
            activity.set_waits_for_client(true);
            piece = activity.hand_out(piece);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

const MAX_PIECE_BYTES: usize = 64 << 10;
/// Of one stream among others: as much as one frame of HTTP/2 has.
const MAX_STREAM_PIECE_BYTES: usize = 16 << 10;
