//! Bodies of requests that were compressed for the way (`Content-Encoding`).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http_body::Body as _;
use splengine_core::quota::{CallerBudgets, MemoryBudget, MemoryError, Reservation};
use tokio::io::AsyncRead;
use tokio::sync::OnceCell;
use tokio::task::yield_now;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::problem::Problem;
use crate::revoked::Recognised;

/// The memory that decoders of compressed bodies may take: a part of that of all bodies. One caller may
/// have half of what the others leave; who is not known when the first of a body is read, a quarter together with all others
/// of whom nothing is known.
#[derive(Debug, Clone)]
pub(crate) struct DecoderBudgets {
    callers: CallerBudgets,
    unknown: MemoryBudget,
}

impl DecoderBudgets {
    /// Shares in `bytes` of `whole`.
    pub(crate) fn new(whole: &MemoryBudget, bytes: usize) -> Self {
        let all = whole.share(bytes);
        Self { callers: CallerBudgets::new(&all), unknown: all.share(bytes / 4) }
    }
}

/// Decodes the bodies of all requests. Whatever reads them is held to the same bounds as by plain
/// bodies, since it sees nothing but what was decoded.
pub(crate) async fn decode(
    State(budgets): State<DecoderBudgets>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let coding = match Coding::of(&parts.headers) {
        Ok(coding) => coding,
        Err(problem) => {
            let known = HeaderValue::from_static("gzip, zstd");
            return ([(ACCEPT_ENCODING, known)], problem).into_response();
        }
    };
    let Some(coding) = coding else { return next.run(Request::from_parts(parts, body)).await };
    parts.headers.remove(CONTENT_ENCODING);
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    parts.headers.remove(CONTENT_LENGTH);
    let memory = Arc::new(DecoderMemory {
        bytes: coding.memory(),
        budgets,
        recognised: parts.extensions.get::<Recognised>().cloned().unwrap_or_default(),
        reservation: OnceCell::new(),
    });
    // What is known of the request may be kept for much longer than its body.
    parts.extensions.insert(Decoder(Arc::downgrade(&memory)));
    let body = decoded(coding, body, memory);
    next.run(Request::from_parts(parts, body)).await
}

/// The decoder of a request's body, among the extensions of the request.
#[derive(Debug, Clone)]
pub(crate) struct Decoder(Weak<DecoderMemory>);

/// The memory of the decoder of one body. Nothing is reserved before it is asked for: who is not let in
/// takes none.
#[derive(Debug)]
struct DecoderMemory {
    bytes: usize,
    budgets: DecoderBudgets,
    /// Set by then where credentials are looked at before the body.
    recognised: Recognised,
    /// Given back with the body.
    reservation: OnceCell<Reservation>,
}

impl Decoder {
    /// Reserves the memory that it takes, if that was not done already; waits for it for 5 s at most.
    ///
    /// # Errors
    ///
    /// [`DecodeError::NoMemory`] and [`DecodeError::NoMemoryOfCaller`].
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing is reserved.
    pub(crate) async fn reserve(&self) -> Result<(), DecodeError> {
        match self.0.upgrade() {
            Some(memory) => memory.reserve().await,
            // Nor is there a body any more.
            None => Ok(()),
        }
    }
}

impl DecoderMemory {
    async fn reserve(&self) -> Result<(), DecodeError> {
        let Self { bytes, budgets, recognised, reservation } = self;
        let reserved = reservation.get_or_try_init(|| async {
            let user = recognised.user();
            let budget =
                user.map_or_else(|| budgets.unknown.clone(), |user| budgets.callers.of(user));
            let mut reservation = budget.reservation();
            match reservation.resize_within(*bytes, MEMORY_TIMEOUT).await {
                Ok(()) => Ok(reservation),
                Err(MemoryError::CallerLimit) => Err(DecodeError::NoMemoryOfCaller),
                Err(_) => Err(DecodeError::NoMemory),
            }
        });
        reserved.await.map(drop)
    }
}

/// How a body was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    /// How many bytes its decoder takes.
    fn memory(self) -> usize {
        match self {
            Self::Gzip => GZIP_BYTES,
            Self::Zstd => 1 << ZSTD_WINDOW_LOG,
        }
    }

    /// `None` for a body that is sent as it is.
    fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let values = headers.get_all(CONTENT_ENCODING).iter();
        let names = values.flat_map(|value| value.to_str().unwrap_or("?").split(','));
        let mut coding = None;
        for name in names.map(str::trim).filter(|name| !name.is_empty()) {
            let named = match name.to_ascii_lowercase().as_str() {
                "identity" => continue,
                "gzip" | "x-gzip" => Self::Gzip,
                "zstd" => Self::Zstd,
                _ => return Err(refused()),
            };
            // Compressed twice is for bombs alone.
            if coding.replace(named).is_some() {
                return Err(refused());
            }
        }
        Ok(coding)
    }
}

