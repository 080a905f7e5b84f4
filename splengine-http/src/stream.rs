//! A run as a stream of events.

use std::pin::Pin;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use splengine_core::engine::QueuedRun;
use splengine_core::execute::Stream;
use splengine_core::text::Utf8Pieces;
use splengine_core::{End, ErrorKind, Event, ExecuteError, Reason, Run};

use crate::dto::{
    EncodingDto, EndDto, EventDto, ExitDto, ExitName, LostDto, LostName, OutputDto, QueuedDto,
    QueuedName, StartedDto, StartedName,
};
use crate::negotiate::Format;
use crate::problem::Problem;
use crate::silence::Silence;

/// A run of which events are told.
pub(crate) enum Told {
    /// It runs already.
    Running(Run),
    /// It waits for a place.
    Queued(Queued),
}

/// A run that waits for a place, and what brings it there.
pub(crate) struct Queued {
    execution_id: String,
    session_id: String,
    start: Pin<Box<dyn Future<Output = Result<Run, ExecuteError>> + Send>>,
}

impl Queued {
    /// `then` is called with the run once there is one.
    pub(crate) fn new(queued: QueuedRun, then: impl FnOnce(&Run) + Send + 'static) -> Self {
        Self {
            execution_id: queued.execution_id().to_string(),
            session_id: queued.session_id().to_string(),
            start: Box::pin(async move { queued.started().await.inspect(then) }),
        }
    }
}

/// The answer that gives a run's events as they come. Dropping its body cancels the run.
pub(crate) fn response(
    run: Told,
    format: Format,
    encoding: EncodingDto,
    silence: Silence,
) -> Response {
    let state = Some(Writer::new(run, format, encoding, silence));
    let chunks = stream::unfold(state, |state| async {
        let mut writer = state?;
        let (chunk, ended) = writer.next().await;
        Some((Ok::<_, std::convert::Infallible>(chunk), (!ended).then_some(writer)))
    });
    as_it_comes(format.media_type(), Body::from_stream(chunks))
}

