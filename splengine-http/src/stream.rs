//! A run as a stream of events.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use splengine_core::{Event, Run, Stream, Utf8Pieces};

use crate::accept::Format;
use crate::dto::{
    EncodingDto, EndDto, EventDto, ExitDto, ExitName, LostDto, LostName, OutputDto, StartedDto,
    StartedName,
};
use crate::silence::Silence;

/// The answer that gives a run's events as they come. Dropping its body cancels the run.
pub(crate) fn response(
    run: Run,
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

pub(crate) const EVENTS: &str = "text/event-stream";

struct Writer {
    run: Run,
    session_id: String,
    format: Format,
    encoding: EncodingDto,
    silence: Silence,
    texts: [Utf8Pieces; 2],
    seq: u64,
    begun: bool,
}

impl Writer {
    fn new(run: Run, format: Format, encoding: EncodingDto, silence: Silence) -> Self {
        let session_id = run.session_id().to_string();
        Self {
            run,
            session_id,
            format,
            encoding,
            silence,
            texts: Default::default(),
            seq: 0,
            begun: false,
        }
    }

    /// The next bytes to send, never none, and whether they are the last.
    async fn next(&mut self) -> (Bytes, bool) {
        let mut out = BytesMut::new();
        if !self.begun {
            self.begun = true;
            let session_id = self.session_id.clone();
            let name = StartedName::Started;
            self.write(&mut out, |seq| {
                EventDto::Started(StartedDto { event: name, kind: name, seq, session_id })
            });
            return (out.freeze(), false);
        }
        let mut ended = false;
        while out.is_empty() {
            match self.silence.unless_too_long(self.run.next()).await {
                Some(Some(event)) => ended = self.take(&mut out, event),
                Some(None) => ended = true,
                None => out.extend_from_slice(match self.format {
                    Format::Sse => b":\n\n",
                    Format::Json | Format::NdJson => b"\n",
                }),
            }
            if ended {
                break;
            }
        }
        (out.freeze(), ended)
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
                    EventDto::Exit(ExitDto { event: name, kind: name, seq, end })
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