/// Refuses a compressed body: for services that decode none.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    !matches!(Coding::of(headers), Ok(None))
}

fn refused() -> Problem {
    let detail = "Content-Encoding must be gzip or zstd, and no more than one of them";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}

/// Why a compressed body can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the body is not what its Content-Encoding says")]
    Malformed(#[source] io::Error),
    #[error("the server has no memory left to decode this body; try again in a second")]
    NoMemory,
    #[error(
        "compressed bodies of yours that are not complete take all of the memory that one caller may \
         have for them; try again in a second"
    )]
    NoMemoryOfCaller,
}

impl DecodeError {
    /// Finds it among the causes of an error.
    pub(crate) fn among<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        causes.find_map(|error| {
            // What an I/O error was made of is not among its sources, only that one's source is.
            let inner = error.downcast_ref().and_then(io::Error::get_ref);
            let inner = inner.and_then(|inner| inner.downcast_ref());
            inner.or_else(|| error.downcast_ref())
        })
    }
}

/// What comes from the client, apart from what is wrong with what it holds.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
struct BrokenOff(#[source] axum::Error);

fn decoded(coding: Coding, body: Body, memory: Arc<DecoderMemory>) -> Body {
    let body = body.into_data_stream().map_err(|error| io::Error::other(BrokenOff(error)));
    let body = StreamReader::new(body);
    let decoder: Pin<Box<dyn AsyncRead + Send>> = match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(body);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Coding::Zstd => {
            let window = DParameter::window_log_max(ZSTD_WINDOW_LOG);
            let mut decoder = ZstdDecoder::with_params(body, &[window]);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
    };
    let begin = Begin { decoder, memory };
    Body::from_stream(stream::once(begin.run()).try_flatten())
}

/// A body of which nothing was asked for yet.
struct Begin {
    decoder: Pin<Box<dyn AsyncRead + Send>>,
    memory: Arc<DecoderMemory>,
}

impl Begin {
    async fn run(
        self,
    ) -> Result<impl futures_util::Stream<Item = Result<bytes::Bytes, io::Error>>, io::Error> {
        let memory = self.memory;
        memory.reserve().await.map_err(io::Error::other)?;
        // Decoding takes much longer than reading: a worker of the runtime looks after others in between.
        let pieces = ReaderStream::with_capacity(self.decoder, PIECE).then(async |piece| {
            yield_now().await;
            piece
        });
        Ok(pieces.map_err(move |error| {
            // Given back when the body is dropped.
            let _ = &memory;
            let inner = error.get_ref();
            if inner.is_some_and(|inner| inner.is::<BrokenOff>()) {
                return error;
            }
            io::Error::other(DecodeError::Malformed(error))
        }))
    }
}

/// The largest window of `zstd` as a content coding (RFC 9659): 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;
/// About what decoding `gzip` takes: its window, and the tables of its codes.
const GZIP_BYTES: usize = 64 << 10;
const PIECE: usize = 16 << 10;
/// How long memory is waited for.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use async_compression::tokio::write::GzipEncoder;
    use futures_util::poll;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn decoding_lets_others_run_after_each_piece() {
        let mut encoder = GzipEncoder::new(Vec::new());
        encoder.write_all(&vec![0; 64 * PIECE]).await.expect("in memory");
        encoder.shutdown().await.expect("in memory");
        let budget = MemoryBudget::new(1 << 20);
        let memory = DecoderMemory {
            bytes: Coding::Gzip.memory(),
            budgets: DecoderBudgets::new(&budget, 1 << 20),
            recognised: Recognised::default(),
            reservation: OnceCell::new(),
        };
        let body = decoded(Coding::Gzip, Body::from(encoder.into_inner()), Arc::new(memory));
        let mut pieces = pin!(body.into_data_stream());
        let (mut turns, mut bytes) = (0, 0);
        loop {
            match poll!(pieces.next()) {
                std::task::Poll::Pending => {
                    turns += 1;
                    yield_now().await;
                }
                std::task::Poll::Ready(Some(piece)) => bytes += piece.expect("valid").len(),
                std::task::Poll::Ready(None) => break,
            }
        }
        assert_eq!(bytes, 64 * PIECE);
        assert!(turns >= 64, "{turns} turns of others");
    }
}
