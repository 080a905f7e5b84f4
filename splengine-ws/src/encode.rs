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

/// A screen that is told.
#[derive(Debug)]
pub(crate) struct ScreenFrames {
    /// The offset that it stands for and its size, until they are told.
    pub(crate) head: Option<(u64, Size)>,
    /// The rest of what draws it.
    pub(crate) data: Bytes,
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

    /// The frames of an update; a close frame is the last.
    pub(crate) fn update(&mut self, update: Update) -> Vec<Message> {
        match (update, self) {
            (Update::Output { offset, data }, Self::V1) => {
                vec![Message::Binary(frame::output(offset, &data))]
            }
            (Update::Output { data, .. }, Self::Plain(plain)) => match plain.pieces.push(&data) {
                data if data.is_empty() => Vec::new(),
                data => vec![text(&json!({"type": "output", "data": data}))],
            },
            (Update::Snapshot { offset, size, data }, speech) => {
                let mut screen = ScreenFrames { head: Some((offset, size)), data };
                std::iter::from_fn(|| speech.screen(&mut screen)).collect()
            }
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

    /// The next frame of a screen, `None` after the last. Each has [`PIECE_BYTES`] of it at most: for a
    /// plain client as an `output` of its own, else as a fragment of one message.
    pub(crate) fn screen(&mut self, screen: &mut ScreenFrames) -> Option<Message> {
        let head = screen.head.take();
        match self {
            Self::Plain(plain) => {
                if head.is_some() {
                    plain.pieces = Utf8Pieces::default();
                } else if screen.data.is_empty() {
                    // An unfinished character at its end goes on in the output that follows.
                    return None;
                }
                let piece = screen.data.split_to(screen.data.len().min(PIECE_BYTES));
                let data = plain.pieces.push(&piece);
                Some(text(&json!({"type": "output", "data": data})))
            }
            Self::V1 => {
                if let Some((offset, size)) = head {
                    let (cols, rows) = (size.cols(), size.rows());
                    if screen.data.len() <= PIECE_BYTES {
                        let data = std::mem::take(&mut screen.data);
                        let whole = frame::snapshot(offset, cols, rows, &data);
                        return Some(Message::Binary(whole));
                    }
                    let head = frame::snapshot(offset, cols, rows, &[]);
                    let code = OpCode::Data(Data::Binary);
                    return Some(Message::Frame(Frame::message(head, code, false)));
                }
                if screen.data.is_empty() {
                    return None;
                }
                let piece = screen.data.split_to(screen.data.len().min(PIECE_BYTES));
                let (code, is_last) = (OpCode::Data(Data::Continue), screen.data.is_empty());
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

/// Largest piece of a screen in one frame.
const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

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
