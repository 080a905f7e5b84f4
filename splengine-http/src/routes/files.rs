//! Files below root.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_SECURITY_POLICY, ETAG, LAST_MODIFIED, LOCATION,
    RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use splengine_core::files::{
    FileEntry, FileInfo, FileKind, FileListing, FileWatch, OpenFile, OpenOptions,
};
use splengine_core::{Caller, FileError};
use tokio::time::{Instant, timeout};
use tokio_util::io::StreamReader;

use crate::answers;
use crate::auth::Authenticated;
use crate::body::{BodyError, announced_length};
use crate::conditions::{self, Conditions, Reading, modified, tag_text};
use crate::context::Context;
use crate::dto_files::{DirectoryDto, FileDto, FileEventDto};
use crate::encoded::DecodeError;
use crate::file_paths::{FilePath, name_of_cursor};
use crate::headers::header;
use crate::idempotency::IdempotentRequest;
use crate::negotiate::EVENTS;
use crate::problem::{Problem, ProblemDto};
use crate::query::Query;
use crate::ranges;
use crate::silence::Silence;
use crate::stream::as_it_comes;

/// A file's content; with a slash at the end of the path, what is in a directory.
#[utoipa::path(
    get, path = "/api/v1/files/{path}", operation_id = "readFile", tag = "files",
    security(("bearer" = [])),
    params(
        ("path" = String, Path, description = "Below root; its slashes stand as they are."),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 10_000,
            description = "Of a directory: how many entries; 1000 when left out. A page ends before the \
                names on it are more than 1 MiB together: it may hold fewer, and gives the cursor of the \
                next."),
        ("cursor" = Option<String>, Query,
            description = "Of a directory: what the page before gave."),
        ("watch" = Option<bool>, Query,
            description = "Of a directory: what changes in it, until the client goes."),
        ("Range" = Option<String>, Header),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
        ("If-Range" = Option<String>, Header),
    ),
    responses((status = 200, description = "All of it.", content(
            (Vec<u8> = "application/octet-stream"),
            (DirectoryDto = "application/json"),
            (FileEventDto = "text/event-stream"),
        )),
        (status = 206, description = "A part of it.", body = Vec<u8>,
            content_type = "application/octet-stream"),
        (status = 304, description = "The client has it."),
        (status = 308, description = "It is a directory, whose path ends in a slash."),
        (status = 412, description = "It is not as the condition says.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 416, description = "It has no such part."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn read(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    let path = FilePath::of_url(request.uri().path());
    let files = context.engine.files();
    if path.is_directory {
        let query = Query::of(request.uri().query(), &["limit", "cursor", "watch"])?;
        if query.flag("watch")? {
            let silence = Silence::of(request.extensions());
            let watch = files.watch(&caller, path.below_root()).await?;
            return Ok(watched(context.clone(), watch, silence));
        }
        return listed(&context, &caller, &path, &query).await;
    }
    let conditions = Conditions::of(request.headers())?;
    let file = match files.open(&caller, path.below_root(), OpenOptions::new().read()).await {
        // What is relative in a listing is so from its directory.
        Err(FileError::IsDirectory { .. }) => {
            return Ok(to_directory(&path.url(), request.uri().query()));
        }
        file => file?,
    };
    Query::of(request.uri().query(), &[])?;
    let info = file.info().await?;
    let mut response = match conditions.read(&info)? {
        Reading::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Reading::File { ranges: true } => content(request.headers(), file, &info)?,
        Reading::File { ranges: false } => {
            let mut headers = request.headers().clone();
            headers.remove(RANGE);
            content(&headers, file, &info)?
        }
    };
    describe(response.headers_mut(), &info);
    Ok(response)
}

fn content(headers: &HeaderMap, file: OpenFile, info: &FileInfo) -> Result<Response, Problem> {
    let mut response = ranges::answer(headers, info.size, BYTES, |from, until| {
        pieces(file, info.clone(), from, until)
    })?;
    let headers = response.headers_mut();
    // A file of a caller must not be shown as a page of this server, whatever its content.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    let policy = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

fn describe(headers: &mut HeaderMap, info: &FileInfo) {
    if info.kind == FileKind::File {
        headers.insert(ETAG, header(&tag_text(info)));
    }
    headers.insert(LAST_MODIFIED, header(&httpdate::fmt_http_date(modified(info))));
}

/// What lies between. It breaks off where the file was cut or written anew while it was read: less
/// than was announced, or some of each, must not look whole. What is only added to does no harm.
fn pieces(file: OpenFile, before: FileInfo, from: u64, until: u64) -> Body {
    Body::from_stream(stream::try_unfold(from, move |at| {
        let (file, before) = (file.clone(), before.clone());
        async move {
            let most = usize::try_from(until - at).unwrap_or(usize::MAX).min(PIECE);
            if most == 0 {
                return Ok(None);
            }
            let data = file.read_at(at, most).await.map_err(io::Error::other)?;
            let next = at + data.len() as u64;
            if next == until {
                let now = file.info().await.map_err(io::Error::other)?;
                if now.modified != before.modified && now.size <= before.size {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
            } else if data.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            Ok(Some((data, next)))
        }
    }))
}

/// Of root there are two names.
pub(crate) async fn root(request: Request) -> Response {
    to_directory(request.uri().path(), request.uri().query())
}

/// The same with a slash at its end.
fn to_directory(url: &str, query: Option<&str>) -> Response {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Redirect::permanent(&format!("{url}/{query}")).into_response()
}

async fn listed(
    context: &Context,
    caller: &Caller,
    path: &FilePath,
    query: &Query,
) -> Result<Response, Problem> {
    let page = async {
        let listing = context.engine.files().list(caller, path.below_root()).await?;
        let limit = match query.get("limit") {
            Some(text) => {
                text.parse().ok().filter(|limit| (1..=FileListing::MAX_PAGE).contains(limit))
            }
            None => Some(1000),
        };
        let limit = limit.ok_or_else(|| {
            Problem::malformed(format!("`limit` must be from 1 to {}", FileListing::MAX_PAGE))
        })?;
        let after = query.get("cursor").map(name_of_cursor).transpose()?;
        Ok::<_, Problem>(listing.page(after.as_deref(), limit).await?)
    };
    let bytes = |(entries, _): &(Vec<FileEntry>, bool)| {
        entries.iter().map(|entry| ENTRY_BYTES + 2 * entry.name.len()).sum()
    };
    let to = path.clone();
    let write =
        move |(entries, is_more)| Json(DirectoryDto::new(&to, entries, is_more)).into_response();
    answers::list(&context.engine, caller, page, bytes, write).await
}

fn watched(context: Context, watch: FileWatch, silence: Silence) -> Response {
    // The first word tells that nothing is missed from here on.
    let begun = stream::once(async { Bytes::from_static(b":\n\n") });
    let events = stream::unfold(Some(watch), move |watch| {
        let (context, silence) = (context.clone(), silence.clone());
        async move {
            let mut watch = watch?;
            let next = async {
                tokio::select! {
                    event = watch.next() => event,
                    () = context.engine.closed() => None,
                }
            };
            match silence.unless_too_long(next).await {
                None => Some((Bytes::from_static(b":\n\n"), Some(watch))),
                Some(Some(event)) => {
                    let dto = FileEventDto::from(event);
                    let json = serde_json::to_string(&dto).unwrap_or_default();
                    let text = format!("event: {}\ndata: {json}\n\n", dto.event);
                    Some((text.into(), Some(watch)))
                }
                Some(None) => None,
            }
        }
    });
    as_it_comes(EVENTS, Body::from_stream(begun.chain(events).map(Ok::<_, Infallible>)))
}

/// Writes a whole file, in one step: others see the old one or the new one. With a slash at the end
/// of the path it makes a directory.
#[utoipa::path(
    put, path = "/api/v1/files/{path}", operation_id = "writeFile", tag = "files",
    security(("bearer" = [])),
    params(
        ("path" = String, Path, description = "Below root; its slashes stand as they are."),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "It took the place of another.", body = FileDto),
        (status = 201, description = "It is new.", body = FileDto,
            headers(("Location" = String, description = "Where it is."))),
        (status = 412, description = "It is not as the condition says.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 413, description = "Larger than a file may be.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 507, description = "No room.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn write(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Query::of(parts.uri.query(), &[])?;
    let path = FilePath::of_url(parts.uri.path());
    let conditions = Conditions::of(&parts.headers)?;
    let files = context.engine.files();
    let size = announced_length(&parts.headers).unwrap_or(0).max(body.size_hint().lower());
    files.check_write(&caller, path.below_root(), size)?;
    if path.is_directory {
        check_empty(body, context.options.body_timeout).await?;
        let present = match files.stat(&caller, path.below_root()).await {
            Err(FileError::NotFound { .. }) => None,
            found => Some(found?),
        };
        if !conditions.allow_change(present.as_ref()) {
            return Err(conditions::failed());
        }
        if let Some(info) = present {
            return Ok(answer(&path, &info, false));
        }
        files.make_directory(&caller, path.below_root(), None).await.map_err(no_parent)?;
        return Ok(answer(&path, &files.stat(&caller, path.below_root()).await?, true));
    }
    check_content(&parts)?;
    let content = StreamReader::new(chunks(body, context.options.body_timeout));
    let condition = move |present: Option<&FileInfo>| conditions.allow_change(present);
    let replaced = files.replace_if(&caller, path.below_root(), condition, content).await;
    let replaced = replaced.map_err(no_parent)?;
    Ok(answer(&path, &replaced.info, replaced.is_new))
}

/// Removes a file; with a slash at the end of the path, a directory that is empty.
#[utoipa::path(
    delete, path = "/api/v1/files/{path}", operation_id = "removeFile", tag = "files",
    security(("bearer" = [])),
    params(
        ("path" = String, Path, description = "Below root; its slashes stand as they are."),
        ("If-Match" = Option<String>, Header),
    ),
    responses((status = 204, description = "It is gone."),
        (status = 409, description = "A directory that is not empty, or not named with a slash.",
            body = ProblemDto, content_type = "application/problem+json"),
        (status = 412, description = "It is not as the condition says.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn remove(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<StatusCode, Problem> {
    Query::of(request.uri().query(), &[])?;
    let path = FilePath::of_url(request.uri().path());
    let conditions = Conditions::of(request.headers())?;
    let files = context.engine.files();
    if path.is_directory {
        let info = files.stat(&caller, path.below_root()).await?;
        if !conditions.allow_change(Some(&info)) {
            return Err(conditions::failed());
        }
        files.remove_directory(&caller, path.below_root()).await?;
    } else {
        let condition = move |info: &FileInfo| conditions.allow_change(Some(info));
        files.remove_file_if(&caller, path.below_root(), condition).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a file or a directory another place, or copies a file.
#[utoipa::path(
    post, path = "/api/v1/files/{path}", operation_id = "moveOrCopyFile", tag = "files",
    security(("bearer" = [])),
    params(
        ("path" = String, Path, description = "Below root; its slashes stand as they are."),
        ("move" = Option<String>, Query, description = "Where it is to be, below root."),
        ("copy" = Option<String>, Query, description = "Where a copy is to be, below root."),
        ("overwrite" = Option<bool>, Query,
            description = "Whether it may take the place of a file, or of an empty directory."),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header),
    ),
    responses((status = 200, description = "It took the place of another.", body = FileDto),
        (status = 201, description = "It is there.", body = FileDto,
            headers(("Location" = String, description = "Where it is."))),
        (status = 409, description = "Something is there.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 412, description = "It is not as the condition says.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 507, description = "No room.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn transfer(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let from = FilePath::of_url(parts.uri.path());
    context.engine.files().check_write(&caller, from.below_root(), 0)?;
    check_empty(body, context.options.body_timeout).await?;
    let query = Query::of(parts.uri.query(), &["move", "copy", "overwrite"])?;
    let overwrite = query.flag("overwrite")?;
    let to = |name| FilePath::of_parameter(parts.uri.query(), name);
    let (to, copies) = match (to("move")?, to("copy")?) {
        (Some(to), None) => (to, false),
        (None, Some(to)) => (to, true),
        _ => return Err(Problem::malformed("give either `move` or `copy`, and where to")),
    };
    let conditions = Conditions::of(&parts.headers)?;
    let condition = move |info: &FileInfo| conditions.allow_change(Some(info));
    let idempotent = IdempotentRequest::of(&parts)?;
    let (files, asker) = (context.engine.files(), caller.clone());
    let work = async move {
        let (from, place) = (from.below_root(), to.below_root());
        let done = if copies {
            files.copy_if(&asker, from, place, overwrite, condition).await
        } else {
            files.rename_if(&asker, from, place, overwrite, condition).await
        };
        let done = done.map_err(no_parent)?;
        Ok(answer(&to, &done.info, done.is_new))
    };
    idempotent.once(&context.idempotency, &context.answers, &caller, work).await
}

fn answer(path: &FilePath, info: &FileInfo, is_new: bool) -> Response {
    let mut response = Json(FileDto::new(path, info)).into_response();
    describe(response.headers_mut(), info);
    if is_new {
        *response.status_mut() = StatusCode::CREATED;
        response.headers_mut().insert(LOCATION, header(&path.url()));
    }
    response
}

/// Whoever makes something is told of the directory that is missing, not of what is to be made.
fn no_parent(error: FileError) -> Problem {
    match error {
        FileError::NoDirectory { .. } => {
            let detail = format!("{error}; PUT that first, with a slash at its end");
            Problem::new(StatusCode::CONFLICT, detail)
        }
        error => error.into(),
    }
}

/// What is sent is the file, and all of it (RFC 9110, section 14.5).
fn check_content(parts: &Parts) -> Result<(), Problem> {
    if parts.headers.contains_key(CONTENT_RANGE) {
        return Err(Problem::malformed("Content-Range: a file is written whole"));
    }
    Ok(())
}

async fn check_empty(mut body: Body, patience: Duration) -> Result<(), Problem> {
    let empty = async {
        loop {
            match body.frame().await {
                None => return Ok(()),
                Some(Ok(frame)) if frame.data_ref().is_none_or(Bytes::is_empty) => {}
                Some(Ok(_)) => return Err(Problem::malformed("there must be no body here")),
                Some(Err(_)) => return Err(Problem::malformed("the body broke off")),
            }
        }
    };
    timeout(patience, empty).await.unwrap_or_else(|_| Err(too_late()))
}

/// The body as it comes. `patience` is how long a piece of it is waited for, and all of them together
/// beyond what [`MIN_RATE`] lets them take.
fn chunks(
    body: Body,
    patience: Duration,
) -> std::pin::Pin<Box<impl Stream<Item = io::Result<Bytes>>>> {
    let begin = Some((body.into_data_stream(), Duration::ZERO, 0));
    Box::pin(stream::unfold(begin, move |body| async move {
        let (mut body, mut waited, mut received) = body?;
        let earned = Duration::from_secs(received / MIN_RATE);
        let begun = Instant::now();
        let left = patience.saturating_add(earned).saturating_sub(waited);
        match timeout(left.min(patience), body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(data))) => {
                // What writing takes is no fault of the client's.
                waited += begun.elapsed();
                received += data.len() as u64;
                Some((Ok(data), Some((body, waited, received))))
            }
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    }))
}

fn too_late() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        if let FileError::Content(source) = &error
            && let Some(error) = DecodeError::among(source)
        {
            return BodyError::from(error).into();
        }
        match &error {
            FileError::Changed { .. } => conditions::failed(),
            FileError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            FileError::Content(source) if source.kind() == io::ErrorKind::TimedOut => too_late(),
            _ => Self::of_kind(error.kind(), error.to_string(), error.retry_after()),
        }
    }
}

const BYTES: &str = "application/octet-stream";
/// As much as a client that reads slowly holds in memory, beside what hyper keeps for it.
const PIECE: usize = 64 << 10;
/// Bytes a second that a file must come with, on the average.
const MIN_RATE: u64 = 1 << 10;
/// About the length of an entry of a listing, beside its name.
const ENTRY_BYTES: usize = 160;
