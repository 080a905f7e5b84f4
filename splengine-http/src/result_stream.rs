//! The results of a batch in JSON, written while they are read.

use std::io;
use std::mem;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use splengine_core::BatchError;
use splengine_core::batch::{BatchResultReader, BatchState};
use splengine_core::execute::Stream;
use splengine_core::quota::Reservation;
use tokio::sync::mpsc;

use crate::dto::EncodingDto;
use crate::dto_batches::{BatchResultDto, StepResultDto};
use crate::output_text::{Text, around_outputs, quote};
use crate::problem::Problem;

/// The answer with all that the steps of a batch printed, each encoded as `encoding` says of its place.
/// It is written piece by piece, as the client takes it; only one that is short is whole, and has a
/// `Content-Length`. What the batch's record takes is `reserved` until all of it is written.
pub(crate) async fn answer(
    results: BatchResultReader,
    encoding: impl Fn(usize) -> EncodingDto + Send + Sync + 'static,
    reserved: Reservation,
) -> Result<Response, Problem> {
    let (out, mut pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        let _reserved = reserved;
        let mut writer = Writer { out, buffer: Vec::new() };
        if let Err(Stopped::Failed(error)) = writer.write(&results, encoding).await {
            let _ = writer.out.send(Err(error)).await;
        }
    });
    let first = pieces.recv().await.unwrap_or_else(|| Err(broken()))?;
    let body = if first.is_last {
        Body::from(first.data)
    } else {
        let rest = stream::try_unfold(Some(pieces), |pieces| async {
            let Some(mut pieces) = pieces else { return Ok(None) };
            // Without its last piece it is not whole.
            let piece = pieces.recv().await.unwrap_or_else(|| Err(broken()))?;
            Ok::<_, BatchError>(Some((piece.data, (!piece.is_last).then_some(pieces))))
        });
        Body::from_stream(stream::iter([Ok(first.data)]).chain(rest))
    };
    let kind = HeaderValue::from_static("application/json");
    Ok((StatusCode::OK, [(CONTENT_TYPE, kind)], body).into_response())
}

fn broken() -> BatchError {
    BatchError::Internal(io::Error::from(io::ErrorKind::BrokenPipe).into())
}

struct Piece {
    data: Bytes,
    is_last: bool,
}

/// Why no more is written.
enum Stopped {
    /// The client is gone.
    Unread,
    Failed(BatchError),
}

struct Writer {
    out: mpsc::Sender<Result<Piece, BatchError>>,
    buffer: Vec<u8>,
}

impl Writer {
    async fn write(
        &mut self,
        results: &BatchResultReader,
        encoding: impl Fn(usize) -> EncodingDto,
    ) -> Result<(), Stopped> {
        let record = results.record();
        let count = record.steps.len();
        let is_base64 = count > 0 && (0..count).all(|place| encoding(place) == EncodingDto::Base64);
        let is_truncated = |stream| {
            record.steps.iter().enumerate().any(|(place, step)| {
                let gap = if stream == Stream::Stdout { step.stdout_gap } else { step.stderr_gap };
                gap.is_some() || results.is_cut(place, stream)
            })
        };
        let frame = json(&BatchResultDto {
            success: record.info.state == BatchState::Succeeded,
            batch: record.info.clone().into(),
            stdout: String::new(),
            stderr: String::new(),
            stdout_truncated: is_truncated(Stream::Stdout),
            stderr_truncated: is_truncated(Stream::Stderr),
            steps: Vec::new(),
        })?;
        let [head, between, tail] = around_outputs(&frame).ok_or_else(missing)?;
        let whole = if is_base64 { EncodingDto::Base64 } else { EncodingDto::Utf8 };
        self.push(head).await?;
        self.write_all(results, Stream::Stdout, whole).await?;
        self.push(between).await?;
        self.write_all(results, Stream::Stderr, whole).await?;
        let (tail, end) = tail.split_at(tail.len().saturating_sub("]}".len()));
        self.push(tail).await?;
        for (place, step) in record.steps.iter().enumerate() {
            if place > 0 {
                self.push(",").await?;
            }
            let frame = json(&StepResultDto {
                step: step.clone().into(),
                stdout: String::new(),
                stderr: String::new(),
            })?;
            let [head, between, tail] = around_outputs(&frame).ok_or_else(missing)?;
            self.push(head).await?;
            for (stream, after) in [(Stream::Stdout, between), (Stream::Stderr, tail)] {
                let mut text = Text::new(encoding(place));
                self.write_step(results, place, stream, &mut text).await?;
                self.push_text(&text.finish()).await?;
                self.push(after).await?;
            }
        }
        self.push(end).await?;
        self.flush(true).await
    }

    /// Writes what all steps printed on a stream.
    async fn write_all(
        &mut self,
        results: &BatchResultReader,
        stream: Stream,
        encoding: EncodingDto,
    ) -> Result<(), Stopped> {
        let mut text = Text::new(encoding);
        for place in 0..results.record().steps.len() {
            self.write_step(results, place, stream, &mut text).await?;
            self.push_text(&text.pause()).await?;
        }
        self.push_text(&text.finish()).await
    }

    async fn write_step(
        &mut self,
        results: &BatchResultReader,
        place: usize,
        stream: Stream,
        text: &mut Text,
    ) -> Result<(), Stopped> {
        let step = &results.record().steps[place];
        let gap = if stream == Stream::Stdout { step.stdout_gap } else { step.stderr_gap };
        let gap = gap.and_then(|gap| usize::try_from(gap.at).ok());
        let (length, mut at) = (results.length(place, stream), 0);
        while at < length {
            let until = gap.filter(|gap| (at + 1..length).contains(gap)).unwrap_or(length);
            let most = READ_BYTES.min(until - at);
            let data = results.read(place, stream, at, most).await.map_err(Stopped::Failed)?;
            at += data.len();
            self.push_text(&text.push(&data)).await?;
            if gap == Some(at) {
                self.push_text(&text.pause()).await?;
            }
        }
        Ok(())
    }

    /// Writes a part of a string.
    async fn push_text(&mut self, text: &str) -> Result<(), Stopped> {
        let mut quoted = String::new();
        quote(text, &mut quoted);
        self.push(&quoted).await
    }

    async fn push(&mut self, text: &str) -> Result<(), Stopped> {
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() < PIECE_BYTES {
            return Ok(());
        }
        self.flush(false).await
    }

    async fn flush(&mut self, is_last: bool) -> Result<(), Stopped> {
        let piece = Piece { data: mem::take(&mut self.buffer).into(), is_last };
        self.out.send(Ok(piece)).await.map_err(|_| Stopped::Unread)
    }
}

fn missing() -> Stopped {
    Stopped::Failed(broken())
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Stopped> {
    serde_json::to_string(value)
        .map_err(|error| Stopped::Failed(BatchError::Internal(error.into())))
}

/// So much is read at once; as text it may be six times as long.
const READ_BYTES: usize = 16 << 10;
/// A piece is sent once it has so many bytes.
const PIECE_BYTES: usize = 32 << 10;
/// About the memory of the pieces of one answer that are on their way.
pub(crate) const MEMORY_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests;
