//! Output of the steps of a batch.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ETAG, IF_MATCH, IF_RANGE, RANGE, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use splengine_core::BatchError;
use splengine_core::batch::StepOutput;
use splengine_core::execute::{Gap, Stream};

use crate::auth::Authenticated;
use crate::conditions::{Conditions, Reading};
use crate::context::Context;
use crate::headers::header;
use crate::negotiate;
use crate::problem::{Problem, ProblemDto};
use crate::query::Query;
use crate::ranges;
use crate::route_parameters::RouteParameters;
use crate::stream::as_it_comes;

/// What a run of a step printed on a stream.
///
/// The header `Attempt` tells which run of the step it is of; the `ETag` stands for the batch, the
/// step, the run and the stream, so that with `If-Range` no client puts the parts of two runs
/// together. What earlier runs printed is kept as long as the batch is.
///
/// A `Range` that does not begin at 0 is passed over where the step was run more than once, unless
/// `attempt`, `If-Range` or `If-Match` says which run is meant: the answer is 200 then, with the whole.
///
/// Where a part was left out, the headers `Stdout-Gap` and `Stderr-Gap` tell where and how much, as
/// `at=OFFSET, bytes=N`. As `text/plain`, by `Accept`, a line `--- N bytes left out ---` stands there.
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
    responses((status = 200, description = "All of it.",
            content((Vec<u8> = "application/octet-stream"), (String = "text/plain")),
            headers(("Attempt" = u32, description = "Of which run of the step."),
                ("ETag" = String, description = "Of this run's stream, in this form."),
                ("Stdout-Gap" = String, description = "Where a part was left out, and how much."),
                ("Stderr-Gap" = String, description = "The same of standard error."))),
        (status = 206, description = "A part of it.",
            content((Vec<u8> = "application/octet-stream"), (String = "text/plain")),
            headers(("Attempt" = u32, description = "Of which run of the step."),
                ("ETag" = String, description = "Of this run's stream, in this form."),
                ("Stdout-Gap" = String, description = "Where a part was left out, and how much."),
                ("Stderr-Gap" = String, description = "The same of standard error."))),
        (status = 304, description = "The client has it."),
        (status = 412, description = "It is of another run than `If-Match` says.",
            body = ProblemDto, content_type = "application/problem+json"),
        (status = 416, description = "It has no such part."),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn output(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    RouteParameters([id, step, stream]): RouteParameters<3>,
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
    let names = [OutputFormat::Bytes, OutputFormat::Text].map(OutputFormat::name).into_iter();
    let form = match negotiate::wanted(request.headers(), names) {
        Some(1) => OutputFormat::Text,
        _ => OutputFormat::Bytes,
    };
    if !follows {
        if offset.is_some() {
            return Err(Problem::malformed("`offset` needs `follow`; else there is Range"));
        }
        let output = context.engine.batches().output(&caller, &id, &step, stream, attempt).await?;
        let mut headers = request.headers().clone();
        if attempt.is_none() && output.attempt() > 1 && goes_on_blindly(&headers) {
            headers.remove(RANGE);
        }
        return whole(&headers, output, stream, form).await;
    }
    if request.headers().contains_key("range") {
        let detail = "Range needs an end, which `follow` has not; give `offset` in its place";
        return Err(Problem::malformed(detail));
    }
    let attempt = attempt.or(offset.map(|_| 1));
    let output = context.engine.batches().output(&caller, &id, &step, stream, attempt).await?;
    let attempt = output.attempt();
    let follower = Follower { output, at: offset.unwrap_or(0), form, is_gap_told: false };
    let body = Body::from_stream(stream::try_unfold(follower, Follower::next));
    let mut response = as_it_comes(form.media_type(), body);
    response.headers_mut().insert(ATTEMPT, HeaderValue::from(attempt));
    Ok(response)
}

/// How output is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputFormat {
    /// As it was printed.
    Bytes,
    /// With lines that tell where a part was left out, and where a further run begins.
    Text,
}

impl OutputFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "application/octet-stream",
            Self::Text => "text/plain",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Bytes => self.name(),
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

/// The number of a run of a step, from 1, that a query names.
pub(crate) fn attempt(query: &Query) -> Result<Option<u32>, Problem> {
    let number = |text: &str| {
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| Problem::malformed("`attempt` must be a whole number from 1"))
    };
    query.get("attempt").map(number).transpose()
}

/// Whether a client goes on from an offset, and says by nothing of which run it has the bytes before
/// that. Of a step that was run again it is given the whole, lest it puts the parts of two runs
/// together: a server may pass over `Range` (RFC 9110, section 14.2).
fn goes_on_blindly(headers: &HeaderMap) -> bool {
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let first = range.and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let offset = first.and_then(|(first, _)| first.trim().parse::<u64>().ok());
    offset.is_some_and(|offset| offset > 0)
        && !headers.contains_key(IF_RANGE)
        && !headers.contains_key(IF_MATCH)
}

