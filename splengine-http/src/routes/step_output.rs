//! What the steps of a batch print.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::ETAG;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use splengine_core::{BatchError, StepOutput, Stream};

use crate::accept;
use crate::app::App;
use crate::conditions::{Conditions, Reading};
use crate::problem::{Problem, ProblemDto};
use crate::ranges;
use crate::routes::batches::Query;
use crate::routes::parameters::{Asker, header};
use crate::stream::as_it_comes;

/// What a run of a step printed on a stream.
///
/// The header `Attempt` tells which run of the step it is of; the `ETag` stands for the batch, the
/// step, the run and the stream, so that with `If-Range` no client puts the parts of two runs
/// together. What earlier runs printed is kept as long as the batch is.
#[utoipa::path(
    get, path = "/api/v1/batches/{id}/steps/{step}/{stream}", operation_id = "getStepOutput",
    tag = "batches", security(("bearer" = [])),
    params(
        ("id" = String, Path),
        ("step" = String, Path),
        ("stream" = String, Path, description = "`stdout` or `stderr`."),
        ("attempt" = Option<u32>, Query, minimum = 1, description =
            "Of which run of the step, from 1; the last when left out."),
        ("follow" = Option<bool>, Query, description =
            "Goes on until the step ends: where it is run again, with what the next run prints. As \
             `text/plain`, by `Accept`, each further run begins with a line `--- attempt N ---`; \
             else its bytes follow those of the run before."),
        ("offset" = Option<u64>, Query, description =
            "With `follow`: where to begin, counted in bytes from the beginning of `attempt` over \
             all runs that follow it; without `attempt`, from that of the first run."),
        ("Range" = Option<String>, Header),
        ("If-Range" = Option<String>, Header),
        ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header, description =
            "Answered with 304 only when the run is over."),
    ),
    responses((status = 200, description = "All of it.", body = Vec<u8>,
            content_type = "application/octet-stream",
            headers(("Attempt" = u32, description = "Of which run of the step."),
                ("ETag" = String, description = "Of this run's stream."))),
        (status = 206, description = "A part of it.", body = Vec<u8>,
            content_type = "application/octet-stream",
            headers(("Attempt" = u32, description = "Of which run of the step."),
                ("ETag" = String, description = "Of this run's stream."))),
        (status = 304, description = "The client has it."),
        (status = 412, description = "It is of another run than `If-Match` says.",
            body = ProblemDto, content_type = "application/problem+json"),
        (status = 416, description = "It has no such part."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn output(
    State(app): State<App>,
    Asker(caller): Asker,
    Path((id, step, stream)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let stream = match stream.as_str() {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return Err(Problem::new(StatusCode::NOT_FOUND, "there is stdout and stderr")),
    };
    let query = Query::of(request.uri().query(), &["attempt", "follow", "offset"])?;
    let attempt = attempt(&query)?;
    let follows = query.flag("follow")?;
    let offset = query.get("offset").map(|text| {
        text.parse::<u64>().map_err(|_| Problem::malformed("`offset` must be a whole number"))
    });
    let offset = offset.transpose()?;
    if !follows {
        if offset.is_some() {
            return Err(Problem::malformed("`offset` needs `follow`; else there is Range"));
        }
        let output = app.engine.batches().output(&caller, &id, &step, stream, attempt).await?;
        return whole(request.headers(), output).await;
    }
    if request.headers().contains_key("range") {
        let detail = "Range needs an end, which `follow` has not; give `offset` in its place";
        return Err(Problem::malformed(detail));
    }
    let attempt = attempt.or(offset.map(|_| 1));
    let output = app.engine.batches().output(&caller, &id, &step, stream, attempt).await?;
    let is_text = accept::wanted(request.headers(), [BYTES, "text/plain"].into_iter()) == Some(1);
    let attempt = output.attempt();
    let follower = Follower { output, at: offset.unwrap_or(0), marks: is_text };
    let media_type = if follower.marks { TEXT } else { BYTES };
    let body = Body::from_stream(stream::try_unfold(follower, Follower::next));
    let mut response = as_it_comes(media_type, body);
    response.headers_mut().insert(ATTEMPT, HeaderValue::from(attempt));
    Ok(response)
}

/// The number of a run of a step, from 1, that a query names.
pub(crate) fn attempt(query: &Query) -> Result<Option<u32>, Problem> {
    let number = |text: &str| {
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| Problem::malformed("`attempt` must be a whole number from 1"))
    };
    query.get("attempt").map(number).transpose()
}

/// What there is now, or the part of it that is asked for.
async fn whole(headers: &HeaderMap, output: StepOutput) -> Result<Response, Problem> {
    let tag = format!("\"{}\"", output.revision());
    // Before its length: when that was read, no more was printed.
    let is_over = output.is_over().await?;
    let attempt = output.attempt();
    let mut response = match Conditions::of(headers)?.read_tagged(&tag, is_over)? {
        Reading::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Reading::File { ranges } => {
            let length = output.length().await?;
            let no_ranges = HeaderMap::new();
            let headers = if ranges { headers } else { &no_ranges };
            ranges::answer(headers, length, BYTES, |from, until| part(output, from, until))?
        }
    };
    response.headers_mut().insert(ETAG, header(&tag));
    response.headers_mut().insert(ATTEMPT, HeaderValue::from(attempt));
    Ok(response)
}

/// What lies between.
fn part(output: StepOutput, from: u64, until: u64) -> Body {
    Body::from_stream(stream::try_unfold((output, from), move |(output, at)| async move {
        let most = usize::try_from(until - at).unwrap_or(PIECE).min(PIECE);
        if most == 0 {
            return Ok(None);
        }
        let data = output.read(at, most).await?;
        if data.is_empty() {
            return Ok::<_, BatchError>(None);
        }
        let next = at + data.len() as u64;
        Ok(Some((data, (output, next))))
    }))
}

/// Who reads what a step prints, from one run to the next.
struct Follower {
    output: StepOutput,
    /// Within what this run prints; beyond its end are those that follow.
    at: u64,
    /// Whether the beginning of a further run is told.
    marks: bool,
}

impl Follower {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BatchError> {
        while !self.output.grows(self.at).await? {
            let length = self.output.length().await?;
            let Some(next) = self.output.next_run().await? else { return Ok(None) };
            self.at = self.at.saturating_sub(length);
            self.output = next;
            if self.marks {
                let mark = format!("\n--- attempt {} ---\n", self.output.attempt());
                return Ok(Some((mark.into(), self)));
            }
        }
        let data = self.output.read(self.at, PIECE).await?;
        if data.is_empty() {
            return Ok(None);
        }
        self.at += data.len() as u64;
        Ok(Some((data, self)))
    }
}

/// The number of a run of a step.
pub(crate) const ATTEMPT: HeaderName = HeaderName::from_static("attempt");
const BYTES: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";
const PIECE: usize = 64 << 10;
