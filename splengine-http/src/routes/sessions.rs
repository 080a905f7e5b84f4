//! Terminal sessions.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http_body::Body as _;
use serde::de::DeserializeOwned;
use splengine_core::auth::Secret;
use splengine_core::quota::LargeWorkPermit;
use splengine_core::session::RecordingFile;
use splengine_core::{Caller, SessionRequest};

use crate::answers;
use crate::auth::{self, Authenticated};
use crate::base_path::BasePath;
use crate::context::Context;
use crate::dto_sessions::{
    NewShareDto, SaveRequestDto, SavedDto, SavedListDto, SessionChangeDto, SessionDto,
    SessionListDto, SessionRequestDto, ShareListDto, ShareRequestDto, TakeBackDto, TicketDto,
    rfc3339,
};
use crate::headers::{demand_json, header};
use crate::idempotency::IdempotentRequest;
use crate::json;
use crate::problem::{Problem, ProblemDto};
use crate::query::NoQuery;
use crate::ranges;
use crate::route_parameters::RouteParameters;
use crate::routes::extract::{read_json, read_whole, work_on_body};

/// The caller's sessions.
#[utoipa::path(
    get, path = "/api/v1/sessions", operation_id = "listSessions", tag = "sessions",
    security(("bearer" = [])),
    responses((status = 200, description = "The newest first.", body = SessionListDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn list(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
) -> Result<Response, Problem> {
    let sessions = async { Ok::<_, Problem>(context.engine.sessions().list(&caller)) };
    answers::list(
        &context.engine,
        &caller,
        sessions,
        |all| ENTRY_BYTES * all.len(),
        |all| {
            let sessions = all.into_iter().map(Into::into).collect();
            Json(SessionListDto { sessions }).into_response()
        },
    )
    .await
}

/// Starts a session.
#[utoipa::path(
    post, path = "/api/v1/sessions", operation_id = "createSession", tag = "sessions",
    security(("bearer" = [])), request_body = SessionRequestDto,
    responses((status = 201, description = "It runs.", body = SessionDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 503, description = "Full, or shutting down.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn create(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    context.engine.sessions().check_create(&caller)?;
    let (request, idempotent, permit) =
        optional_json(&context, &caller, request, SessionRequestDto::into_request).await?;
    let request: SessionRequest = request.large_work_permit(permit);
    let (sessions, asker) = (context.engine.sessions(), caller.clone());
    let work = async move {
        let session = sessions.create(&asker, request).await?;
        let location = format!("/api/v1/sessions/{}", session.id);
        Ok(created(&location, SessionDto::from(session)))
    };
    idempotent.once(&context.idempotency, &context.answers, &caller, work).await
}

/// One session.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}", operation_id = "getSession", tag = "sessions",
    security(("bearer" = [])), params(("id" = String, Path)),
    responses((status = 200, description = "As it is now.", body = SessionDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn get(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
) -> Result<Json<SessionDto>, Problem> {
    Ok(Json(context.engine.sessions().get(&caller, &id)?.into()))
}

/// Renames a session.
#[utoipa::path(
    patch, path = "/api/v1/sessions/{id}", operation_id = "changeSession", tag = "sessions",
    security(("bearer" = [])), params(("id" = String, Path)), request_body = SessionChangeDto,
    responses((status = 200, description = "As it is now.", body = SessionDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn change(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
    request: Request,
) -> Result<Json<SessionDto>, Problem> {
    context.engine.sessions().check_change(&caller, &id)?;
    let (parts, body) = request.into_parts();
    demand_json(&parts.headers)?;
    let dto: SessionChangeDto = read_json(&parts.headers, body, &context, &caller).await?;
    Ok(Json(context.engine.sessions().rename(&caller, &id, dto.name)?.into()))
}

/// Ends a session and forgets it.
#[utoipa::path(
    delete, path = "/api/v1/sessions/{id}", operation_id = "endSession", tag = "sessions",
    security(("bearer" = [])), params(("id" = String, Path)),
    responses((status = 204, description = "Nothing of it runs."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn end(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
) -> Result<StatusCode, Problem> {
    context.engine.sessions().end(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A session's screen.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/screen", operation_id = "getScreen", tag = "sessions",
    security(("bearer" = [])),
    params(
        ("id" = String, Path),
        ("format" = Option<String>, Query, description = "`text`, or `ansi` for the escape \
            sequences that draw it with its scrollback. Default `text`."),
        ("at" = Option<f64>, Query, description = "Seconds since the beginning of its recording. \
            Default: now."),
    ),
    responses((status = 200, description = "The screen.", body = String, content_type = "text/plain"),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn screen(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    RouteParameters([id]): RouteParameters<1>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut ansi, mut at) = (false, None);
    let query = request.uri().query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*name, &*value) {
            ("format", "text") => ansi = false,
            ("format", "ansi") => ansi = true,
            ("format", _) => return Err(Problem::malformed("`format` must be text or ansi")),
            ("at", text) => {
                let seconds = text.parse().ok().filter(|seconds| (0.0..1e9).contains(seconds));
                at = Some(Duration::from_secs_f64(seconds.ok_or_else(|| {
                    Problem::malformed("`at` must be a number of seconds, 0 or more")
                })?));
            }
            _ => {
                let detail =
                    format!("the query has the unknown parameter `{name}`; there is: format, at");
                return Err(Problem::malformed(detail));
            }
        }
    }
    let sessions = context.engine.sessions();
    let screen = match at {
        Some(at) => sessions.screen_at(&caller, &id, at).await?,
        None => sessions.screen(&caller, &id).await?,
    };
    let body = if ansi { Body::from(screen.ansi()) } else { Body::from(screen.text().to_owned()) };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("terminal-cols", HeaderValue::from(screen.size().cols()));
    headers.insert("terminal-rows", HeaderValue::from(screen.size().rows()));
    Ok(response)
}

/// A session's recording, in asciicast version 2.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/recording", operation_id = "getRecording",
    tag = "sessions", security(("bearer" = [])),
    params(("id" = String, Path), ("Range" = Option<String>, Header)),
    responses((status = 200, description = "All of it.", body = Vec<u8>,
            content_type = "application/x-asciicast"),
        (status = 206, description = "A part of it.", body = Vec<u8>,
            content_type = "application/x-asciicast"),
        (status = 416, description = "It has no such part."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn recording(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = context.engine.sessions().recording(&caller, &id).await?;
    let length = file.length();
    let media_type = "application/x-asciicast";
    ranges::answer(&headers, length, media_type, |from, until| pieces(file, from, until))
}

fn pieces(file: RecordingFile, from: u64, until: u64) -> Body {
    Body::from_stream(stream::try_unfold((file, from), move |(file, at)| async move {
        let most = usize::try_from(until - at).unwrap_or(PIECE).min(PIECE);
        if most == 0 {
            return Ok(None);
        }
        let data = file.read(at, most).await?;
        if data.is_empty() {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        let next = at + data.len() as u64;
        Ok(Some((data, (file, next))))
    }))
}

/// Types the body on a session's terminal.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/input", operation_id = "typeInput", tag = "sessions",
    security(("bearer" = [])), params(("id" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, description = "It waits to be typed, or is."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn input(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
    request: Request,
) -> Result<Response, Problem> {
    context.engine.sessions().check_input(&caller, &id)?;
    let (parts, body) = request.into_parts();
    let data = read_whole(&parts.headers, body, &context, &caller).await?;
    let idempotent = IdempotentRequest::of(&parts)?;
    let permit = context.engine.large_work().permit(caller.accounted_user(), data.len()).await?;
    let data = data.into_bytes();
    let body = data.clone();
    let idempotent = permit.run(move || idempotent.with_body(&body)).await?;
    drop(permit);
    let (sessions, asker) = (context.engine.sessions(), caller.clone());
    let work = async move {
        sessions.input(&asker, &id, data).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    idempotent.once(&context.idempotency, &context.answers, &caller, work).await
}

/// Saves a session.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/save", operation_id = "saveSession", tag = "sessions",
    security(("bearer" = [])), params(("id" = String, Path)), request_body = SaveRequestDto,
    responses((status = 201, description = "It is on disk.", body = SavedDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 507, description = "No room.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn save(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
    request: Request,
) -> Result<Response, Problem> {
    context.engine.sessions().check_change(&caller, &id)?;
    let (dto, idempotent, _): (SaveRequestDto, _, _) =
        optional_json(&context, &caller, request, Ok).await?;
    let (sessions, asker) = (context.engine.sessions(), caller.clone());
    let work = async move {
        let saved = sessions.save(&asker, &id, dto.name).await?;
        let location = format!("/api/v1/saved-sessions/{}", saved.id);
        Ok(created(&location, SavedDto::from(saved)))
    };
    idempotent.once(&context.idempotency, &context.answers, &caller, work).await
}

/// The caller's saved sessions.
#[utoipa::path(
    get, path = "/api/v1/saved-sessions", operation_id = "listSavedSessions", tag = "sessions",
    security(("bearer" = [])),
    responses((status = 200, description = "The newest first.", body = SavedListDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn list_saved(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
) -> Result<Response, Problem> {
    let sessions = context.engine.sessions();
    let saved = sessions.list_saved(&caller);
    answers::list(
        &context.engine,
        &caller,
        saved,
        |all| ENTRY_BYTES * all.len(),
        |all| {
            let saved_sessions = all.into_iter().map(Into::into).collect();
            Json(SavedListDto { saved_sessions }).into_response()
        },
    )
    .await
}

/// One saved session.
#[utoipa::path(
    get, path = "/api/v1/saved-sessions/{id}", operation_id = "getSavedSession",
    tag = "sessions", security(("bearer" = [])), params(("id" = String, Path)),
    responses((status = 200, description = "As it was saved.", body = SavedDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn get_saved(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
) -> Result<Json<SavedDto>, Problem> {
    Ok(Json(context.engine.sessions().get_saved(&caller, &id).await?.into()))
}

/// Forgets a saved session.
#[utoipa::path(
    delete, path = "/api/v1/saved-sessions/{id}", operation_id = "removeSavedSession",
    tag = "sessions", security(("bearer" = [])), params(("id" = String, Path)),
    responses((status = 204, description = "It is gone."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn remove_saved(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
) -> Result<StatusCode, Problem> {
    context.engine.sessions().remove_saved(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A session's shares.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/shares", operation_id = "listShares", tag = "sessions",
    security(("bearer" = [])), params(("id" = String, Path)),
    responses((status = 200, description = "Those that stand.", body = ShareListDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn list_shares(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
) -> Result<Response, Problem> {
    let shares = async { context.engine.sessions().list_shares(&caller, &id) };
    answers::list(
        &context.engine,
        &caller,
        shares,
        |all| ENTRY_BYTES * all.len(),
        |all| {
            let shares = all.into_iter().map(Into::into).collect();
            Json(ShareListDto { shares }).into_response()
        },
    )
    .await
}

/// Shares a session.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/shares", operation_id = "shareSession", tag = "sessions",
    security(("bearer" = [])), params(("id" = String, Path)), request_body = ShareRequestDto,
    responses((status = 201, description = "With the ticket, which is told once.",
            body = NewShareDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn share(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
    request: Request,
) -> Result<Response, Problem> {
    context.engine.sessions().check_change(&caller, &id)?;
    let console = console_url(&context, &request);
    let (dto, ..): (ShareRequestDto, _, _) = optional_json(&context, &caller, request, Ok).await?;
    let expires_in = dto.expires_in.map_or(HOUR, Duration::from_millis);
    let access = dto.access.unwrap_or_default();
    let sessions = context.engine.sessions();
    let (share, ticket) = sessions.share(&caller, &id, access.into(), expires_in)?;
    let location = format!("/api/v1/sessions/{id}/shares/{}", share.id);
    let dto = NewShareDto {
        share_id: share.id.to_string(),
        access,
        expires: rfc3339(share.expires),
        url: format!("{console}#ticket={}", ticket.expose()),
        ticket: ticket.expose().to_owned(),
    };
    Ok(created(&location, dto))
}

/// Takes back all shares of a session, or that of one ticket.
#[utoipa::path(
    delete, path = "/api/v1/sessions/{id}/shares", operation_id = "takeBackShares",
    tag = "sessions", security(("bearer" = [])), params(("id" = String, Path)),
    request_body = TakeBackDto,
    responses((status = 204, description = "Whoever they let in is out."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn take_back_shares(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id]): RouteParameters<1>,
    request: Request,
) -> Result<StatusCode, Problem> {
    context.engine.sessions().check_change(&caller, &id)?;
    let (dto, ..): (TakeBackDto, _, _) = optional_json(&context, &caller, request, Ok).await?;
    let sessions = context.engine.sessions();
    match dto.ticket {
        Some(ticket) => sessions.take_back_ticket(&caller, &id, &Secret::new(ticket))?,
        None => sessions.take_back_all_shares(&caller, &id)?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Takes back one share.
#[utoipa::path(
    delete, path = "/api/v1/sessions/{id}/shares/{share}", operation_id = "takeBackShare",
    tag = "sessions", security(("bearer" = [])),
    params(("id" = String, Path), ("share" = String, Path)),
    responses((status = 204, description = "Whoever it let in is out."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn take_back_share(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
    RouteParameters([id, share]): RouteParameters<2>,
) -> Result<StatusCode, Problem> {
    context.engine.sessions().take_back_share(&caller, &id, &share)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A ticket for a browser's WebSocket, which can't send a header.
#[utoipa::path(
    post, path = "/api/v1/tickets", operation_id = "makeTicket", tag = "sessions",
    security(("bearer" = [])),
    responses((status = 201, description = "It works once, for 30 seconds.", body = TicketDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn ticket(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    _: NoQuery,
) -> Result<(StatusCode, Json<TicketDto>), Problem> {
    let ticket = context.engine.sessions().ticket(&caller)?;
    Ok((StatusCode::CREATED, Json(TicketDto { ticket: ticket.expose().to_owned() })))
}

/// What `convert` makes of a JSON body, or of its default where there is none; the key that it came under,
/// and the permit under which that was done.
async fn optional_json<T: DeserializeOwned + Default, R: Send + 'static>(
    context: &Context,
    caller: &Caller,
    request: Request,
    convert: impl FnOnce(T) -> Result<R, Problem> + Send + 'static,
) -> Result<(R, IdempotentRequest, LargeWorkPermit), Problem> {
    let (parts, body) = request.into_parts();
    let is_absent = body.is_end_stream();
    if !is_absent {
        demand_json(&parts.headers)?;
    }
    let data = read_whole(&parts.headers, body, context, caller).await?;
    let idempotent = IdempotentRequest::of(&parts)?;
    let work = move |body: &[u8]| {
        let dto = if is_absent { T::default() } else { json::parse(body)? };
        Ok((convert(dto)?, idempotent.with_body(body)))
    };
    let ((made, idempotent), permit) = work_on_body(data, context, caller, work).await?;
    Ok((made, idempotent, permit))
}

/// Where the console is: as configured, else where this request went to.
fn console_url(context: &Context, request: &Request) -> String {
    context.options.console.clone().unwrap_or_else(|| {
        let host = auth::host(request.uri(), request.headers());
        let base = request.extensions().get().map_or("", BasePath::as_str);
        format!("http://{}{base}/", host.unwrap_or_default())
    })
}

fn created(location: &str, body: impl serde::Serialize) -> Response {
    (StatusCode::CREATED, [(LOCATION, header(location))], Json(body)).into_response()
}

const PIECE: usize = 64 << 10;
/// About the length of an entry of a list.
const ENTRY_BYTES: usize = 1 << 10;
const HOUR: Duration = Duration::from_hours(1);