/// What there is now, or the part of it that is asked for.
async fn whole(
    headers: &HeaderMap,
    output: StepOutput,
    stream: Stream,
    form: OutputFormat,
) -> Result<Response, Problem> {
    let tag = match form {
        OutputFormat::Bytes => format!("\"{}\"", output.revision()),
        OutputFormat::Text => format!("\"{}-text\"", output.revision()),
    };
    // Before its length: when that was read, no more was printed.
    let is_over = output.is_over().await?;
    let attempt = output.attempt();
    let conditions = Conditions::of(headers)?.read_tagged(&tag, is_over)?;
    let length = output.length().await?;
    // After the length: what lies behind a gap can't be read before that is known.
    let mut shown = WithGap { output, length, gap: 0, mark: Bytes::new() };
    let gap = shown.output.gap().await?;
    if let (OutputFormat::Text, Some(gap)) = (form, gap) {
        shown.gap = gap.at;
        shown.mark = mark(&shown.output, gap).await?;
    }
    let mut response = match conditions {
        Reading::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Reading::File { ranges } => {
            let no_ranges = HeaderMap::new();
            let headers = if ranges { headers } else { &no_ranges };
            let length = shown.length + shown.mark.len() as u64;
            ranges::answer(headers, length, form.media_type(), |from, until| {
                shown.part(from, until)
            })?
        }
    };
    response.headers_mut().insert(ETAG, header(&tag));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response.headers_mut().insert(ATTEMPT, HeaderValue::from(attempt));
    if let Some(Gap { at, bytes, .. }) = gap {
        let name = if stream == Stream::Stderr { STDERR_GAP } else { STDOUT_GAP };
        response.headers_mut().insert(name, header(&format!("at={at}, bytes={bytes}")));
    }
    Ok(response)
}

/// What a run printed, with a line in the place of what was left out.
struct WithGap {
    output: StepOutput,
    /// Without the line.
    length: u64,
    gap: u64,
    mark: Bytes,
}

impl WithGap {
    /// What lies between.
    fn part(self, from: u64, until: u64) -> Body {
        Body::from_stream(stream::try_unfold((self, from), move |(shown, at)| async move {
            let data = shown.read(at, until).await?;
            if data.is_empty() {
                return Ok::<_, BatchError>(None);
            }
            let next = at + data.len() as u64;
            Ok(Some((data, (shown, next))))
        }))
    }

    async fn read(&self, from: u64, until: u64) -> Result<Bytes, BatchError> {
        let mark_end = self.gap + self.mark.len() as u64;
        if (self.gap..mark_end).contains(&from) {
            let end = usize::try_from(until.min(mark_end) - self.gap).unwrap_or(usize::MAX);
            let begin = usize::try_from(from - self.gap).unwrap_or(usize::MAX);
            return Ok(self.mark.slice(begin.min(end)..end));
        }
        let (offset, until) = if from < self.gap {
            (from, until.min(self.gap))
        } else {
            let shift = self.mark.len() as u64;
            (from - shift, until - shift)
        };
        let most = usize::try_from(until.saturating_sub(offset)).unwrap_or(PIECE).min(PIECE);
        if most == 0 { Ok(Bytes::new()) } else { self.output.read(offset, most).await }
    }
}

/// The line that tells of a gap.
async fn mark(output: &StepOutput, gap: Gap) -> Result<Bytes, BatchError> {
    let before = match gap.at.checked_sub(1) {
        Some(last) => output.read(last, 1).await?,
        None => Bytes::new(),
    };
    let begin = if before.is_empty() || *before == *b"\n" { "" } else { "\n" };
    Ok(format!("{begin}{gap}\n").into())
}

/// Who reads what a step prints, from one run to the next.
struct Follower {
    output: StepOutput,
    /// Within what this run prints; beyond its end are those that follow.
    at: u64,
    form: OutputFormat,
    is_gap_told: bool,
}

impl Follower {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BatchError> {
        loop {
            let grows = self.output.grows(self.at).await?;
            let mut data =
                if grows { self.output.read(self.at, PIECE).await? } else { Bytes::new() };
            // After the data: what lies behind a gap can't be read before that is known.
            if let (OutputFormat::Text, Some(gap)) = (self.form, self.output.gap().await?)
                && let Some(before) = gap.at.checked_sub(self.at)
            {
                if before == 0 && !self.is_gap_told {
                    self.is_gap_told = true;
                    return Ok(Some((mark(&self.output, gap).await?, self)));
                }
                if before > 0 {
                    data.truncate(usize::try_from(before).unwrap_or(usize::MAX));
                }
            }
            if grows {
                self.at += data.len() as u64;
                return Ok((!data.is_empty()).then_some((data, self)));
            }
            let length = self.output.length().await?;
            let Some(next) = self.output.next_run().await? else { return Ok(None) };
            self.at = self.at.saturating_sub(length);
            (self.output, self.is_gap_told) = (next, false);
            if self.form == OutputFormat::Text {
                let mark = format!("\n--- attempt {} ---\n", self.output.attempt());
                return Ok(Some((mark.into(), self)));
            }
        }
    }
}

/// The number of a run of a step.
pub(crate) const ATTEMPT: HeaderName = HeaderName::from_static("attempt");
pub(crate) const STDOUT_GAP: HeaderName = HeaderName::from_static("stdout-gap");
pub(crate) const STDERR_GAP: HeaderName = HeaderName::from_static("stderr-gap");
const PIECE: usize = 64 << 10;
