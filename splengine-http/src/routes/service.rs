//! State and description of the server. Open to all clients: none of it reveals anything about callers.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use splengine_core::Scope;
use splengine_core::engine::PartState;

use crate::answers::CountedBody;
use crate::auth::Authenticated;
use crate::base_path::BasePath;
use crate::context::Context;
use crate::dto::{IdentityDto, ReadinessDto, ServiceDto, StatusDto};
use crate::openapi;
use crate::problem::{Problem, ProblemDto};
use crate::query::NoQuery;
use crate::query::Query;

/// Whether the server is alive.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "service",
    responses(
        (status = 200, description = "It is.", body = StatusDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn health(_: NoQuery) -> Json<StatusDto> {
    Json(StatusDto { status: "healthy", reason: None })
}

/// Whether the server takes work.
#[utoipa::path(
    get,
    path = "/ready",
    operation_id = "ready",
    tag = "service",
    params(("verbose" = Option<bool>, Query,
        description = "Whether each part's state is told; given without a value, it is.")),
    responses(
        (status = 200, description = "It does.", body = ReadinessDto),
        (status = 503, description = "It is shutting down, or a part of it fails.",
            body = ReadinessDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn ready(
    State(context): State<Context>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::of(query.as_deref(), &["verbose"])?;
    let is_verbose = query.get("verbose") == Some("") || query.flag("verbose")?;
    let readiness = context.engine.readiness().await;
    let parts = readiness.parts().iter().map(|(part, state)| (*part, told(*state)));
    let parts = is_verbose.then(|| parts.collect());
    let body = Json(ReadinessDto { status: told(readiness.state()), parts });
    Ok(match readiness.is_ready() {
        true => body.into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], body).into_response(),
    })
}

fn told(state: PartState) -> StatusDto {
    match state {
        PartState::Ready => StatusDto { status: "ready", reason: None },
        PartState::Degraded { reason } => StatusDto { status: "degraded", reason: Some(reason) },
        PartState::Draining => StatusDto { status: "draining", reason: None },
        PartState::Failing { reason } => StatusDto { status: "failing", reason: Some(reason) },
        _ => StatusDto { status: "failing", reason: None },
    }
}

/// Who asks, and what they may do.
#[utoipa::path(
    get, path = "/api/v1/whoami", operation_id = "whoami", tag = "service",
    security(("bearer" = [])),
    responses((status = 200, description = "As the credentials say.", body = IdentityDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn whoami(Authenticated(caller): Authenticated, _: NoQuery) -> Json<IdentityDto> {
    Json(IdentityDto {
        user: caller.user().to_string(),
        scopes: caller.scopes().iter().map(Scope::name).collect(),
        roles: Vec::new(),
    })
}

/// What this server is, and what is switched on.
#[utoipa::path(
    get,
    path = "/api/v1/service",
    operation_id = "service",
    tag = "service",
    responses(
        (status = 200, description = "The service definition.", body = ServiceDto),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn definition(
    State(context): State<Context>,
    Extension(base): Extension<BasePath>,
    _: NoQuery,
) -> Json<ServiceDto> {
    let mut interfaces = context.options.interfaces.clone();
    interfaces.insert("rest".to_owned(), format!("{}/api/v1", base.as_str()));
    let mut capabilities = context.engine.capabilities();
    let own = ["execute.stream", "execute.stdin-stream"].map(str::to_owned).into_iter();
    let asynchronous = context.engine.has_batches().then(|| "execute.async".to_owned());
    // After `execute`, which is the first.
    capabilities.splice(1..1, own.chain(asynchronous));
    Json(ServiceDto {
        service: "splengine",
        version: env!("CARGO_PKG_VERSION"),
        kind: "execution-engine",
        interfaces,
        capabilities,
    })
}

/// Made once: it takes about a millisecond, and anybody may ask for it as often as they like.
pub(crate) async fn openapi(
    State(context): State<Context>,
    Extension(base): Extension<BasePath>,
    _: NoQuery,
) -> Response {
    let document = context.openapi.get_or_init(|| {
        let document = openapi::json(&context.options.forms);
        document.expect("a document is made of texts, numbers and maps by texts").into()
    });
    let headers = [(CONTENT_TYPE, "application/json")];
    if base.is_empty() {
        return (Extension(CountedBody), headers, document.clone()).into_response();
    }
    (headers, openapi::with_server(document, base.as_str())).into_response()
}
