//! Executions that run or wait now.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use crate::answers;
use crate::auth::Authenticated;
use crate::context::Context;
use crate::dto::ExecutionListDto;
use crate::problem::{Problem, ProblemDto};
use crate::query::NoQuery;
use crate::route_parameters::RouteParameters;

/// Lists the caller's executions that run or wait; with the scope `admin`, those of all callers.
#[utoipa::path(
    get, path = "/api/v1/executions", operation_id = "listExecutions", tag = "execute",
    security(("bearer" = [])),
    responses((status = 200, description = "The oldest first.", body = ExecutionListDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
) -> Result<Response, Problem> {
    let executions = async { context.engine.executions(&caller) };
    let bytes = |all: &Vec<_>| ENTRY_BYTES * all.len();
    answers::list(&context.engine, &caller, executions, bytes, |all| {
        let executions = all.into_iter().map(Into::into).collect();
        Json(ExecutionListDto { executions }).into_response()
    })
    .await
}

/// Cancels an execution, whether it runs or waits: an own one, or with the scope `admin` any.
#[utoipa::path(
    delete, path = "/api/v1/executions/{id}", operation_id = "cancelExecution", tag = "execute",
    security(("bearer" = [])), params(("id" = String, Path)),
    responses((status = 204, description = "It is over."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn cancel(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    RouteParameters([id]): RouteParameters<1>,
    _: NoQuery,
) -> Result<StatusCode, Problem> {
    context.engine.cancel_execution(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// About the length of an entry of the list.
const ENTRY_BYTES: usize = 1 << 10;
