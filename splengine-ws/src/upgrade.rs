//! From a request to a WebSocket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use splengine_core::net::ConnectionHandle;
use splengine_core::quota::PlaceError;
use splengine_http::problem::Problem;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::auth::{self, Authenticated};
use crate::connection::{self, AttachQuery, Client};
use crate::context::Context;
use crate::frame::AccessWord;
use crate::frame_memory::{FrameMemory, MeteredStream};

/// The subprotocol with binary frames.
pub(crate) const V1: &str = "spl.term.v1";

/// A client's part of the opening handshake (RFC 6455, section 4.2.1).
struct Handshake {
    accept: String,
    is_v1: bool,
    upgrade: OnUpgrade,
}

impl Handshake {
    /// `None` for what is none.
    fn of(parts: &mut Parts) -> Option<Self> {
        let has = |name: HeaderName, word: &str| {
            let values = parts.headers.get_all(name);
            let values = values.iter().filter_map(|value| value.to_str().ok());
            let mut words = values.flat_map(|value| value.split(',')).map(str::trim);
            words.any(|found| found.eq_ignore_ascii_case(word))
        };
        let is_asked = parts.method == Method::GET
            && has(CONNECTION, "upgrade")
            && has(UPGRADE, "websocket")
            && has(SEC_WEBSOCKET_VERSION, "13");
        let is_v1 = has(SEC_WEBSOCKET_PROTOCOL, V1);
        let accept = derive_accept_key(parts.headers.get(SEC_WEBSOCKET_KEY)?.as_bytes());
        let upgrade = parts.extensions.remove::<OnUpgrade>()?;
        is_asked.then_some(Self { accept, is_v1, upgrade })
    }

    /// The server's part.
    fn answer(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if self.is_v1 {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(V1));
        }
        response
    }
}

const PARAMETERS: [&str; 4] = ["session", "access", "cols", "rows"];

/// What the query of an upgrade may say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Query {
    session: Option<String>,
    access: Option<AccessWord>,
    cols: Option<u64>,
    rows: Option<u64>,
}

/// Tells what is wrong with a query that is none.
fn wrong_query(uri: &Uri) -> String {
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
    let names = pairs.map(|pairs| pairs.0).unwrap_or_default();
    let unknown = names.iter().find(|(name, _)| !PARAMETERS.contains(&name.as_str()));
    match unknown {
        Some((name, _)) => {
            let name: String = name.chars().take(100).collect();
            let known = PARAMETERS.join(", ");
            format!("the query has the unknown parameter `{name}`; there is: {known}")
        }
        None => "`access` must be view or control, `cols` and `rows` whole numbers, and each \
            parameter is there once"
            .to_owned(),
    }
}

pub(crate) async fn terminal(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let client = auth::authenticate(&context, &parts).await?;
    let Some(handshake) = Handshake::of(&mut parts) else {
        let detail = "this takes a WebSocket (RFC 6455)";
        let mut response = Problem::new(StatusCode::UPGRADE_REQUIRED, detail).into_response();
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Ok(response);
    };
    let query = match axum::extract::Query::<Query>::try_from_uri(&parts.uri) {
        Ok(query) => query.0,
        Err(_) => return Err(Problem::new(StatusCode::BAD_REQUEST, wrong_query(&parts.uri))),
    };
    let connection = parts.extensions.remove::<ConnectionHandle>();
    let client = take_place(&context, client, connection.is_some())?;
    // Held until the WebSocket is gone.
    let closing = context.closing.subscribe();
    if *closing.borrow() {
        let detail = "the server is shutting down";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    let query = AttachQuery {
        session: query.session,
        access: query.access,
        window: connection::size(query.cols, query.rows),
    };
    if let (Client::Authenticated(caller, ..), Some(connection)) = (&client, &connection) {
        connection.set_authenticated(caller);
    }
    // One that is a little too large is read to its end, so that its sender hears of it: many send
    // a whole frame before they read anything.
    let most = context.options.max_message.saturating_mul(2);
    let config = WebSocketConfig::default()
        .max_message_size(Some(most))
        .max_frame_size(Some(most))
        .read_buffer_size(READ_BUFFER)
        // A frame is only written once the one before it is out.
        .write_buffer_size(WRITE_BUFFER);
    let response = handshake.answer();
    tokio::spawn(async move {
        let Handshake { is_v1, upgrade, .. } = handshake;
        let upgraded = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "a WebSocket did not come about"),
        };
        let frame_memory = Arc::new(FrameMemory::new(most, context.unknown.clone()));
        let stream = MeteredStream::new(upgraded, Arc::clone(&frame_memory));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        connection::serve(context, socket, frame_memory, is_v1, client, query, connection).await;
        drop(closing);
    });
    Ok(response)
}

/// Takes the place that a WebSocket has before its first frame. One of whom nobody is known yet takes
/// none where the server limits connections: it is one of those without credentials, of which the oldest
/// makes room for the next.
fn take_place(
    context: &Context,
    client: Authenticated,
    is_limited: bool,
) -> Result<Client, Problem> {
    match client {
        Authenticated::Known(caller, login) => match context.take_place(&caller) {
            Ok(place) => Ok(Client::Authenticated(caller, login, place)),
            Err(error) => {
                let status = match error {
                    PlaceError::OfAll { .. } => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::TOO_MANY_REQUESTS,
                };
                Err(Problem::new(status, format!("no further terminal is opened: {error}")))
            }
        },
        Authenticated::WithTicket(source) if is_limited => {
            Ok(Client::Unauthenticated(source, None))
        }
        Authenticated::WithTicket(source) => {
            let taken = Arc::clone(&context.unknown_clients).try_acquire_owned();
            taken.map(|place| Client::Unauthenticated(source, Some(place))).map_err(|_| {
                let detail = "too many clients that have shown no credentials are there";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            })
        }
    }
}

const READ_BUFFER: usize = 4 << 10;
/// Frames of output are gathered up to this before they are written.
const WRITE_BUFFER: usize = 16 << 10;
