//! Results of a batch: the output of its steps, in the form that the client asks for.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use splengine_core::Caller;

use crate::answers::CountedBody;
use crate::auth::Authenticated;
use crate::context::Context;
use crate::dto::EncodingDto;
use crate::dto_batches::BatchResultDto;
use crate::problem::{Problem, ProblemDto};
use crate::query::Query;
use crate::result_formats::ResultFormat;
use crate::result_stream;
use crate::route_parameters::RouteParameters;
use crate::routes::extract::word;

/// What the steps of a batch that is over printed.
///
/// As one JSON object, or as a file in another form that the server has, by `Accept`. Of each
/// stream it holds 16 MiB, of all steps together.
#[utoipa::path(
    get, path = "/api/v1/batches/{id}/results", operation_id = "getBatchResults", tag = "batches",
    security(("bearer" = [])),
    params(
        ("id" = String, Path),
        ("outputEncoding" = Option<EncodingDto>, Query, description = "How output is encoded in \
            JSON; `utf8` when left out."),
    ),
    responses((status = 200, description = "All of it.", body = BatchResultDto),
        (status = 406, description = "There is no such form.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 409, description = "It is not over.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn results(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    RouteParameters([id]): RouteParameters<1>,
    request: Request,
) -> Result<Response, Problem> {
    let query = Query::of(request.uri().query(), &["outputEncoding"])?;
    let encoding = query.get("outputEncoding").map(|text| word("outputEncoding", text));
    let encoding = encoding.transpose()?.unwrap_or_default();
    let form = ResultFormat::wanted(&context.options.forms, request.headers())?;
    if !context.engine.batches().info(&caller, &id).await?.state.is_final() {
        return Err(Problem::new(StatusCode::CONFLICT, "the batch is not over"));
    }
    answer(&context, &caller, &id, form, move |_| encoding).await
}

/// The results of a batch that is over; in JSON each step's output is encoded as `encoding` says of
/// its place.
pub(crate) async fn answer(
    context: &Context,
    caller: &Caller,
    id: &str,
    form: Option<ResultFormat>,
    encoding: impl Fn(usize) -> EncodingDto + Send + Sync + 'static,
) -> Result<Response, Problem> {
    let results = context.engine.batches().result_reader(caller, id).await?;
    let record_bytes = results.record().memory_bytes();
    let Some(form) = form else {
        let bytes = record_bytes + result_stream::MEMORY_BYTES;
        let reserved = context.answers.reserve(caller, bytes)?;
        let mut response = result_stream::answer(results, encoding, reserved).await?;
        response.extensions_mut().insert(CountedBody);
        return Ok(response);
    };
    let _reserved = context.answers.reserve(caller, record_bytes + results.total_bytes())?;
    form.answer(results.read_all().await?).await
}
