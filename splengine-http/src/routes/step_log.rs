//! The log of a step: the output on both streams, in order and with times.

use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde::Serialize;
use splengine_core::BatchError;
use splengine_core::batch::{LogPiece, StepLog};
use splengine_core::execute::Stream;
use splengine_core::text::Utf8Pieces;
use utoipa::ToSchema;

use crate::auth::Authenticated;
use crate::context::Context;
use crate::dto_sessions::rfc3339;
use crate::negotiate;
use crate::problem::{Problem, ProblemDto};
use crate::query::Query;
use crate::route_parameters::RouteParameters;
use crate::routes::step_output::{ATTEMPT, attempt};
use crate::silence::Silence;
use crate::stream::as_it_comes;

/// A piece of a step's log: a line of NDJSON.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LogPiece)]
pub(crate) struct LogPieceDto {
    /// When the engine read it.
    time: String,
    /// `stdout` or `stderr`.
    stream: &'static str,
    /// The number of the run that printed it, from 1.
    attempt: u32,
    /// What it printed; no piece ends inside a UTF-8 sequence.
    data: String,
    /// How many bytes were left out here, over the output limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
}

/// What a run of a step printed on both streams, in its order and with times.
///
/// As text each line begins with the time and the stream; a line that the other stream broke into is
/// told in parts. As `application/x-ndjson`, by `Accept`, each piece is an object. Of output over the
/// limit the last part has the time of the end.
#[utoipa::path(
    get, path = "/api/v1/batches/{id}/steps/{step}/log", operation_id = "getStepLog",
    tag = "batches", security(("bearer" = [])),
    params(
        ("id" = String, Path),
        ("step" = String, Path),
        ("attempt" = Option<u32>, Query, minimum = 1, description =
            "Of which run of the step, from 1; the last when left out."),
        ("follow" = Option<bool>, Query, description = "Goes on until that run is over; without \
            `attempt`, until the step is, with what further runs print."),
    ),
    responses((status = 200, description = "The log.",
            content((String = "text/plain"), (LogPieceDto = "application/x-ndjson")),
            headers(("Attempt" = u32, description = "Of which run of the step it begins with."))),
        (status = 406, description = "There is no such form.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn log(
    State(context): State<Context>,
    Authenticated(caller): Authenticated,
    RouteParameters([id, step]): RouteParameters<2>,
    request: Request,
) -> Result<Response, Problem> {
    let query = Query::of(request.uri().query(), &["attempt", "follow"])?;
    let form = LogFormat::wanted(request.headers())?;
    let silence = Silence::of(request.extensions());
    let (attempt, follows) = (attempt(&query)?, query.flag("follow")?);
    let log = context.engine.batches().log(&caller, &id, &step, attempt, follows).await?;
    let attempt = HeaderValue::from(log.attempt());
    let writer = Writer::new(log, form, silence);
    let body = Body::from_stream(stream::try_unfold(Some(writer), |writer| async {
        match writer {
            Some(writer) => writer.next().await,
            None => Ok(None),
        }
    }));
    let mut response = as_it_comes(form.media_type(), body);
    response.headers_mut().insert(ATTEMPT, attempt);
    Ok(response)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogFormat {
    Text,
    NdJson,
}

impl LogFormat {
    const ALL: [Self; 2] = [Self::Text, Self::NdJson];

    fn wanted(headers: &HeaderMap) -> Result<Self, Problem> {
        let names = ["text/plain", "application/x-ndjson"];
        let place = negotiate::wanted(headers, names.into_iter());
        place.map(|place| Self::ALL[place]).ok_or_else(|| {
            let detail = "a log comes as text/plain or application/x-ndjson";
            Problem::new(StatusCode::NOT_ACCEPTABLE, detail)
        })
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::NdJson => "application/x-ndjson",
        }
    }
}

/// Who writes a log down as it comes.
struct Writer {
    log: StepLog,
    /// What is left of the last piece.
    rest: Option<LogPiece>,
    form: LogFormat,
    lines: Lines,
    texts: [Utf8Pieces; 2],
    silence: Silence,
    /// The last piece's.
    time: SystemTime,
    attempt: u32,
}

impl Writer {
    fn new(log: StepLog, form: LogFormat, silence: Silence) -> Self {
        let attempt = log.attempt();
        let lines = Lines { open: None, attempt };
        let (texts, time) = (Default::default(), SystemTime::UNIX_EPOCH);
        Self { log, rest: None, form, lines, texts, silence, time, attempt }
    }

    /// What is to be sent next; nobody waits for it longer than a proxy does.
    async fn next(mut self) -> Result<Option<(Bytes, Option<Self>)>, BatchError> {
        let mut out = BytesMut::new();
        loop {
            if let Some(piece) = self.rest.take() {
                self.write_some(piece, &mut out);
            }
            if out.len() >= MAX_BYTES || (self.rest.is_none() && !out.is_empty()) {
                break;
            }
            if self.rest.is_some() {
                continue;
            }
            match self.silence.unless_too_long(self.log.next()).await {
                Some(piece) => match piece? {
                    Some(piece) => self.rest = Some(piece),
                    None => {
                        self.finish(&mut out);
                        return Ok(Some((out.freeze(), None)));
                    }
                },
                // In text there is nothing that stands for silence.
                None if self.form == LogFormat::Text => {}
                None => out.extend_from_slice(b"\n"),
            }
        }
        Ok(Some((out.freeze(), Some(self))))
    }

    /// Writes a part of a piece, of which its form may make many times as much.
    fn write_some(&mut self, mut piece: LogPiece, out: &mut BytesMut) {
        let most = match self.form {
            LogFormat::Text => MAX_TEXT_PART_BYTES,
            LogFormat::NdJson => MAX_JSON_PART_BYTES,
        };
        let rest = piece.data.split_off(most.min(piece.data.len()));
        self.write(&piece, out);
        if !rest.is_empty() {
            (piece.data, piece.left_out) = (rest, 0);
            self.rest = Some(piece);
        }
    }

    fn write(&mut self, piece: &LogPiece, out: &mut BytesMut) {
        if self.form == LogFormat::Text {
            let LogPiece { time, stream, attempt, data, left_out, .. } = piece;
            self.lines.write(*time, *stream, *attempt, data, *left_out, out);
            return;
        }
        if self.attempt != piece.attempt {
            self.finish(out);
        }
        (self.time, self.attempt) = (piece.time, piece.attempt);
        let text = self.texts[piece.stream as usize].push(&piece.data);
        let left_out = (piece.left_out > 0).then_some(piece.left_out);
        self.object(piece.stream, text, left_out, out);
    }

    /// What never came to its end.
    fn finish(&mut self, out: &mut BytesMut) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let text = self.texts[stream as usize].finish();
            self.object(stream, text, None, out);
        }
    }

    fn object(&self, stream: Stream, data: String, left_out: Option<u64>, out: &mut BytesMut) {
        if data.is_empty() && left_out.is_none() {
            return;
        }
        let (time, attempt) = (rfc3339(self.time), self.attempt);
        let dto = LogPieceDto { time, stream: stream.name(), attempt, data, left_out };
        out.extend_from_slice(&serde_json::to_vec(&dto).unwrap_or_default());
        out.extend_from_slice(b"\n");
    }
}

