//! Encoding of updates in a client's protocol.

use bytes::Bytes;
use serde_json::{Value, json};
use splengine_core::execute::ExitStatus;
use splengine_core::quota::MemoryError;
use splengine_core::session::{Attachment, Closed, Notice, SavedInfo, Update};
use splengine_core::terminal::Size;
use splengine_core::text::{Utf8Pieces, camel_case};
use splengine_core::{ErrorKind, SessionError};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::frame;

/// The protocol of a client.
#[derive(Debug)]
pub(crate) enum Encoder {
    Plain(PlainEncoder),
    V1,
}

/// Output or a screen that is told in pieces, each of which is encoded when there is room for it.
#[derive(Debug)]
pub(crate) struct Pieces {
    kind: PiecesKind,
    /// The rest of it.
    data: Bytes,
}

#[derive(Debug)]
enum PiecesKind {
    Output {
        offset: u64,
    },
    Screen {
        /// The offset that it stands for and its size, until they are told.
        head: Option<(u64, Size)>,
    },
}

/// What is known of a plain client: the character that its last frame ended in, and what it was told
/// of its session.
#[derive(Debug, Default)]
pub(crate) struct PlainEncoder {
    pieces: Utf8Pieces,
    session: Value,
}

impl Encoder {
    /// The first frame of an attachment.
    pub(crate) fn session(&mut self, attachment: &Attachment) -> Message {
        let info = attachment.info();
        let session = json!({
            "type": "session",
            "sessionId": info.id.as_str(),
            "cols": info.size.cols(),
            "rows": info.size.rows(),
            "access": attachment.access().name(),
            "epoch": attachment.epoch(),
            "offset": attachment.offset(),
            "client": attachment.client_id(),
            "name": info.name,
            "user": info.user.as_str(),
            "title": info.title,
            "state": info.state.name(),
            "workdir": info.workdir,
            "restored": info.restored,
        });
        let frame = text(&session);
        if let Self::Plain(plain) = self {
            *plain = PlainEncoder { pieces: Utf8Pieces::default(), session };
        }
        frame
    }

    /// Adds the frames of an update to `frames`, of which a close frame is the last; output and screens are left
    /// to be told [piece by piece](Self::piece).
    pub(crate) fn update(&mut self, update: Update, frames: &mut Vec<Message>) -> Option<Pieces> {
        match update {
            Update::Output { offset, data } => {
                Some(Pieces { kind: PiecesKind::Output { offset }, data })
            }
            Update::Snapshot { offset, size, data } => {
                Some(Pieces { kind: PiecesKind::Screen { head: Some((offset, size)) }, data })
            }
            update => {
                frames.extend(self.short_update(update));
                None
            }
        }
    }

    fn short_update(&mut self, update: Update) -> Vec<Message> {
        match (update, self) {
            (Update::Size(size), speech) => {
                let size = json!({"type": "size", "cols": size.cols(), "rows": size.rows()});
                let mut frames = vec![text(&size)];
                if let Self::Plain(PlainEncoder { session, .. }) = speech {
                    session["cols"] = size["cols"].clone();
                    session["rows"] = size["rows"].clone();
                    frames.push(text(session));
                }
                frames
            }
            (Update::Title(title), _) => vec![text(&json!({"type": "title", "title": title}))],
            (Update::Presence(clients), _) => {
                let list: Vec<Value> = clients
                    .iter()
                    .map(|client| {
                        json!({
                            "id": client.id,
                            "user": client.user.as_str(),
                            "access": client.access.name(),
                            "you": client.you,
                        })
                    })
                    .collect();
                vec![
                    text(&json!({"type": "clients", "count": list.len()})),
                    text(&json!({"type": "presence", "clients": list})),
                ]
            }
            (Update::Control { controller, you }, _) => {
                vec![text(&json!({"type": "control", "holder": controller, "you": you}))]
            }
            (Update::Notice(notice), _) => vec![text(&notice_frame(&notice))],
            (Update::Exit(status), speech) => {
                let mut frames = speech.rest();
                frames.push(text(&exit_frame(status)));
                frames.push(close(1000, "ended"));
                frames
            }
            (Update::Closed(closed), _) => match closed {
                Closed::Expired => {
                    let notice = json!({"type": "notice", "kind": "culled"});
                    vec![text(&notice), close(4408, "the session was idle or old")]
                }
                Closed::Revoked => {
                    let notice = json!({"type": "notice", "kind": "revoked"});
                    vec![text(&notice), close(4403, "the share was taken back or has expired")]
                }
                Closed::CredentialsRevoked => {
                    vec![
                        error("the credentials were taken back", "credentials"),
                        close(4401, "credentials"),
                    ]
                }
                Closed::Restart => vec![close(1012, "restart")],
                Closed::Memory(shortage) => {
                    let (code, word) = shortage_code(shortage);
                    vec![error(shortage.of_answer(), word), close(code, word)]
                }
                _ => vec![close(1000, "attached anew")],
            },
            _ => Vec::new(),
        }
    }

