//! Sends a client the updates of its session, and all other frames.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use futures_util::stream::SplitSink;
use serde_json::json;
use splengine_core::quota::MemoryBudget;
use splengine_core::session::Attachment;
use tokio::sync::mpsc;
use tokio::task::{coop::consume_budget, yield_now};
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::encode::{self, Encoder, Pieces, close, text};
use crate::frame_memory::{MEMORY_TIMEOUT, Socket};

/// What the teller is to do besides telling updates.
pub(crate) enum Outbound {
    /// Tells of this session from now on.
    Session(Box<Attachment>, Option<u64>),
    /// Says it.
    Say(Message),
    /// Says it, and closes.
    Last(Message, u16, &'static str),
}

/// Tells updates, and whatever else there is to say.
pub(crate) async fn tell(
    mut sink: SplitSink<Socket, Message>,
    mut told: mpsc::Receiver<Outbound>,
    mut speech: Encoder,
    ping_every: Duration,
    share: &MemoryBudget,
) {
    let patience = patience(ping_every);
    let mut reservation = share.reservation().allowance(OUTPUT_ALLOWANCE);
    let mut attachment: Option<Box<Attachment>> = None;
    let mut pings = interval(ping_every);
    pings.tick().await;
    loop {
        let update = async {
            match &mut attachment {
                Some(attachment) => attachment.next().await,
                None => std::future::pending().await,
            }
        };
        let mut frames = Vec::new();
        let mut pieces = None;
        tokio::select! {
            biased;
            word = told.recv() => match word {
                None => return,
                Some(Outbound::Say(message)) => frames.push(message),
                Some(Outbound::Session(new, number)) => {
                    frames.push(speech.session(&new));
                    if matches!(speech, Encoder::Plain(_)) {
                        new.delivered();
                    }
                    attachment = Some(new);
                    if let Some(number) = number {
                        frames.push(text(&json!({"type": "input_ack", "number": number})));
                    }
                }
                Some(Outbound::Last(message, code, reason)) => {
                    frames.extend([message, close(code, reason)]);
                }
            },
            _ = pings.tick() => frames.push(Message::Ping(Bytes::new())),
            update = update => match update {
                None => attachment = None,
                Some(update) => pieces = speech.update(update, &mut frames),
            },
        }
        // What is ready goes out together; a lone key's echo goes at once. A client that takes
        // nothing for so long is gone.
        let sent = timeout(patience, async {
            let mut sent = 0;
            loop {
                // Beside the frame there is a copy in the socket's buffer.
                let bytes = 2 * frames.iter().map(Message::len).sum::<usize>()
                    + pieces.as_ref().map_or(0, Pieces::memory);
                let reserved = reservation.resize_within(bytes, MEMORY_TIMEOUT).await;
                if let Err(shortage) = reserved {
                    let (code, word) = encode::shortage_code(shortage);
                    frames = vec![encode::error(&shortage.to_string(), word), close(code, word)];
                    pieces = None;
                }
                for frame in frames.drain(..) {
                    let closes = matches!(frame, Message::Close(_));
                    sink.feed(frame).await?;
                    if closes {
                        sink.flush().await?;
                        return Ok::<_, tungstenite::Error>(ControlFlow::Break(()));
                    }
                }
                if let Some(mut pieces) = pieces.take() {
                    while let Some(frame) = speech.piece(&mut pieces) {
                        sink.feed(frame).await?;
                        consume_budget().await;
                    }
                    if pieces.are_screen() {
                        break;
                    }
                }
                sent += 1;
                if !told.is_empty() || sent >= AT_ONCE || bytes > OUTPUT_ALLOWANCE {
                    break;
                }
                consume_budget().await;
                match attachment.as_mut().and_then(|attachment| attachment.ready()) {
                    Some(update) => pieces = speech.update(update, &mut frames),
                    None => break,
                }
            }
            sink.flush().await?;
            reservation.resize(0).await;
            // It has no word of its own for how far it is.
            if let (Encoder::Plain(_), Some(attachment)) = (&speech, &attachment) {
                attachment.delivered();
            }
            // Encoding for many clients that do not read keeps the runtime busy.
            yield_now().await;
            Ok(ControlFlow::Continue(()))
        });
        if !matches!(sent.await, Ok(Ok(ControlFlow::Continue(())))) {
            return;
        }
    }
}

/// How long a client may give no sign of life.
pub(crate) fn patience(ping_every: Duration) -> Duration {
    ping_every * 2 + Duration::from_secs(10)
}

/// So many updates go out before the next look at what else there is to say.
const AT_ONCE: usize = 16;
/// Of frames that wait for their client, so many bytes of each WebSocket are not counted.
const OUTPUT_ALLOWANCE: usize = 64 << 10;