/// An answer of which each piece is to arrive when it is sent.
pub(crate) fn as_it_comes(media_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    // nginx and those that follow it hold events back otherwise.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

struct Writer {
    stage: Stage,
    session_id: String,
    format: Format,
    encoding: EncodingDto,
    silence: Silence,
    texts: [Utf8Pieces; 2],
    seq: u64,
}

/// How far a run has come, as its reader knows.
enum Stage {
    /// It waits, which was not told yet.
    Queued(Queued),
    Waits(Queued),
    /// It runs, which was not told yet.
    Begins(Run),
    Runs(Run),
    Over,
}

impl Writer {
    fn new(run: Told, format: Format, encoding: EncodingDto, silence: Silence) -> Self {
        let (session_id, stage) = match run {
            Told::Running(run) => (run.session_id().to_string(), Stage::Begins(run)),
            Told::Queued(queued) => (queued.session_id.clone(), Stage::Queued(queued)),
        };
        Self { stage, session_id, format, encoding, silence, texts: Default::default(), seq: 0 }
    }

    /// The next bytes to send, never none, and whether they are the last.
    async fn next(&mut self) -> (Bytes, bool) {
        let mut out = BytesMut::new();
        let mut ended = false;
        while out.is_empty() && !ended {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Queued(queued) => {
                    self.tell_queued(&mut out, queued.execution_id.clone());
                    Stage::Waits(queued)
                }
                Stage::Waits(mut queued) => {
                    match self.silence.unless_too_long(&mut queued.start).await {
                        None => {
                            self.tell_nothing(&mut out);
                            Stage::Waits(queued)
                        }
                        Some(Ok(run)) if run.was_begun() => Stage::Begins(run),
                        Some(Ok(run)) => Stage::Runs(run),
                        Some(Err(error)) => {
                            self.tell_failed_start(&mut out, error);
                            ended = true;
                            Stage::Over
                        }
                    }
                }
                Stage::Begins(run) => {
                    let id = run.execution_id().map(ToString::to_string);
                    self.tell_started(&mut out, id);
                    Stage::Runs(run)
                }
                Stage::Runs(mut run) => {
                    match self.silence.unless_too_long(run.next()).await {
                        Some(Some(event)) => ended = self.take(&mut out, event),
                        Some(None) => ended = true,
                        None => self.tell_nothing(&mut out),
                    }
                    Stage::Runs(run)
                }
                Stage::Over => {
                    ended = true;
                    Stage::Over
                }
            };
        }
        (out.freeze(), ended)
    }

    fn tell_queued(&mut self, out: &mut BytesMut, execution_id: String) {
        let (name, session_id) = (QueuedName::Queued, self.session_id.clone());
        self.write(out, |seq| {
            EventDto::Queued(QueuedDto { event: name, kind: name, seq, session_id, execution_id })
        });
    }

    fn tell_started(&mut self, out: &mut BytesMut, execution_id: Option<String>) {
        let (name, session_id) = (StartedName::Started, self.session_id.clone());
        self.write(out, |seq| {
            EventDto::Started(StartedDto { event: name, kind: name, seq, session_id, execution_id })
        });
    }

    /// A sign of life.
    fn tell_nothing(&self, out: &mut BytesMut) {
        out.extend_from_slice(match self.format {
            Format::Sse => b":\n\n",
            Format::Json | Format::NdJson => b"\n",
        });
    }

    /// The status is sent, and no stream is without its end.
    fn tell_failed_start(&mut self, out: &mut BytesMut, error: ExecuteError) {
        let reason = match error.kind() {
            ErrorKind::Unavailable => Reason::Cancelled,
            _ => Reason::Lost,
        };
        let error = Some(Problem::from(error).into_detail());
        let end = EndDto::new(&End::never_begun(reason), &self.session_id);
        let name = ExitName::Exit;
        self.write(out, |seq| EventDto::Exit(ExitDto { event: name, kind: name, seq, end, error }));
    }

    fn take(&mut self, out: &mut BytesMut, event: Event) -> bool {
        match event {
            Event::Output { stream, data } => {
                for piece in data.chunks(PIECE) {
                    let text = match self.encoding {
                        EncodingDto::Utf8 => self.texts[index(stream)].push(piece),
                        EncodingDto::Base64 => BASE64_STANDARD.encode(piece),
                    };
                    self.write_text(out, stream, text);
                }
                false
            }
            Event::Lost { stream, bytes } => {
                self.finish_text(out, stream);
                let (name, stream) = (LostName::Lost, stream.into());
                self.write(out, |seq| {
                    EventDto::Lost(LostDto { event: name, kind: name, seq, stream, bytes })
                });
                false
            }
            Event::End(end) => {
                self.finish_text(out, Stream::Stdout);
                self.finish_text(out, Stream::Stderr);
                let end = EndDto::new(&end, &self.session_id);
                let name = ExitName::Exit;
                self.write(out, |seq| {
                    EventDto::Exit(ExitDto { event: name, kind: name, seq, end, error: None })
                });
                true
            }
            _ => false,
        }
    }

    fn finish_text(&mut self, out: &mut BytesMut, stream: Stream) {
        let rest = self.texts[index(stream)].finish();
        self.write_text(out, stream, rest);
    }

    fn write_text(&mut self, out: &mut BytesMut, stream: Stream, text: String) {
        if !text.is_empty() {
            let name = stream.into();
            self.write(out, |seq| {
                EventDto::Output(OutputDto { event: name, kind: name, seq, data: text })
            });
        }
    }

    fn write(&mut self, out: &mut BytesMut, event: impl FnOnce(u64) -> EventDto) {
        let event = event(self.seq);
        self.seq += 1;
        let (name, seq) = event.head();
        let json = serde_json::to_string(&event).unwrap_or_default();
        match self.format {
            Format::Sse => {
                let head = format!("event: {name}\nid: {seq}\ndata: ");
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(json.as_bytes());
                out.extend_from_slice(b"\n\n");
            }
            Format::Json | Format::NdJson => {
                out.extend_from_slice(json.as_bytes());
                out.extend_from_slice(b"\n");
            }
        }
    }
}

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

/// How many bytes of output one event carries at most.
const PIECE: usize = 64 * 1024;
