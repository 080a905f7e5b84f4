//! Batches.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use splengine_core::batch::{BatchEvents, BatchFilter, BatchList, BatchRecord, BatchState};
use splengine_core::{BatchError, BatchRequest, Caller, Field};
use tokio::time::timeout;

use crate::answers::{self, CountedBody};
use crate::auth::Authenticated;
use crate::context::Context;
use crate::dto_batch_requests::BatchRequestDto;
use crate::dto_batches::{BatchDto, BatchEventDto, BatchListDto, BatchRecordDto, BatchResultDto};
use crate::headers::{demand_json, header, idempotency_key};
use crate::json;
use crate::negotiate::EVENTS;
use crate::problem::{Problem, ProblemDto};
use crate::query::{NoQuery, Query};
use crate::result_formats::ResultFormat;
use crate::route_parameters::RouteParameters;
use crate::routes::extract::{read_whole, work_on_body};
use crate::routes::results;
use crate::silence::Silence;
use crate::stream::as_it_comes;

/// Submits a batch.
///
/// It is on disk when it is answered, and is run to its end, or truthfully reported, whatever
/// becomes of the server.
#[utoipa::path(
    post, path = "/api/v1/batches", operation_id = "submitBatch", tag = "batches",
    security(("bearer" = [])), request_body = BatchRequestDto,
    params(
        ("wait" = Option<String>, Query, description = "`true`: answer when it is over, with what its \
            steps printed, in the form that `Accept` asks for. A whole number, from 1 to 3600: wait \
            so many seconds for that at most, and answer as without `wait` then."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition return the \
            batch that was made first."),
    ),
    responses((status = 200, description = "With `wait`: it is over.", body = BatchResultDto),
        (status = 202, description = "It is accepted, and not over in the time that `wait` says.",
            body = BatchRecordDto,
            headers(("Location" = String, description = "Where it is."))),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 503, description = "Full, or shutting down.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 507, description = "No room.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn submit(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    context.engine.batches().check_submit(&caller)?;
    let (parts, body) = request.into_parts();
    demand_json(&parts.headers)?;
    let query = Query::of(parts.uri.query(), &["wait"])?;
    // Whoever does not wait is answered in JSON.
    let wait = match wait(&query)? {
        Some(time) => Some((time, ResultFormat::wanted(&context.options.forms, &parts.headers)?)),
        None => None,
    };
    let body = read_whole(&parts.headers, body, &context, &caller).await?;
    let max = context.engine.batches().max_steps();
    let parse = move |body: &[u8]| {
        if json::is_longer(body, "steps", max) {
            let problem = format!("are over the maximum of {max}");
            return Err(Problem::from(BatchError::Malformed { field: Field::Steps, problem }));
        }
        let dto: BatchRequestDto = json::parse(body)?;
        let encodings = dto.encodings();
        Ok((dto.into_request()?, encodings))
    };
    // Held until the batch is there: a large one takes many times the memory of its text.
    let ((request, encodings), permit) = work_on_body(body, &context, &caller, parse).await?;
    let record =
        accept(&context, &caller, request.large_work_permit(permit.clone()), &parts.headers)
            .await?;
    let Some((wait, form)) = wait else {
        drop(permit);
        return Ok(answer_done(&context, &caller, record, accepted).await);
    };
    let (batches, id) = (context.engine.batches(), record.info.id.to_string());
    let id = id.as_str();
    // It may take much memory, and long.
    permit.run(|| drop(record)).await?;
    drop(permit);
    match timeout(wait, batches.wait_info(&caller, id)).await {
        Ok(over) => drop(over?),
        Err(_) => {
            let record = match batches.get(&caller, id).await {
                Err(BatchError::ReadLimit(_)) => batches.info(&caller, id).await?.into(),
                record => record?,
            };
            return Ok(answer_done(&context, &caller, record, accepted).await);
        }
    }
    let encoding = move |place| encodings.get(place).copied().unwrap_or_default();
    match results::answer(&context, &caller, id, form, encoding).await {
        // It was done, and is told without what takes memory.
        Err(problem) if problem.is_shortage() => {
            Ok(accepted(batches.info(&caller, id).await?.into()))
        }
        answer => answer,
    }
}

/// How long to wait for a batch to be over, if at all.
fn wait(query: &Query) -> Result<Option<Duration>, Problem> {
    match query.get("wait") {
        None | Some("false") => Ok(None),
        Some("true") => Ok(Some(Duration::MAX)),
        Some(text) => match text.parse() {
            Ok(seconds @ 1..=MAX_WAIT_SECONDS) => Ok(Some(Duration::from_secs(seconds))),
            _ => Err(Problem::malformed(format!(
                "`wait` must be true, false or a whole number of seconds from 1 to \
                 {MAX_WAIT_SECONDS}"
            ))),
        },
    }
}

/// Submits what a request asks for, under the key that its headers name.
pub(crate) async fn accept(
    context: &Context,
    caller: &Caller,
    request: BatchRequest,
    headers: &HeaderMap,
) -> Result<BatchRecord, Problem> {
    let key = idempotency_key(headers)?;
    Ok(context.engine.batches().submit(caller, request, key).await?.record)
}

/// Answers with a record, which `write` writes: apart from the runtime's workers if it is large.
async fn answer_with(
    context: &Context,
    caller: &Caller,
    record: BatchRecord,
    write: fn(BatchRecord) -> Response,
) -> Result<Response, Problem> {
    let (user, bytes) = (caller.accounted_user(), record.memory_bytes());
    let permit = context.engine.large_work().permit(user, bytes).await?;
    Ok(permit.run(move || write(record)).await?)
}

/// The same for what was done: where it does not get its turn, the record is told without its steps.
pub(crate) async fn answer_done(
    context: &Context,
    caller: &Caller,
    record: BatchRecord,
    write: fn(BatchRecord) -> Response,
) -> Response {
    let info = record.info.clone();
    answer_with(context, caller, record, write).await.unwrap_or_else(|_| write(info.into()))
}

fn told(record: BatchRecord) -> Response {
    Json(BatchRecordDto::from(record)).into_response()
}

pub(crate) fn accepted(record: BatchRecord) -> Response {
    let location = format!("/api/v1/batches/{}", record.info.id);
    let body = Json(BatchRecordDto::from(record));
    (StatusCode::ACCEPTED, [(LOCATION, header(&location))], body).into_response()
}

/// The caller's batches.
#[utoipa::path(
    get, path = "/api/v1/batches", operation_id = "listBatches", tag = "batches",
    security(("bearer" = [])),
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500,
            description = "How many; 50 when left out. A page ends before the names and labels on it \
                are more than 1 MiB together: it may hold fewer, and gives the cursor of the next."),
        ("cursor" = Option<String>, Query, description = "What the page before gave."),
        ("state" = Option<Vec<String>>, Query, description =
            "Only those in this state; several, with commas or given several times, are any of these."),
        ("name" = Option<String>, Query, description = "Only those with this very name."),
        ("label" = Option<Vec<String>>, Query, description =
            "Only those with this label, `NAME=VALUE`; given several times, with all of these."),
    ),
    responses((status = 200, description = "The newest first.", body = BatchListDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    let query = Query::with_lists(
        request.uri().query(),
        &["limit", "cursor", "name"],
        &["state", "label"],
    )?;
    let limit = match query.get("limit") {
        Some(text) => text.parse().ok().filter(|limit| (1..=500).contains(limit)),
        None => Some(50),
    };
    let limit = limit.ok_or_else(|| Problem::malformed("`limit` must be from 1 to 500"))?;
    let filter = filter(&query)?;
    let batches = context.engine.batches();
    let list = batches.list(&caller, &filter, query.get("cursor"), limit);
    let bytes = |list: &BatchList| {
        list.batches.iter().map(|batch| ENTRY_BYTES + 2 * batch.text_bytes()).sum()
    };
    let write = |list| Json(BatchListDto::from(list)).into_response();
    answers::list(&context.engine, &caller, list, bytes, write).await
}

/// Which batches a query asks for.
fn filter(query: &Query) -> Result<BatchFilter, Problem> {
    let mut filter = BatchFilter::new();
    for name in query.all("state").flat_map(|names| names.split(',')) {
        let known = BatchState::ALL.iter().find(|state| state.name() == name).copied();
        filter = filter.state(known.ok_or_else(|| {
            let names: Vec<_> = BatchState::ALL.iter().map(|state| state.name()).collect();
            Problem::malformed(format!("`state` must be one of {}", names.join(", ")))
        })?);
    }
    if let Some(name) = query.get("name") {
        filter = filter.name(name);
    }
    for label in query.all("label") {
        let (name, value) = label.split_once('=').ok_or_else(|| {
            Problem::malformed("`label` must be a label's name, `=` and its value")
        })?;
        filter = filter.label(name, value);
    }
    Ok(filter)
}

/// One batch with its steps.
#[utoipa::path(
    get, path = "/api/v1/batches/{id}", operation_id = "getBatch", tag = "batches",
    security(("bearer" = [])),
    params(("id" = String, Path), ("steps" = Option<bool>, Query, description =
        "`false`: without its steps, for those who ask often.")),
    responses((status = 200, description = "As it is now.", body = BatchRecordDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn get(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    RouteParameters([id]): RouteParameters<1>,
    request: Request,
) -> Result<Response, Problem> {
    let query = Query::of(request.uri().query(), &["steps"])?;
    let batches = context.engine.batches();
    if query.get("steps").is_some() && !query.flag("steps")? {
        return Ok(Json(BatchDto::from(batches.info(&caller, &id).await?)).into_response());
    }
    let record = batches.get(&caller, &id).await?;
    answer_with(&context, &caller, record, told).await
}

/// What happens to a batch, from its beginning or after `Last-Event-ID`, to its end.
#[utoipa::path(
    get, path = "/api/v1/batches/{id}/events", operation_id = "followBatch", tag = "batches",
    security(("bearer" = [])),
    params(("id" = String, Path), ("Last-Event-ID" = Option<u64>, Header)),
    responses((status = 200, description = "Events.", body = BatchEventDto,
            content_type = "text/event-stream"),
        (status = 204, description = "None follows any more: the batch is over, and \
            `Last-Event-ID` its last."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn events(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    RouteParameters([id]): RouteParameters<1>,
    _: NoQuery,
    silence: Silence,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = match headers.get("last-event-id") {
        None => 0,
        Some(value) if value.is_empty() => 0,
        Some(value) => value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
            Problem::malformed("`Last-Event-ID` must be the id of an event, a whole number")
        })?,
    };
    let events = context.engine.batches().events(&caller, &id, after).await;
    let events = events.map_err(|error| match error {
        BatchError::Malformed { field: Field::After, problem } => {
            Problem::malformed(format!("`Last-Event-ID` {problem}"))
        }
        error => error.into(),
    })?;
    // By which an EventSource knows that it need not come back.
    if events.is_over() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reserved = context.followers.reserve(&caller, FOLLOWER_BYTES + events.memory_bytes())?;
    let chunks = stream::unfold(Some((events, silence, reserved)), |events| async {
        let (mut events, silence, reserved) = events?;
        let (chunk, is_over) = next_event(&mut events, &silence).await;
        let next = (!is_over).then_some((events, silence, reserved));
        Some((Ok::<_, std::convert::Infallible>(chunk), next))
    });
    let mut response = as_it_comes(EVENTS, Body::from_stream(chunks));
    response.extensions_mut().insert(CountedBody);
    Ok(response)
}

/// What a request that waits takes, whatever it waits for.
const FOLLOWER_BYTES: usize = 16 << 10;

async fn next_event(events: &mut BatchEvents, silence: &Silence) -> (Bytes, bool) {
    match silence.unless_too_long(events.next()).await {
        None => (Bytes::from_static(b":\n\n"), false),
        Some(Ok(Some(event))) => {
            let dto = BatchEventDto::from(event);
            let json = serde_json::to_string(&dto).unwrap_or_default();
            let text = format!("event: {}\nid: {}\ndata: {json}\n\n", dto.event, dto.seq);
            (text.into(), false)
        }
        Some(Ok(None)) => (Bytes::new(), true),
        Some(Err(error)) => {
            tracing::error!(%error, "the events of a batch can't be read");
            (Bytes::new(), true)
        }
    }
}

/// Runs a batch that is over again, as a new one.
#[utoipa::path(
    post, path = "/api/v1/batches/{id}/rerun", operation_id = "rerunBatch", tag = "batches",
    security(("bearer" = [])),
    params(("id" = String, Path), ("only" = Option<String>, Query,
        description = "`failed`: the steps that did not succeed, and all that depend on them. All when left out."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition return the \
            batch that was made first.")),
    responses((status = 202, description = "It is accepted.", body = BatchRecordDto,
            headers(("Location" = String, description = "Where it is."))),
        (status = 409, description = "It is not over, or no step failed.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn rerun(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    RouteParameters([id]): RouteParameters<1>,
    request: Request,
) -> Result<Response, Problem> {
    let query = Query::of(request.uri().query(), &["only"])?;
    let only_failed = match query.get("only") {
        None | Some("all") => false,
        Some("failed") => true,
        Some(_) => return Err(Problem::malformed("`only` must be failed or all")),
    };
    let batches = context.engine.batches();
    let submitted = match idempotency_key(request.headers())? {
        Some(key) => batches.rerun_once(&caller, &id, only_failed, key).await?,
        None => batches.rerun(&caller, &id, only_failed).await?,
    };
    Ok(answer_done(&context, &caller, submitted.record, accepted).await)
}

/// Cancels a batch.
///
/// What runs is stopped and what waits left out, but for steps that run always: those are run still,
/// until the batch is cancelled for the second time. With `purge` it removes a batch that is over.
#[utoipa::path(
    delete, path = "/api/v1/batches/{id}", operation_id = "cancelBatch", tag = "batches",
    security(("bearer" = [])),
    params(("id" = String, Path), ("purge" = Option<bool>, Query, description =
        "Removes a batch that is over, with its record and its output; cancels none.")),
    responses((status = 200, description = "As it ended, or is after 30 seconds.",
            body = BatchRecordDto),
        (status = 204, description = "With `purge`: it is gone."),
        (status = 409, description = "With `purge`: it is not over.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn cancel(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    RouteParameters([id]): RouteParameters<1>,
    request: Request,
) -> Result<Response, Problem> {
    let query = Query::of(request.uri().query(), &["purge"])?;
    let batches = context.engine.batches();
    if query.flag("purge")? {
        batches.purge(&caller, &id).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let record = batches.cancel(&caller, &id).await?;
    Ok(answer_done(&context, &caller, record, told).await)
}

/// Seconds that a client may wait for a batch; for longer there is `true`.
const MAX_WAIT_SECONDS: u64 = 3600;
/// About the length of an entry of the list, beside its name and labels.
const ENTRY_BYTES: usize = 512;
