//! A WebSocket from its first frame to its last: who its client is, and its three hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use splengine_core::Caller;
use splengine_core::auth::{AuthError, CredentialSource};
use splengine_core::net::ConnectionHandle;
use splengine_core::quota::CallerPlace;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::connection::listen::{AttachQuery, Inbound, LAST_WORDS, MAX_INPUT_BYTES, listen};
use crate::connection::tell::{Outbound, tell};
use crate::connection::typing::type_all;
use crate::context::Context;
use crate::encode::{self, Encoder, PlainEncoder, close, text};
use crate::frame::TextFrame;
use crate::frame_memory::{FrameMemory, MAX_UNKNOWN, Socket};
use crate::login;
use crate::logins::LoginUse;

/// The client of a WebSocket, with its place among those that there may be.
pub(crate) enum Client {
    /// By their login, if by any.
    Authenticated(Caller, Option<LoginUse>, CallerPlace),
    /// A page that is to show a ticket in its first frame; it takes none where limits of connections hold
    /// for it.
    Unauthenticated(CredentialSource, Option<OwnedSemaphorePermit>),
}

/// What a client sent first that has shown nothing yet.
enum First {
    Frame(TextFrame),
    /// More than such a client may.
    TooLarge,
    Nothing,
}

pub(crate) async fn serve(
    context: Arc<Context>,
    socket: Socket,
    frame_memory: Arc<FrameMemory>,
    is_v1: bool,
    client: Client,
    wish: AttachQuery,
    connection: Option<ConnectionHandle>,
) {
    let (sink, mut stream) = socket.split();
    let mut first = None;
    let (caller, login, place) = match client {
        Client::Authenticated(caller, login, place) => (caller, login, Some(place)),
        Client::Unauthenticated(source, _unknown) => {
            let shown = match timeout(TICKET_WITHIN, first_frame(&mut stream, &frame_memory)).await
            {
                Ok(First::Frame(TextFrame { ticket: Some(ticket), frame })) => {
                    first = Some(frame);
                    login::redeem(&context, ticket, &source).await.map_err(|error| refusal(&error))
                }
                Ok(First::TooLarge) => {
                    let problem = format!("a message before a ticket may have {MAX_UNKNOWN} bytes");
                    Err((encode::error(&problem, "too_large"), close(4413, "too large")))
                }
                _ => Err(refusal(&AuthError::Missing)),
            };
            match shown {
                Ok(caller) => {
                    if let Some(connection) = &connection {
                        connection.set_authenticated(&caller);
                    }
                    (caller, None, None)
                }
                Err(words) => return part(sink, stream, &frame_memory, words).await,
            }
        }
    };
    let _place = match place.map_or_else(|| context.take_place(&caller), Ok) {
        Ok(place) => place,
        Err(error) => {
            // Who has as many of these already is not told.
            let Ok(_refused) = context.refused_clients.take(caller.user()) else { return };
            let words = (encode::error(&error.to_string(), "limit"), close(4429, "limit"));
            return part(sink, stream, &frame_memory, words).await;
        }
    };
    let share = context.budgets.of(caller.accounted_user());
    frame_memory.set_share(share.clone());
    let (held, until) = (caller.clone(), login.as_ref().map(|login| login.until));
    let logged_out = async {
        tokio::select! {
            () = held.revoked() => {}
            () = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    };
    let (words, told) = mpsc::channel(MAX_WORDS);
    let (typing, typed) = mpsc::channel(64);
    let speech = if is_v1 { Encoder::V1 } else { Encoder::Plain(PlainEncoder::default()) };
    let listener = Inbound {
        context: Arc::clone(&context),
        frame_memory,
        caller,
        is_v1,
        words: words.clone(),
        typing,
        input_permits: Arc::new(Semaphore::new(MAX_INPUT_BYTES)),
        input_handle: None,
        window: wish.window,
        colors: None,
        has_left: false,
        next_attach: None,
    };
    let too_large = AtomicBool::new(false);
    let mut closing = context.closing.subscribe();
    let leaving = async {
        let _ = closing.wait_for(|closing| *closing).await;
    };
    tokio::select! {
        () = tell(sink, told, speech, context.options.ping_every, &share) => {}
        () = listen(listener, &mut stream, wish, first, &too_large) => {}
        () = type_all(typed, words.clone()) => {}
        () = async {
            leaving.await;
            let _ = words.send(Outbound::Last(text(&json!({"type": "notice", "kind": "restart"})), 1001, "going away")).await;
            std::future::pending::<()>().await;
        } => {}
        () = async {
            logged_out.await;
            let error = encode::error("the login is over", "credentials");
            let _ = words.send(Outbound::Last(error, 4401, "credentials")).await;
            std::future::pending::<()>().await;
        } => {}
    }
    drop(login);
    // The client's own close frame, and all that it sent before: a connection that is closed with
    // something unread is reset, and what was told last may then never be read.
    let _ = timeout(LAST_WORDS, async {
        while let Some(Ok(_)) = stream.next().await {}
        if too_large.load(Relaxed) {
            // The rest of it is not read, and a reset would overtake the word that it is too large.
            std::future::pending::<()>().await;
        }
    })
    .await;
}

/// Says its last to a client of which nothing comes.
async fn part(
    mut sink: SplitSink<Socket, Message>,
    mut stream: SplitStream<Socket>,
    frame_memory: &FrameMemory,
    (message, close): (Message, Message),
) {
    frame_memory.throw_away();
    let _ = timeout(LAST_WORDS, async {
        sink.send(message).await?;
        sink.send(close).await?;
        // Nothing more comes of it, but its end.
        while let Some(Ok(_)) = stream.next().await {}
        Ok::<_, tungstenite::Error>(())
    })
    .await;
}

/// The first frame of a client that has shown nothing yet.
async fn first_frame(stream: &mut SplitStream<Socket>, frame_memory: &FrameMemory) -> First {
    loop {
        let message = tokio::select! {
            // What is small is before what is held back.
            biased;
            message = stream.next() => message,
            () = frame_memory.refused() => return First::TooLarge,
        };
        match message {
            Some(Ok(Message::Text(text))) => {
                return TextFrame::parse(&text).map_or(First::Nothing, First::Frame);
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return First::Nothing,
        }
    }
}

/// What is said last to a client that nobody knows.
fn refusal(error: &AuthError) -> (Message, Message) {
    match error {
        AuthError::Throttled { .. } => {
            (encode::error(&error.to_string(), "throttled"), close(4429, "throttled"))
        }
        _ => {
            let text = "credentials are required";
            (encode::error(text, "credentials"), close(4401, "credentials"))
        }
    }
}

/// Maximum number of frames beside those of the session that wait for their client: answers to pings, errors.
const MAX_WORDS: usize = 16;
const TICKET_WITHIN: Duration = Duration::from_secs(10);
