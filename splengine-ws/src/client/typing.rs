//! The typing of what a client sent.

use bytes::Bytes;
use serde_json::json;
use splengine_core::{Reservation, SessionError, Typist};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::client::tell::Word;
use crate::speech::{self, text};

/// Input on its way, and the memory that it takes.
pub(crate) struct Typed {
    pub(crate) typist: Typist,
    pub(crate) number: Option<u64>,
    pub(crate) data: Bytes,
    pub(crate) _room: Option<OwnedSemaphorePermit>,
    pub(crate) _reservation: Option<Reservation>,
}

/// Types what was read, in order, and says how far it came.
pub(crate) async fn type_all(mut typed: mpsc::Receiver<Typed>, words: mpsc::Sender<Word>) {
    while let Some(Typed { typist, number, data, _room, _reservation }) = typed.recv().await {
        let done = match number {
            None => typist.input(data).await.map(|()| None),
            Some(number) => typist.numbered_input(number, data).await.map(Some),
        };
        let word = match done {
            Ok(None) => continue,
            Ok(Some(number)) => Word::Say(text(&json!({"type": "input_ack", "number": number}))),
            // The session's own end says it better.
            Err(SessionError::Ended) => continue,
            Err(error @ SessionError::Gap { .. }) => {
                let (message, code, _) = speech::refusal(&error);
                Word::Last(message, code, "protocol")
            }
            Err(SessionError::Forbidden(problem)) => {
                let read_only = json!({"type": "notice", "kind": "read_only"});
                if words.send(Word::Say(text(&read_only))).await.is_err() {
                    return;
                }
                Word::Say(speech::error(problem, "read_only"))
            }
            Err(error) => Word::Say(speech::refusal(&error).0),
        };
        if words.send(word).await.is_err() {
            return;
        }
    }
}