    /// The next frame of output or a screen, `None` after the last. Each has [`MAX_PLAIN_PIECE_BYTES`] or
    /// [`MAX_PIECE_BYTES`] of it at most. A screen is an `output` for a plain client; for the other its pieces are
    /// fragments of one message.
    pub(crate) fn piece(&mut self, pieces: &mut Pieces) -> Option<Message> {
        let Pieces { kind, data } = pieces;
        match (self, kind) {
            (Self::Plain(plain), kind) => {
                if let PiecesKind::Screen { head } = kind
                    && head.take().is_some()
                {
                    // What it begins with is no rest of what was before.
                    plain.pieces = Utf8Pieces::default();
                    return Some(plain.output(data));
                }
                // An unfinished character at the end goes on in the output that follows.
                while !data.is_empty() {
                    let output = plain.take(data);
                    if !output.is_empty() {
                        return Some(text(&json!({"type": "output", "data": output})));
                    }
                }
                None
            }
            (Self::V1, PiecesKind::Output { offset }) => {
                let piece = next_piece(data, MAX_PIECE_BYTES)?;
                let output = frame::output(*offset, &piece);
                *offset += piece.len() as u64;
                Some(Message::Binary(output))
            }
            (Self::V1, PiecesKind::Screen { head }) => {
                if let Some((offset, size)) = head.take() {
                    let (cols, rows) = (size.cols(), size.rows());
                    if data.len() <= MAX_PIECE_BYTES {
                        let data = std::mem::take(data);
                        let whole = frame::snapshot(offset, cols, rows, &data);
                        return Some(Message::Binary(whole));
                    }
                    let head = frame::snapshot(offset, cols, rows, &[]);
                    let code = OpCode::Data(Data::Binary);
                    return Some(Message::Frame(Frame::message(head, code, false)));
                }
                let piece = next_piece(data, MAX_PIECE_BYTES)?;
                let (code, is_last) = (OpCode::Data(Data::Continue), data.is_empty());
                Some(Message::Frame(Frame::message(piece, code, is_last)))
            }
        }
    }

    /// What is left of a character that never came to its end.
    fn rest(&mut self) -> Vec<Message> {
        match self {
            Self::Plain(plain) => match plain.pieces.finish() {
                data if data.is_empty() => Vec::new(),
                data => vec![text(&json!({"type": "output", "data": data}))],
            },
            Self::V1 => Vec::new(),
        }
    }
}

impl PlainEncoder {
    fn output(&mut self, data: &mut Bytes) -> Message {
        let output = self.take(data);
        text(&json!({"type": "output", "data": output}))
    }

    /// The characters of the next piece of `data`.
    fn take(&mut self, data: &mut Bytes) -> String {
        let piece = next_piece(data, MAX_PLAIN_PIECE_BYTES).unwrap_or_default();
        self.pieces.push(&piece)
    }
}

