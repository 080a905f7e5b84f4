//! `POST /execute`, the same as `POST /api/v1/execute`.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use splengine_core::engine::Admitted;
use splengine_core::execute::{SlowReader, Stdin};
use splengine_core::{BatchRequest, Run};

use crate::body::BodyError;
use crate::context::Context;
use crate::dto::{EncodingDto, ExecuteRequestDto, ExecuteResultDto};
use crate::encoded::Decoder;
use crate::headers::{BodyKind, idempotency_key};
use crate::idempotency::IdempotentRequest;
use crate::json;
use crate::negotiate::Format;
use crate::problem::{Problem, ProblemDto};
use crate::routes::batches;
use crate::routes::extract::{read_query, read_whole, work_on_body};
use crate::run_answer;
use crate::silence::Silence;
use crate::stdin::BodyReader;
use crate::stream::{self, Queued, Told};

/// Run a command to its end.
///
/// The answer comes as one object at the end, or, with `Accept: application/x-ndjson` or
/// `text/event-stream`, as events while the command runs. A client that goes away cancels the run.
/// With `Content-Type: application/octet-stream` the body is the command's standard input, read as
/// it arrives, and the query holds `command` and the other members.
#[utoipa::path(
    post,
    path = "/api/v1/execute",
    operation_id = "execute",
    tag = "execute",
    security(("bearer" = [])),
    params(
        ("failStatus" = Option<u16>, Query, minimum = 400, maximum = 599,
            description = "Answer a run that was no success under this status."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition within a day \
            return the first answer. The command is run to its end then, whether its client waits for \
            it or not."),
    ),
    request_body(description = "The command, or its standard input.", content(
        (ExecuteRequestDto = "application/json"),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 200, description = "It ran; whether well is in the body.", content(
            (ExecuteResultDto = "application/json"),
            (crate::dto::EventDto = "application/x-ndjson"),
            (crate::dto::EventDto = "text/event-stream"),
        )),
        (status = 202, description = "With `async`: it is accepted as a batch of one step.",
            body = crate::dto_batches::BatchRecordDto,
            headers(("Location" = String, description = "Where the batch is."))),
        (status = 400, description = "Malformed.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 401, description = "No credentials, or bad ones.", body = ProblemDto,
            content_type = "application/problem+json",
            headers(("WWW-Authenticate" = String, description = "`Bearer`"))),
        (status = 403, description = "Not allowed.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 404, description = "No such session.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 406, description = "No such form of answer.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 415, description = "No such form of request.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 422, description = "Well-formed, but impossible here.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 429, description = "The caller's own limit.", body = ProblemDto,
            content_type = "application/problem+json",
            headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 500, description = "A fault of the server.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 503, description = "Full, or shutting down.", body = ProblemDto,
            content_type = "application/problem+json",
            headers(("Retry-After" = u64, description = "Seconds"))),
    ),
)]
pub(crate) async fn execute(
    State(context): State<Context>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = context.caller(&parts).await?;
    context.engine.check_execute(&caller)?;
    let kind = BodyKind::of(&parts.headers)?;
    let format = Format::wanted(&parts.headers).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "Accept must allow application/json, application/x-ndjson or text/event-stream",
        )
    })?;
    let (fail_status, query) = fail_status(parts.uri.query().unwrap_or_default())?;
    if fail_status.is_some() && format != Format::Json {
        return Err(Problem::malformed(
            "`failStatus` needs an answer in one piece: a stream's status is sent before its end",
        ));
    }

    if parts.headers.contains_key("last-event-id") {
        // Whoever comes back to a stream that broke off means the run that there was.
        return Err(Problem::malformed(
            "`Last-Event-ID` can't be heeded: the run was cancelled when its stream broke off; leave \
             it out to run the command anew, or use `async`, whose events resume",
        ));
    }

    let has_batches = context.engine.has_batches();
    let (asked, idempotent, permit, breakage) = match kind {
        BodyKind::Json => {
            if let Some((name, _)) = query.first() {
                return Err(Problem::malformed(format!(
                    "the query has the unknown parameter `{name}`; beside a JSON body there is: failStatus"
                )));
            }
            let body = read_whole(&parts.headers, body, &context, &caller).await?;
            let idempotent = IdempotentRequest::of(&parts)?;
            let read = move |body: &[u8]| {
                let idempotent = idempotent.with_body(body);
                Ok((Asked::of(json::parse(body)?, None, has_batches)?, idempotent))
            };
            let ((asked, idempotent), permit) = work_on_body(body, &context, &caller, read).await?;
            (asked, Some(idempotent), Some(permit), None)
        }
        BodyKind::Input => {
            let dto = read_query(&query)?;
            // A command that has begun could only be ended for want of it.
            if let Some(decoder) = parts.extensions.get::<Decoder>() {
                decoder.reserve().await.map_err(|error| BodyError::from(&error))?;
            }
            let (stdin, breakage) = BodyReader::new(body);
            (Asked::of(dto, Some(Stdin::reader(stdin)), has_batches)?, None, None, Some(breakage))
        }
    };
    let (mut request, encoding) = match asked {
        Asked::Batch(request) => {
            let request = match permit {
                Some(permit) => request.large_work_permit(permit),
                None => *request,
            };
            let record = batches::accept(&context, &caller, request, &parts.headers).await?;
            return Ok(batches::answer_done(&context, &caller, record, batches::accepted).await);
        }
        Asked::Command(request, encoding) => (*request, encoding),
    };
    let has_key = idempotency_key(&parts.headers)?.is_some();
    if has_key && (format != Format::Json || kind == BodyKind::Input) {
        return Err(Problem::malformed(
            "`Idempotency-Key` can't be heeded here: it needs a JSON body, and an answer in one \
             piece; leave it out, or use `async`",
        ));
    }
    if let Some(permit) = permit {
        request = request.large_work_permit(permit);
    }
    if format == Format::Json {
        // Whoever waits for the whole is not slow: we collect it.
        request = request.slow_reader(SlowReader::Wait);
    }
    let watch = move |run: &Run| {
        if let Some(breakage) = breakage {
            breakage.stops(run.stopper());
        }
    };
    if format == Format::Json {
        let (engine, asker) = (context.engine.clone(), caller.clone());
        let answers = context.answers.clone();
        let work = async move {
            let run = engine.execute(&asker, request).await?;
            watch(&run);
            let session_id = run.session_id().to_string();
            let captured = run.capture().await;
            let reserved = run_answer::reserve(&answers, &asker, &captured).await?;
            run_answer::answer(captured, &session_id, encoding, fail_status, reserved)
        };
        return match idempotent {
            Some(idempotent) => {
                idempotent.once(&context.idempotency, &context.answers, &caller, work).await
            }
            None => work.await,
        };
    }
    let run = match context.engine.admit(&caller, request).await? {
        Admitted::Running(run) => {
            watch(&run);
            Told::Running(run)
        }
        Admitted::Queued(queued) => Told::Queued(Queued::new(queued, watch)),
        _ => return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no such answer")),
    };
    let silence = Silence::of(&parts.extensions);
    Ok(stream::response(run, format, encoding, silence))
}