/// A piece of an answer is no larger, but for what the last part makes.
const MAX_BYTES: usize = 32 << 10;
/// Of which each byte may be a line.
const MAX_TEXT_PART_BYTES: usize = 1 << 10;
/// Of which each byte may be six of JSON.
const MAX_JSON_PART_BYTES: usize = 8 << 10;

/// A log as lines for people. Pure.
struct Lines {
    /// The stream whose line has no end yet.
    open: Option<Stream>,
    attempt: u32,
}

impl Lines {
    fn write(
        &mut self,
        time: SystemTime,
        stream: Stream,
        attempt: u32,
        data: &[u8],
        left_out: u64,
        out: &mut BytesMut,
    ) {
        if self.attempt != attempt {
            self.close(out);
            self.attempt = attempt;
            out.extend_from_slice(format!("--- attempt {attempt} ---\n").as_bytes());
        }
        let begin = format!("{} {} ", rfc3339(time), stream.name());
        if left_out > 0 {
            self.close(out);
            let text = format!("{begin}--- {left_out} bytes left out ---\n");
            out.extend_from_slice(text.as_bytes());
        }
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            if self.open != Some(stream) {
                self.close(out);
                out.extend_from_slice(begin.as_bytes());
            }
            out.extend_from_slice(line);
            self.open = (!line.ends_with(b"\n")).then_some(stream);
        }
    }

    fn close(&mut self, out: &mut BytesMut) {
        if self.open.take().is_some() {
            out.extend_from_slice(b"\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line that the other stream broke into is told in parts, and no part stands on another's
    /// line.
    #[test]
    fn each_line_begins_with_its_time_and_its_stream() {
        let mut lines = Lines { open: None, attempt: 1 };
        let mut out = BytesMut::new();
        for (stream, attempt, data, left_out) in [
            (Stream::Stdout, 1, "one\ntw", 0),
            (Stream::Stdout, 1, "o\nthr", 0),
            (Stream::Stderr, 1, "bad\n", 0),
            (Stream::Stdout, 1, "", 7),
            (Stream::Stdout, 1, "ee", 0),
            (Stream::Stdout, 2, "again\n", 0),
        ] {
            let time = SystemTime::UNIX_EPOCH;
            lines.write(time, stream, attempt, data.as_bytes(), left_out, &mut out);
        }
        let text = String::from_utf8(out.to_vec()).expect("text");
        let expected = "T stdout one\nT stdout two\nT stdout thr\nT stderr bad\n\
            T stdout --- 7 bytes left out ---\nT stdout ee\n--- attempt 2 ---\nT stdout again\n";
        assert_eq!(text.replace(&rfc3339(SystemTime::UNIX_EPOCH), "T"), expected);
    }
}
