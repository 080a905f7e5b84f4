//! Bodies of requests, read whole.

use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{HeaderValue, StatusCode};
use http_body::Body as _;
use splengine_core::quota::{GatherError, GatherLimits, Gathered, MemoryError};

use crate::encoded::{DecodeError, is_encoded};
use crate::lingering_close::Lingering;
use crate::problem::Problem;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body that was not read.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct BodyError {
    status: StatusCode,
    detail: String,
    retry_after: Option<Duration>,
}

impl BodyError {
    /// Returns the status of the answer: 413 for one that is too large, 408 for one that did not arrive
    /// in time, 415 for one that is compressed, 503 where there is no memory for it, 429 where its
    /// caller's own share of that is used up, 400 for one that broke off.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the time after which to try again, if that can help, for `Retry-After`.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl From<&DecodeError> for BodyError {
    fn from(error: &DecodeError) -> Self {
        let (status, retry_after) = match error {
            DecodeError::Malformed(_) => (StatusCode::BAD_REQUEST, None),
            DecodeError::NoMemory => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER)),
            DecodeError::NoMemoryOfCaller => (StatusCode::TOO_MANY_REQUESTS, Some(RETRY_AFTER)),
        };
        Self { status, detail: error.to_string(), retry_after }
    }
}

impl<E: std::error::Error + 'static> From<GatherError<E>> for BodyError {
    fn from(error: GatherError<E>) -> Self {
        let decoding = match &error {
            GatherError::Broken(source) => DecodeError::among(source),
            _ => None,
        };
        if let Some(error) = decoding {
            return error.into();
        }
        let (status, detail, retry_after) = match error {
            GatherError::TooLarge { max_bytes } => {
                let detail = format!("the body is over {max_bytes} bytes");
                (StatusCode::PAYLOAD_TOO_LARGE, detail, None)
            }
            GatherError::TooSlow { .. } => {
                let detail = "the body did not arrive in time".to_owned();
                (StatusCode::REQUEST_TIMEOUT, detail, None)
            }
            GatherError::Broken(_) => {
                (StatusCode::BAD_REQUEST, "the body broke off".to_owned(), None)
            }
            GatherError::NoMemory(error @ MemoryError::CallerLimit) => {
                (StatusCode::TOO_MANY_REQUESTS, error.to_string(), Some(error.retry_after()))
            }
            GatherError::NoMemory(error) => {
                (StatusCode::SERVICE_UNAVAILABLE, error.to_string(), Some(error.retry_after()))
            }
            _ => {
                let detail = "the body was not read".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, detail, Some(RETRY_AFTER))
            }
        };
        Self { status, detail, retry_after }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        Self::new(error.status(), error.to_string()).retry_after(error.retry_after())
    }
}

/// Reads the body of a request whole, within bounds of its size, its time and the memory of all
/// bodies together. A body whose `Content-Length` is over the bound is refused unread; a client waiting
/// for `100-continue` is otherwise told to send.
///
/// A body that is compressed (`Content-Encoding`) is refused; [`HttpService`](crate::HttpService)
/// has decoded those of its own requests before.
///
/// What is left of a body that is refused, or whose reading was given up, is read and thrown away in
/// the background for 30 s at most, and for 2 s at most after its last piece: a client that still
/// sends when its connection is closed may never see its answer.
///
/// # Errors
///
/// [`BodyError`] when a bound is reached, or the body breaks off.
///
/// # Cancel safety
///
/// When the future is dropped, what was read is lost and its memory given back.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::quota::{GatherLimits, MemoryBudget};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let budget = MemoryBudget::new(256 << 20);
/// let limits = GatherLimits::new(4 << 10, Duration::from_secs(10), &budget);
/// let request = http::Request::post("/login").body("hello".to_owned())?;
/// let (head, body) = request.into_parts();
/// let read = splengine_http::read_body(&head.headers, body, &limits).await?;
/// assert_eq!(&read[..], b"hello");
/// # Ok(())
/// # }
/// ```
pub async fn read_body<B>(
    headers: &HeaderMap,
    body: B,
    limits: &GatherLimits,
) -> Result<Gathered, BodyError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut body = Lingering::new(headers, Body::new(body));
    if is_encoded(headers) {
        let detail = "Content-Encoding must be left out here".to_owned();
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(BodyError { status, detail, retry_after: None });
    }
    limits.check::<axum::Error>(announced_length(headers).unwrap_or(0))?;
    limits.check::<axum::Error>(body.size_hint().lower())?;
    let pieces = limits.gather(move |cx| {
        Pin::new(&mut body).poll_frame(cx).map_ok(|frame| frame.into_data().unwrap_or_default())
    });
    Ok(pieces.await?)
}

/// What `Content-Length` says.
pub(crate) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).map(HeaderValue::to_str)?.ok()?.parse().ok()
}

/// How soon memory may be free again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
