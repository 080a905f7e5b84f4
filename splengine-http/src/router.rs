//! The routes put together.

use std::any::Any;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{MethodRouter, delete, get, post};
use percent_encoding::percent_decode_str;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::base_path::BasePath;
use crate::context::Context;
use crate::file_paths::FILES;
use crate::host::check_host;
use crate::idempotency::{self, refuse_key, refuse_unheeded_key};
use crate::lingering_close::linger;
use crate::metrics::count;
use crate::problem::Problem;
use crate::revoked::end_with_caller;
use crate::routes::{
    batches, execute, executions, files, metrics, results, service, sessions, step_log,
    step_output, step_stdin,
};
use crate::{answers, encoded};

impl Context {
    fn mounted(&self) -> Router<Self> {
        let mounted = self.options.mounted.iter();
        mounted.fold(Router::new(), |router, (path, service)| {
            router.route_service(path, service.clone())
        })
    }

    pub(crate) fn router(&self) -> Router {
        let mut router = Router::new()
            // For a person who follows the bare address.
            .route("/", get(|| async { Redirect::temporary("/info") }))
            .route("/execute", post(execute::execute))
            .route("/api/v1/execute", post(execute::execute))
            .route("/api/v1/executions", get(executions::list))
            .route("/api/v1/executions/{id}", delete(executions::cancel))
            .route("/api/v1/whoami", get(service::whoami))
            .route("/api/v1/sessions", get(sessions::list).post(sessions::create))
            .route(
                "/api/v1/sessions/{id}",
                get(sessions::get).patch(sessions::change).delete(sessions::end),
            )
            .route("/api/v1/sessions/{id}/screen", get(sessions::screen))
            .route("/api/v1/sessions/{id}/recording", get(sessions::recording))
            .route("/api/v1/sessions/{id}/input", post(sessions::input))
            .route("/api/v1/sessions/{id}/save", post(sessions::save))
            .route(
                "/api/v1/sessions/{id}/shares",
                get(sessions::list_shares).post(sessions::share).delete(sessions::take_back_shares),
            )
            .route("/api/v1/sessions/{id}/shares/{share}", delete(sessions::take_back_share))
            .route("/api/v1/saved-sessions", get(sessions::list_saved))
            .route(
                "/api/v1/saved-sessions/{id}",
                get(sessions::get_saved).delete(sessions::remove_saved),
            )
            .route("/api/v1/batches", get(batches::list).post(batches::submit))
            .route("/api/v1/batches/{id}", get(batches::get).delete(batches::cancel))
            .route("/api/v1/batches/{id}/events", get(batches::events))
            .route("/api/v1/batches/{id}/rerun", post(batches::rerun))
            .route("/api/v1/batches/{id}/results", get(results::results))
            .route("/api/v1/batches/{id}/steps/{step}/log", get(step_log::log))
            .route("/api/v1/batches/{id}/steps/{step}/stdin", post(step_stdin::write))
            .route("/api/v1/batches/{id}/steps/{step}/{stream}", get(step_output::output))
            .route("/api/v1/files", get(files::root))
            .route(FILES, on_files())
            .route("/api/v1/files/{*path}", on_files())
            .route("/api/v1/tickets", post(sessions::ticket))
            .route("/api/v1/service", get(service::definition))
            .route("/info", get(service::definition))
            .route("/health", get(service::health))
            .route("/ready", get(service::ready))
            .route("/metrics", get(metrics::metrics))
            .route("/openapi.json", get(service::openapi))
            .layer(middleware::from_fn_with_state(self.answers.clone(), answers::reserve))
            .layer(middleware::from_fn(refuse_unheeded_key))
            .merge(self.mounted().layer(middleware::from_fn(refuse_key)))
            .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here") })
            .method_not_allowed_fallback(|method: Method| async move {
                let detail = format!("{method} is not among what is allowed here");
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
            })
            .layer(middleware::from_fn_with_state(self.decoders.clone(), encoded::decode))
            .layer(middleware::map_request_with_state(self.clone(), check))
            .layer(middleware::from_fn(end_with_caller))
            .layer(middleware::from_fn(linger))
            .layer(middleware::from_fn_with_state(self.clone(), locate))
            .with_state(self.clone());
        let origins = self.options.origins.allowed().map(HeaderValue::from_str);
        let origins: Vec<HeaderValue> = origins.filter_map(Result::ok).collect();
        if !origins.is_empty() {
            use axum::http::header::{
                ACCEPT, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
                IF_NONE_MATCH, IF_RANGE, RETRY_AFTER,
            };
            let resumption = HeaderName::from_static("last-event-id");
            let repetition = HeaderName::from_static("idempotency-key");
            let cors = CorsLayer::new()
                .allow_origin(AllowOrigin::list(origins))
                .allow_methods([
                    Method::GET,
                    Method::POST,
                    Method::PUT,
                    Method::PATCH,
                    Method::DELETE,
                ])
                .allow_headers([
                    AUTHORIZATION,
                    CONTENT_TYPE,
                    CONTENT_ENCODING,
                    ACCEPT,
                    RANGE,
                    IF_MATCH,
                    IF_NONE_MATCH,
                    IF_RANGE,
                    resumption,
                    repetition,
                ])
                .expose_headers([
                    RETRY_AFTER,
                    LOCATION,
                    CONTENT_RANGE,
                    ETAG,
                    step_output::ATTEMPT,
                    step_output::STDOUT_GAP,
                    step_output::STDERR_GAP,
                    idempotency::REPLAYED,
                ]);
            router = router.layer(cors);
        }
        router
            .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
                let detail = "the server failed to answer";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
            }))
            .layer(middleware::map_response(add_headers))
            .layer(middleware::from_fn_with_state(self.metrics.clone(), count))
    }
}

/// Nothing here is true for long, and nothing is for a page of another origin to embed. That one
/// which may read it asks by CORS, which is not held to the last of these.
async fn add_headers(mut response: Response) -> Response {
    let corp = HeaderName::from_static("cross-origin-resource-policy");
    for (name, value) in
        [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (corp, "same-origin")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Refuses what no route here answers.
async fn check(State(context): State<Context>, mut request: Request) -> Result<Request, Problem> {
    check_host(&request).map_err(|error| Problem::malformed(error.to_string()))?;
    // As RFC 9110 has it, section 14.2: who asks for the head alone asks for that of the whole.
    if request.method() != Method::GET {
        request.headers_mut().remove(RANGE);
    }
    check_text(request.uri().path())?;
    context.check_page(&request)?;
    Ok(request)
}

fn on_files() -> MethodRouter<Context> {
    get(files::read).put(files::write).delete(files::remove).post(files::transfer)
}

/// Ids and names are texts, but for those of files. axum's own refusal of others is no problem
/// document.
fn check_text(path: &str) -> Result<(), Problem> {
    match path.starts_with(FILES) || percent_decode_str(path).decode_utf8().is_ok() {
        true => Ok(()),
        false => Err(Problem::malformed("the path is not UTF-8")),
    }
}

/// Finds the base path of a request, and tells it where the response says where something is.
async fn locate(State(context): State<Context>, mut request: Request, next: Next) -> Response {
    let configured = context.options.base_path.clone();
    let base = configured.unwrap_or_else(|| BasePath::taken_from(&request));
    request.extensions_mut().insert(base.clone());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let below = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    if let Some(below) = below.filter(|location| location.starts_with('/'))
        && let Ok(location) = HeaderValue::try_from(format!("{}{below}", base.as_str()))
    {
        headers.insert(LOCATION, location);
    }
    response
}
