//! The memory of answers that are whole before their clients have read them.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body::Body as _;
use splengine_core::{Caller, CallerBudgets, MemoryBudget, MemoryError, Reservation};

use crate::app::App;
use crate::problem::Problem;
use crate::revoked::Recognised;

/// What all answers share that lie in memory until they are read: a caller half of it, those who are
/// answered without credentials a quarter.
#[derive(Debug, Clone)]
pub(crate) struct AnswerBudgets {
    of_callers: CallerBudgets,
    unauthenticated: MemoryBudget,
}

impl AnswerBudgets {
    pub(crate) fn new(bytes: usize) -> Self {
        let whole = MemoryBudget::new(bytes);
        Self { of_callers: CallerBudgets::new(&whole), unauthenticated: whole.share(bytes / 4) }
    }

    fn reservation(&self, caller: Option<&Caller>) -> Reservation {
        let budget = match caller {
            Some(caller) => self.of_callers.of(caller.accounted_user()),
            None => self.unauthenticated.clone(),
        };
        budget.reservation().allowance(MIN_BYTES)
    }

    /// Reserves memory for what is going to be read for an answer, which can be asked for again.
    pub(crate) fn reserve(&self, caller: &Caller, bytes: usize) -> Result<Reservation, Problem> {
        let mut reservation = self.reservation(Some(caller));
        reservation.try_resize(bytes).map_err(refused)?;
        Ok(reservation)
    }
}

/// Among the extensions of an answer whose body is one that all clients share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedBody;

/// Reserves the memory of an answer that is whole until the last of it was written. What only looks is
/// refused where there is none; what has done something waits for a while first, lest its answer is
/// lost. Answers that are streamed have bounds of their own.
pub(crate) async fn reserve(State(app): State<App>, request: Request, next: Next) -> Response {
    let recognised = request.extensions().get::<Recognised>().cloned();
    let is_safe = request.method().is_safe();
    let response = next.run(request).await;
    let Some(bytes) = response.body().size_hint().exact() else { return response };
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes <= MIN_BYTES || response.extensions().get::<SharedBody>().is_some() {
        return response;
    }
    let caller = recognised.as_ref().and_then(Recognised::caller);
    let mut reservation = app.answers.reservation(caller);
    let reserved = if is_safe {
        reservation.try_resize(bytes).map_err(refused)
    } else {
        let within = reservation.resize_within(bytes, MEMORY_TIMEOUT).await;
        // No status by which clients do it again.
        within.map_err(|error| {
            let why = error.of_answer().split(';').next().unwrap_or_default();
            let detail = format!("it was done, but {why}: its answer is lost");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        })
    };
    if let Err(problem) = reserved {
        return problem.into_response();
    }
    let (parts, body) = response.into_parts();
    match to_bytes(body, bytes).await {
        // Whatever holds a part of it holds all of its memory.
        Ok(data) => {
            let data = Bytes::from_owner(Reserved { data, _reservation: reservation });
            Response::from_parts(parts, Body::from(data))
        }
        Err(error) => {
            tracing::error!(%error, "an answer can't be put together");
            let detail = "the server failed to answer";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
        }
    }
}

fn refused(error: MemoryError) -> Problem {
    Problem::of_kind(error.kind(), error.of_answer().to_string(), Some(error.retry_after()))
}

/// An answer, and the memory that is reserved for it.
struct Reserved {
    data: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Reserved {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// An answer of no more bytes is not counted.
const MIN_BYTES: usize = 4 << 10;
/// How long the answer to what has changed something waits for memory.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);
