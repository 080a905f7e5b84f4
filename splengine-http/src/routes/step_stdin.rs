//! The standard input of a step that runs.

use axum::extract::{Request, State};
use axum::http::StatusCode;

use crate::auth::Authenticated;
use crate::context::Context;
use crate::headers::BodyKind;
use crate::problem::{Problem, ProblemDto};
use crate::query::Query;
use crate::route_parameters::RouteParameters;
use crate::routes::extract::read_whole;

/// Writes to the standard input of a step that runs and keeps it open.
///
/// It is answered when the program has read it, but for the last 64 KiB. What several clients write
/// at the same time is not mixed.
#[utoipa::path(
    post, path = "/api/v1/batches/{id}/steps/{step}/stdin", operation_id = "writeStepStdin",
    tag = "batches", security(("bearer" = [])),
    params(
        ("id" = String, Path),
        ("step" = String, Path),
        ("end" = Option<bool>, Query, description = "Ends it after that."),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, description = "It is written."),
        (status = 409, description = "The step does not run, did not ask for `stdin: \"open\"`, or \
            reads no more.", body = ProblemDto, content_type = "application/problem+json"),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn write(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    RouteParameters([id, step]): RouteParameters<2>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let batches = context.engine.batches();
    batches.check_submit(&caller)?;
    let (parts, body) = request.into_parts();
    let query = Query::of(parts.uri.query(), &["end"])?;
    let end = query.flag("end")?;
    if BodyKind::of(&parts.headers)? != BodyKind::Input {
        let detail = "Content-Type must be application/octet-stream";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let data = read_whole(&parts.headers, body, &context, &caller).await?;
    batches.write_stdin(&caller, &id, &step, data.to_vec().into(), end).await?;
    Ok(StatusCode::NO_CONTENT)
}