/// What a request asks for.
enum Asked {
    /// A batch of one step.
    Batch(Box<BatchRequest>),
    /// A command, and how its output is to be encoded.
    Command(Box<splengine_core::Request>, EncodingDto),
}

impl Asked {
    fn of(
        dto: ExecuteRequestDto,
        input: Option<Stdin>,
        has_batches: bool,
    ) -> Result<Self, Problem> {
        if dto.asynchronous != Some(true) {
            let encoding = dto.output_encoding.unwrap_or_default();
            return Ok(Self::Command(Box::new(dto.into_request(input)?), encoding));
        }
        if !has_batches {
            let detail = "`async` asks for a batch, and this server runs none";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
        }
        Ok(Self::Batch(Box::new(dto.into_batch()?)))
    }
}

type Query = Vec<(String, String)>;

/// Takes `failStatus` out of the query; what is left is the request's.
fn fail_status(query: &str) -> Result<(Option<StatusCode>, Query), Problem> {
    let (wanted, rest): (Vec<_>, Vec<_>) = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .partition(|(name, _)| name == "failStatus");
    let status = match wanted.as_slice() {
        [] => None,
        [(_, value)] => {
            let status = value.parse().ok().filter(|status| (400..=599).contains(status));
            let status = status.and_then(|status: u16| StatusCode::from_u16(status).ok());
            Some(status.ok_or_else(|| {
                Problem::malformed("`failStatus` must be a status from 400 to 599")
            })?)
        }
        _ => return Err(Problem::malformed("the query has `failStatus` more than once")),
    };
    Ok((status, rest))
}
