//! A run to its end as one JSON object, written while its client takes it.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use splengine_core::execute::Gap;
use splengine_core::quota::Reservation;
use splengine_core::{Caller, Captured};

use crate::answers::AnswerBudgets;
use crate::dto::{EncodingDto, EndDto, ExecuteResultDto};
use crate::output_text::{Text, around_outputs, quote};
use crate::problem::Problem;
use crate::result_stream::MEMORY_BYTES;

/// The memory of the pieces of an answer that are on their way: none of one that is short, and whole.
pub(crate) async fn reserve(
    budgets: &AnswerBudgets,
    caller: &Caller,
    captured: &Captured,
) -> Result<Option<Reservation>, Problem> {
    if captured.stdout.len() + captured.stderr.len() <= MAX_WHOLE_BYTES {
        return Ok(None);
    }
    budgets.reserve_done(caller, MEMORY_BYTES).await.map(Some)
}

/// Answers with what a run printed and how it ended; under `fail_status` where that was no success. The
/// text is made piece by piece of the captured bytes, which stay until the last of it was taken, as does
/// what is `reserved`. Where nothing is the answer is whole, and has a `Content-Length`.
pub(crate) fn answer(
    captured: Captured,
    session_id: &str,
    encoding: EncodingDto,
    fail_status: Option<StatusCode>,
    reserved: Option<Reservation>,
) -> Result<Response, Problem> {
    let end = EndDto::new(&captured.end, session_id);
    let error = fail_status.and_then(|_| end.failure());
    let status = match fail_status {
        Some(status) if error.is_some() => status,
        _ => StatusCode::OK,
    };
    let frame = ExecuteResultDto { end, stdout: String::new(), stderr: String::new(), error };
    let writer = serde_json::to_string(&frame)
        .ok()
        .and_then(|frame| Writer::new(&frame, captured, encoding))
        .ok_or_else(|| {
            let detail = "the server failed to answer";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        })?;
    let body = match reserved {
        None => {
            let pieces: Vec<Bytes> = writer.collect();
            Body::from(pieces.concat())
        }
        Some(reserved) => {
            Body::from_stream(stream::unfold((writer, reserved), |(mut writer, reserved)| async {
                // Whoever reads fast must not keep others from the worker.
                tokio::task::yield_now().await;
                let piece = writer.next()?;
                Some((Ok::<_, Infallible>(piece), (writer, reserved)))
            }))
        }
    };
    let kind = HeaderValue::from_static("application/json");
    Ok((status, [(CONTENT_TYPE, kind)], body).into_response())
}

/// The pieces of an answer.
struct Writer {
    parts: VecDeque<Part>,
}

enum Part {
    /// JSON around the outputs.
    Frame(String),
    Output(Output),
}

/// What is left of an output.
struct Output {
    data: Bytes,
    /// What stands on either side of a gap must not form a character that was never printed.
    until_gap: Option<usize>,
    text: Text,
}

impl Writer {
    fn new(frame: &str, captured: Captured, encoding: EncodingDto) -> Option<Self> {
        let [head, between, tail] = around_outputs(frame)?;
        let output = |data: Bytes, gap: Option<Gap>| {
            let gap = gap.and_then(|gap| usize::try_from(gap.at).ok());
            let until_gap = gap.filter(|gap| *gap < data.len());
            Part::Output(Output { data, until_gap, text: Text::new(encoding) })
        };
        let frame = |text: &str| Part::Frame(text.to_owned());
        let Captured { stdout, stderr, end, .. } = captured;
        let parts = [
            frame(head),
            output(stdout, end.stdout_gap),
            frame(between),
            output(stderr, end.stderr_gap),
            frame(tail),
        ];
        Some(Self { parts: parts.into() })
    }
}

impl Iterator for Writer {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = String::new();
        while piece.len() < PIECE_BYTES {
            match self.parts.front_mut() {
                None => break,
                Some(Part::Frame(text)) => piece.push_str(text),
                Some(Part::Output(output)) => {
                    if output.write(&mut piece) {
                        continue;
                    }
                }
            }
            self.parts.pop_front();
        }
        (!piece.is_empty()).then(|| piece.into())
    }
}

impl Output {
    /// Writes the next part of it; returns whether there may be more.
    fn write(&mut self, piece: &mut String) -> bool {
        if self.until_gap == Some(0) {
            self.until_gap = None;
            quote(&self.text.pause(), piece);
        }
        if self.data.is_empty() {
            quote(&self.text.finish(), piece);
            return false;
        }
        let most = self.until_gap.unwrap_or(usize::MAX).min(READ_BYTES).min(self.data.len());
        let data = self.data.split_to(most);
        self.until_gap = self.until_gap.map(|gap| gap - most);
        quote(&self.text.push(&data), piece);
        true
    }
}

/// An answer with no more output is made at once: less than 200 KiB of JSON.
const MAX_WHOLE_BYTES: usize = 32 << 10;
/// So much is made into text at once, which may be six times as long.
const READ_BYTES: usize = 16 << 10;
/// A piece is complete once it has so many bytes.
const PIECE_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn written(data: &[u8], gap: Option<usize>, encoding: EncodingDto) -> (Value, usize) {
        let frame = r#"{"a":"\"stdout\":\"\"","stdout":"","stderr":"","error":"\"stderr\":\"\""}"#;
        let [head, between, tail] = around_outputs(frame).expect("both are there");
        let output = |data: &[u8]| {
            let data = Bytes::copy_from_slice(data);
            Part::Output(Output { data, until_gap: gap, text: Text::new(encoding) })
        };
        let frame = |text: &str| Part::Frame(text.to_owned());
        let parts = [frame(head), output(data), frame(between), output(data), frame(tail)];
        let pieces: Vec<Bytes> = Writer { parts: parts.into() }.collect();
        let longest = pieces.iter().map(Bytes::len).max().unwrap_or(0);
        (serde_json::from_slice(&pieces.concat()).expect("JSON"), longest)
    }

    #[test]
    fn control_characters_take_six_bytes_in_pieces_that_are_short() {
        let (value, longest) = written(&vec![0; 1_000_000], None, EncodingDto::Utf8);
        assert_eq!(value["stderr"].as_str().map(str::len), Some(1_000_000));
        assert!(longest <= PIECE_BYTES + 6 * READ_BYTES, "{longest}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_are_the_text_of_the_whole(
            chunk in prop::collection::vec(
                prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xac)], 1..300),
            times in prop_oneof![Just(1), 100..200usize],
            gap in any::<prop::sample::Index>(),
        ) {
            let data = chunk.repeat(times);
            let gap = gap.index(data.len());
            let (head, tail) = data.split_at(gap);
            let text = String::from_utf8_lossy(head).into_owned() + &String::from_utf8_lossy(tail);
            let (value, _) = written(&data, Some(gap), EncodingDto::Utf8);
            prop_assert_eq!(value["stdout"].as_str(), Some(&*text));
            prop_assert_eq!(value["stderr"].as_str(), Some(&*text));
            let (value, _) = written(&data, Some(gap), EncodingDto::Base64);
            prop_assert_eq!(value["stdout"].as_str(), Some(&*BASE64_STANDARD.encode(&data)));
        }
    }
}
