//! The typing of what a client sent.

use bytes::Bytes;
use serde_json::json;
use splengine_core::SessionError;
use splengine_core::quota::Reservation;
use splengine_core::session::ClientInput;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::connection::tell::Outbound;
use crate::encode::{self, text};

/// Input on its way, and the memory that it takes.
pub(crate) struct Typed {
    pub(crate) input_handle: ClientInput,
    pub(crate) number: Option<u64>,
    pub(crate) data: Bytes,
    pub(crate) _permits: Option<OwnedSemaphorePermit>,
    pub(crate) _reservation: Option<Reservation>,
}

/// Types what was read, in order, and says how far it came.
pub(crate) async fn type_all(mut typed: mpsc::Receiver<Typed>, words: mpsc::Sender<Outbound>) {
    while let Some(Typed { input_handle, number, data, _permits, _reservation }) =
        typed.recv().await
    {
        let done = match number {
            None => input_handle.input(data).await.map(|()| None),
            Some(number) => input_handle.numbered_input(number, data).await.map(Some),
        };
        let word = match done {
            Ok(None) => continue,
            Ok(Some(number)) => {
                Outbound::Say(text(&json!({"type": "input_ack", "number": number})))
            }
            // The session's own end says it better.
            Err(SessionError::Ended) => continue,
            Err(error @ SessionError::Gap { .. }) => {
                let (message, code, _) = encode::refusal(&error);
                Outbound::Last(message, code, "protocol")
            }
            Err(SessionError::Forbidden(problem)) => {
                let read_only = json!({"type": "notice", "kind": "read_only"});
                if words.send(Outbound::Say(text(&read_only))).await.is_err() {
                    return;
                }
                Outbound::Say(encode::error(problem, "read_only"))
            }
            Err(error) => Outbound::Say(encode::refusal(&error).0),
        };
        if words.send(word).await.is_err() {
            return;
        }
    }
}