impl Pieces {
    pub(crate) fn are_screen(&self) -> bool {
        matches!(self.kind, PiecesKind::Screen { .. })
    }

    /// How much memory it takes at most until it is told: the data of output, one frame and its copy in the
    /// socket's buffer. The data of a screen is reserved for it since before it was drawn.
    pub(crate) fn memory(&self) -> usize {
        let data = if self.are_screen() { 0 } else { self.data.len() };
        let plain = self.data.len().min(MAX_PLAIN_PIECE_BYTES) * MAX_JSON_BYTES;
        data + 2 * plain.max(self.data.len().min(MAX_PIECE_BYTES))
    }
}

/// Takes at most `max` bytes off the beginning of `data`, `None` if there are none.
fn next_piece(data: &mut Bytes, max: usize) -> Option<Bytes> {
    (!data.is_empty()).then(|| data.split_to(data.len().min(max)))
}

pub(crate) fn text(value: &Value) -> Message {
    Message::Text(value.to_string().into())
}

pub(crate) fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
}

pub(crate) fn error(message: &str, code: &str) -> Message {
    text(&json!({"type": "error", "error": message, "code": code}))
}

/// The answer to a ping, with what that holds.
pub(crate) fn pong(t: Option<Value>) -> Message {
    let mut pong = json!({"type": "pong"});
    if let Some(t) = t {
        pong["t"] = t;
    }
    text(&pong)
}

pub(crate) fn saved(info: &SavedInfo) -> Message {
    text(&json!({"type": "saved", "savedId": info.id.as_str(), "name": info.name}))
}

/// An error frame for a refusal, and the code to close with if the client has nothing without.
pub(crate) fn refusal(error: &SessionError) -> (Message, u16, &'static str) {
    let (code, word) = match error {
        SessionError::Draining => (1012, "restart"),
        error => close_code(error.kind()).unwrap_or((1011, "internal")),
    };
    let message = match error.kind() {
        ErrorKind::Internal => "the engine failed to do it".to_owned(),
        _ => error.message(|field| camel_case(field.name())),
    };
    (self::error(&message, word), code, word)
}

/// The close code and the word for a kind of refusal, where there is one.
fn close_code(kind: ErrorKind) -> Option<(u16, &'static str)> {
    Some(match kind {
        ErrorKind::Malformed | ErrorKind::Impossible => (4400, "invalid"),
        ErrorKind::Unauthenticated => (4401, "credentials"),
        ErrorKind::Forbidden => (4403, "forbidden"),
        ErrorKind::NotFound | ErrorKind::Conflict => (4404, "no_session"),
        ErrorKind::CallerLimit | ErrorKind::NoRoom | ErrorKind::Unavailable => (4429, "limit"),
        ErrorKind::Internal => (1011, "internal"),
        _ => return None,
    })
}

/// The close code and the word for a message for which there is no memory.
pub(crate) fn shortage_code(shortage: MemoryError) -> (u16, &'static str) {
    match shortage.kind() {
        ErrorKind::CallerLimit => (4429, "limit"),
        _ => (1013, "busy"),
    }
}

fn exit_frame(status: ExitStatus) -> Value {
    let signal = status.signal().map(|signal| signal.to_string());
    json!({"type": "exit", "exitCode": status.exit_code(), "signal": signal})
}

fn notice_frame(notice: &Notice) -> Value {
    match notice {
        Notice::Resynced => json!({"type": "notice", "kind": "resynced"}),
        Notice::IdleWarning { seconds } => {
            json!({"type": "notice", "kind": "idle_warning", "seconds": seconds})
        }
        Notice::RecordingStopped { reason } => {
            json!({"type": "notice", "kind": "recording_stopped", "reason": reason})
        }
        Notice::SizeRefused { size, reason } => json!({
            "type": "notice",
            "kind": "size_refused",
            "cols": size.cols(),
            "rows": size.rows(),
            "reason": reason,
        }),
        Notice::Restart => json!({"type": "notice", "kind": "restart"}),
        _ => json!({"type": "notice", "kind": "unknown"}),
    }
}

