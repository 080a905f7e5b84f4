//! From a request to a WebSocket.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::app::App;
use crate::client::{self, Wish};
use crate::entry::{self, Refusal};
use crate::frame::AccessWord;
use crate::login::{problem, throttled};

/// The subprotocol with binary frames.
pub(crate) const V1: &str = "spl.term.v1";

/// What the query of an upgrade may say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    session: Option<String>,
    access: Option<AccessWord>,
    cols: Option<u64>,
    rows: Option<u64>,
}

pub(crate) async fn terminal(State(app): State<Arc<App>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let entrant = match entry::judge(&app, &parts).await {
        Ok(entrant) => entrant,
        Err(Refusal { detail, retry_after: Some(time), .. }) => return throttled(detail, time),
        Err(Refusal { status, detail, .. }) => return problem(status, detail),
    };
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &app).await else {
        let detail = "this takes a WebSocket (RFC 6455)";
        let mut response = problem(StatusCode::UPGRADE_REQUIRED, detail);
        let value = axum::http::HeaderValue::from_static("websocket");
        response.headers_mut().insert(axum::http::header::UPGRADE, value);
        return response;
    };
    let query = match axum::extract::Query::<Query>::try_from_uri(&parts.uri) {
        Ok(query) => query.0,
        Err(_) => {
            let detail = "`access` must be view or control, `cols` and `rows` whole numbers";
            return problem(StatusCode::BAD_REQUEST, detail);
        }
    };
    let Ok(place) = Arc::clone(&app.places).try_acquire_owned() else {
        let detail = "too many terminals are open at the moment";
        return problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    };
    if *app.closing.borrow() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down");
    }
    let wish = Wish {
        session: query.session,
        access: query.access,
        window: client::size(query.cols, query.rows),
    };
    // One that is a little too large is read to its end, so that its sender hears of it: many send
    // a whole frame before they read anything.
    let most = app.options.max_message.saturating_mul(2);
    upgrade
        .protocols([V1])
        .max_message_size(most)
        .max_frame_size(most)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER * 64)
        .on_upgrade(async move |socket| {
            client::serve(app, socket, entrant, wish).await;
            drop(place);
        })
}

/// Frames of output are gathered up to this before they are written.
const WRITE_BUFFER: usize = 64 << 10;
