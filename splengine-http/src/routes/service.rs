//! What the server says of itself. Open to all: none of it tells of callers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse as _, Response};
use splengine_core::LimitKind;
use utoipa::openapi::OpenApi;

use crate::app::App;
use crate::dto::{ServiceDto, StatusDto};
use crate::openapi;

/// Whether the server is alive.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "service",
    responses((status = 200, description = "It is.", body = StatusDto)),
)]
pub(crate) async fn health() -> Json<StatusDto> {
    Json(StatusDto { status: "healthy" })
}

/// Whether the server takes work.
#[utoipa::path(
    get,
    path = "/ready",
    operation_id = "ready",
    tag = "service",
    responses(
        (status = 200, description = "It does.", body = StatusDto),
        (status = 503, description = "It is shutting down.", body = StatusDto),
    ),
)]
pub(crate) async fn ready(State(app): State<App>) -> Response {
    if app.engine.is_open() {
        Json(StatusDto { status: "ready" }).into_response()
    } else {
        let draining = Json(StatusDto { status: "draining" });
        (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], draining).into_response()
    }
}

/// What this server is, and what is switched on.
#[utoipa::path(
    get,
    path = "/api/v1/service",
    operation_id = "service",
    tag = "service",
    responses((status = 200, description = "The service definition.", body = ServiceDto)),
)]
pub(crate) async fn definition(State(app): State<App>) -> Json<ServiceDto> {
    let mut interfaces = app.options.interfaces.clone();
    interfaces.insert("rest".to_owned(), "/api/v1".to_owned());
    let always = ["execute", "execute.stream", "execute.stdin-stream"].map(str::to_owned);
    let limits = ["wallTime", "output"].into_iter().chain(
        LimitKind::ALL.iter().filter(|kind| app.engine.enforces(**kind)).map(|kind| kind.name()),
    );
    let sessions = app.engine.has_sessions().then(|| {
        let kept = ["sessions.save", "sessions.recording"];
        let kept = kept.into_iter().filter(|_| app.engine.sessions().are_kept());
        ["sessions", "sessions.share"].into_iter().chain(kept).map(str::to_owned)
    });
    let batches = app.engine.has_batches().then(|| ["batches", "execute.async"].map(str::to_owned));
    let capabilities = always
        .into_iter()
        .chain(batches.into_iter().flatten())
        .chain(sessions.into_iter().flatten())
        .chain(limits.map(|limit| format!("limits.{limit}")))
        .collect();
    Json(ServiceDto {
        service: "splengine",
        version: env!("CARGO_PKG_VERSION"),
        kind: "execution-engine",
        interfaces,
        capabilities,
    })
}

pub(crate) async fn openapi() -> Json<OpenApi> {
    Json(openapi::document())
}