/// Largest piece of output or a screen in one frame.
const MAX_PIECE_BYTES: usize = 16 << 10;
/// The same for plain clients, where a byte may take [`MAX_JSON_BYTES`].
const MAX_PLAIN_PIECE_BYTES: usize = 4 << 10;
/// A control character in JSON: `\u001b`.
const MAX_JSON_BYTES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells all of an update's data, and gives the frames.
    fn tell(speech: &mut Encoder, update: Update) -> Vec<Message> {
        let mut pieces = speech.update(update, &mut Vec::new()).expect("it has data");
        let memory = pieces.memory();
        let data = if pieces.are_screen() { 0 } else { pieces.data.len() };
        let frames: Vec<_> = std::iter::from_fn(|| speech.piece(&mut pieces)).collect();
        let largest = frames.iter().map(Message::len).max().unwrap_or_default();
        // A frame has a few words beside its piece.
        assert!(data + 2 * largest <= memory + 100, "{largest} of {memory}");
        assert!(largest <= 25 << 10, "{largest}");
        frames
    }

    #[test]
    fn large_output_is_told_in_pieces() {
        // Each takes six bytes in JSON, but for the characters among them that are cut.
        let data = Bytes::from("\u{1}".repeat(20_000) + &"€".repeat(20_000));
        let mut plain = Encoder::Plain(PlainEncoder::default());
        let mut told = String::new();
        for frame in tell(&mut plain, Update::Output { offset: 7, data: data.clone() }) {
            let frame: Value = serde_json::from_str(frame.to_text().expect("text")).expect("JSON");
            told += frame["data"].as_str().expect("text");
        }
        assert_eq!(told.as_bytes(), data);
        let mut next = 7;
        let mut told = Vec::new();
        for frame in tell(&mut Encoder::V1, Update::Output { offset: 7, data: data.clone() }) {
            let frame = frame.into_data();
            assert_eq!(frame[1..9], u64::to_be_bytes(next));
            next += frame.len() as u64 - 9;
            told.extend_from_slice(&frame[9..]);
        }
        assert_eq!((next, &told[..]), (7 + data.len() as u64, &data[..]));
    }

    #[test]
    fn a_large_screen_is_told_in_pieces() {
        let size = Size::new(80, 24).expect("a size");
        let data = Bytes::from("\u{1b}[m".repeat(20_000));
        let screen = || Update::Snapshot { offset: 7, size, data: data.clone() };
        let mut plain = Encoder::Plain(PlainEncoder::default());
        let frames = tell(&mut plain, screen());
        assert!(frames.len() > 10, "{}", frames.len());
        let frames = tell(&mut Encoder::V1, screen());
        let message: usize = frames.iter().map(Message::len).sum();
        assert!(message >= data.len() && frames.len() > 3, "{message} in {}", frames.len());
        let small = Update::Snapshot { offset: 7, size, data: Bytes::new() };
        assert_eq!(tell(&mut Encoder::V1, small).len(), 1, "the head at least");
    }

    #[test]
    fn every_kind_of_refusal_has_a_close_code() {
        for &kind in ErrorKind::ALL {
            assert!(close_code(kind).is_some(), "{kind:?}");
        }
        let error = SessionError::NoSession("spl-x".to_owned());
        assert_eq!(refusal(&error).1, 4404);
        assert_eq!(refusal(&SessionError::Full { limit: 1 }).1, 4429);
        assert_eq!(refusal(&SessionError::Draining).1, 1012);
        assert_eq!(refusal(&SessionError::NoShare).1, 4404);
    }
}
