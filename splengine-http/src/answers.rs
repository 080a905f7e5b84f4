//! The memory of answers that are whole before their clients have read them.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use splengine_core::Caller;
use splengine_core::Engine;
use splengine_core::quota::{
    CallerBudgets, LargeWork, LargeWorkPermit, MemoryBudget, MemoryError, Reservation,
};

use crate::problem::Problem;
use crate::revoked::Recognised;

/// What all answers share that lie in memory until they are read: a caller half of what the others leave, those who are
/// answered without credentials a quarter.
#[derive(Debug, Clone)]
pub(crate) struct AnswerBudgets {
    of_callers: CallerBudgets,
    unauthenticated: MemoryBudget,
}

impl AnswerBudgets {
    pub(crate) fn new(engine: &Engine, bytes: usize) -> Self {
        let whole = engine.memory_budget(bytes);
        Self { of_callers: CallerBudgets::new(&whole), unauthenticated: whole.share(bytes / 4) }
    }

    /// Reserves memory for what is going to be read for an answer, which can be asked for again.
    pub(crate) fn reserve(&self, caller: &Caller, bytes: usize) -> Result<Reservation, Problem> {
        let mut reservation = self.of_callers.of(caller.accounted_user()).reservation();
        reservation.try_resize(bytes).map_err(refused)?;
        Ok(reservation)
    }

    /// Reserves memory for an answer that is there. That to work that is done waits a while for it.
    async fn reserve_answer(
        &self,
        caller: Option<&Caller>,
        bytes: usize,
        is_done: bool,
    ) -> Result<Reservation, MemoryError> {
        match caller {
            Some(caller) => {
                self.of_callers.reserve_answer(caller.accounted_user(), bytes, is_done).await
            }
            None => {
                let mut reservation = self.unauthenticated.reservation();
                reservation.try_resize(bytes)?;
                Ok(reservation)
            }
        }
    }

    /// The same for an answer of `bytes` to what was done for `caller`.
    pub(crate) async fn reserve_done(
        &self,
        caller: &Caller,
        bytes: usize,
    ) -> Result<Reservation, Problem> {
        self.reserve_answer(Some(caller), bytes, true).await.map_err(|error| lost(&error))
    }
}

/// No status by which clients do it again.
fn lost(error: &MemoryError) -> Problem {
    let detail = format!("it was done, but {}: its answer is lost", error.of_answer());
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
}

/// Puts a list together in the turn of its caller, of whom one list is put together at a time, and writes it:
/// apart from the runtime's workers if it is of many `bytes`. The turn lasts until [`reserve`] has the
/// memory of the answer.
pub(crate) async fn list<T: Send + 'static, E: Into<Problem>>(
    engine: &Engine,
    caller: &Caller,
    put_together: impl Future<Output = Result<T, E>>,
    bytes: impl FnOnce(&T) -> usize,
    write: impl FnOnce(T) -> Response + Send + 'static,
) -> Result<Response, Problem> {
    let (work, user) = (engine.large_work(), caller.accounted_user());
    let permit = work.permit(user, LargeWork::MAX_PAGE_BYTES).await?;
    let list = put_together.await.map_err(Into::into)?;
    let mut response = match bytes(&list) {
        0..LargeWork::MIN_BYTES => write(list),
        _ => permit.run(move || write(list)).await?,
    };
    response.extensions_mut().insert(permit);
    Ok(response)
}

/// Among the extensions of an answer whose body is one that all clients share, or has its memory reserved
/// already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CountedBody;

/// Reserves the memory of an answer that is whole until the last of it was written. What only looks is
/// refused where there is none; what has done something waits for a while first, lest its answer is
/// lost. An answer that is streamed takes [`STREAM_BYTES`] until its end, unless it is of a run, which has
/// bounds of its own: there may be thousands at once.
pub(crate) async fn reserve(
    State(budgets): State<AnswerBudgets>,
    request: Request,
    next: Next,
) -> Response {
    let recognised = request.extensions().get::<Recognised>().cloned();
    let is_safe = request.method().is_safe();
    let mut response = next.run(request).await;
    // That of a list, which was put together outside of any budget.
    let _permit = response.extensions_mut().remove::<LargeWorkPermit>();
    if response.extensions().get::<CountedBody>().is_some() {
        return response;
    }
    let caller = recognised.as_ref().and_then(Recognised::caller);
    let Some(bytes) = response.body().size_hint().exact() else {
        if !is_safe {
            return response;
        }
        let reservation = match budgets.reserve_answer(caller, STREAM_BYTES, false).await {
            Ok(reservation) => reservation,
            Err(error) => return refused(error).into_response(),
        };
        return response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _until_the_end = &reservation;
                frame
            }))
        });
    };
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes <= MIN_BYTES {
        return response;
    }
    let reservation = match budgets.reserve_answer(caller, bytes, !is_safe).await {
        Ok(reservation) => reservation,
        Err(error) if is_safe => return refused(error).into_response(),
        Err(error) => {
            // They can look where it is.
            let location = response.headers().get(LOCATION).cloned();
            drop(response);
            let mut answer = lost(&error).into_response();
            answer.headers_mut().extend(location.map(|location| (LOCATION, location)));
            return answer;
        }
    };
    let (parts, body) = response.into_parts();
    match to_bytes(body, bytes).await {
        Ok(data) => Response::from_parts(parts, Body::from(reservation.hold(data))),
        Err(error) => {
            tracing::error!(%error, "an answer can't be put together");
            let detail = "the server failed to answer";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
        }
    }
}

fn refused(error: MemoryError) -> Problem {
    let detail = format!("{}; {}", error.of_answer(), error.advice_on_answer());
    Problem::of_kind(error.kind(), detail, Some(error.retry_after()))
}

/// What an answer that is streamed holds: the piece that was read last, and what its form makes of it.
const STREAM_BYTES: usize = 128 << 10;
/// An answer of no more bytes is not counted.
const MIN_BYTES: usize = 4 << 10;
