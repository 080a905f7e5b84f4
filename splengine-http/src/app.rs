//! What every route knows, and the routes put together.

use std::any::Any;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, HOST, ORIGIN, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{MethodRouter, delete, get, post};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use splengine_core::auth::{CredentialSource, Credentials, Secret, SharedAuthenticator};
use splengine_core::net::{ConnectionHandle, PeerAddress, is_rebindable_host};
use splengine_core::quota::CallerBudgets;
use splengine_core::{Caller, Engine};
use tower::util::BoxCloneSyncService;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::answers::{self, AnswerBudgets};
use crate::encoded::{self, DecoderBudgets};
use crate::file_paths::FILES;
use crate::host::check_host;
use crate::lingering_close::linger;
use crate::problem::Problem;
use crate::repeats::{self, Repeats, refuse_unheeded_key};
use crate::result_formats::ResultFormat;
use crate::revoked::{Recognised, end_with_caller};
use crate::routes::metrics::{self, HttpMetrics};
use crate::routes::{
    batches, execute, executions, files, results, service, sessions, step_log, step_output,
    step_stdin,
};

/// A service that answers for a path.
pub(crate) type Mounted =
    BoxCloneSyncService<Request, axum::http::Response<axum::body::Body>, Infallible>;

/// What is set up once for all requests.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) mounted: Vec<(String, Mounted)>,
    /// Of a batch's results, beside JSON.
    pub(crate) forms: Vec<ResultFormat>,
    pub(crate) origins: Vec<HeaderValue>,
    pub(crate) max_body: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) max_buffered: usize,
    pub(crate) interfaces: BTreeMap<String, String>,
    /// Where people find the console.
    pub(crate) console: Option<String>,
}

#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) engine: Engine,
    authenticator: SharedAuthenticator,
    pub(crate) options: Options,
    /// The shares of callers in what the bodies hold that are being read.
    pub(crate) budgets: CallerBudgets,
    /// What decoders of compressed bodies hold, a quarter of all that.
    pub(crate) decoders: DecoderBudgets,
    /// What answers hold that lie whole in memory until they are read.
    pub(crate) answers: AnswerBudgets,
    /// What followers of batches hold for as long as they follow, apart from answers that end.
    pub(crate) followers: AnswerBudgets,
    pub(crate) metrics: HttpMetrics,
    pub(crate) repeats: Repeats,
    /// The OpenAPI document, once somebody has asked for it.
    pub(crate) openapi: OnceLock<Bytes>,
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    pub(crate) fn new(
        engine: Engine,
        authenticator: SharedAuthenticator,
        options: Options,
    ) -> Self {
        let metrics = HttpMetrics::default();
        let budget = engine.memory_budget(options.max_buffered);
        let budgets = CallerBudgets::new(&budget);
        let decoders = DecoderBudgets::new(&budget, options.max_buffered / 4);
        let (repeats, openapi) = (Repeats::default(), OnceLock::new());
        Self(Arc::new(Shared {
            answers: AnswerBudgets::new(&engine, options.max_buffered),
            followers: AnswerBudgets::new(&engine, options.max_buffered),
            engine,
            authenticator,
            options,
            budgets,
            decoders,
            metrics,
            repeats,
            openapi,
        }))
    }

    fn mounted(&self) -> Router<Self> {
        let mounted = self.options.mounted.iter();
        mounted.fold(Router::new(), |router, (path, service)| {
            router.route_service(path, service.clone())
        })
    }

    pub(crate) fn router(&self) -> Router {
        let mut router = Router::new()
            // For a person who follows the bare address.
            .route("/", get(|| async { Redirect::temporary("info") }))
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
            .layer(middleware::from_fn_with_state(self.clone(), answers::reserve))
            .merge(self.mounted())
            .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here") })
            .method_not_allowed_fallback(|method: Method| async move {
                let detail = format!("{method} is not among what is allowed here");
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
            })
            .layer(middleware::from_fn(refuse_unheeded_key))
            .layer(middleware::from_fn_with_state(self.clone(), encoded::decode))
            .layer(middleware::from_fn_with_state(self.clone(), refuse_foreign_pages))
            .layer(middleware::from_fn(refuse_what_is_no_text))
            .layer(middleware::map_request(ignore_ranges_but_of_get))
            .layer(middleware::from_fn(refuse_unclear_host))
            .layer(middleware::from_fn(end_with_caller))
            .layer(middleware::from_fn(linger))
            .with_state(self.clone());
        if !self.options.origins.is_empty() {
            use axum::http::header::{
                ACCEPT, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
                IF_NONE_MATCH, IF_RANGE, LOCATION, RETRY_AFTER,
            };
            let resumption = HeaderName::from_static("last-event-id");
            let repetition = HeaderName::from_static("idempotency-key");
            let cors = CorsLayer::new()
                .allow_origin(AllowOrigin::list(self.options.origins.iter().cloned()))
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
                    repeats::REPLAYED,
                ]);
            router = router.layer(cors);
        }
        router
            .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
                let detail = "the server failed to answer";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
            }))
            .layer(middleware::map_response(add_headers))
            .layer(middleware::from_fn_with_state(self.clone(), metrics::count))
    }
}

impl Shared {
    /// Who asks. What is answered to them ends when they are revoked.
    pub(crate) async fn caller(&self, parts: &Parts) -> Result<Caller, Problem> {
        let caller = self.authenticate(parts).await?;
        if let Some(recognised) = parts.extensions.get::<Recognised>() {
            recognised.set(&caller);
        }
        if let Some(connection) = parts.extensions.get::<ConnectionHandle>() {
            connection.set_authenticated(&caller);
        }
        Ok(caller)
    }

    async fn authenticate(&self, parts: &Parts) -> Result<Caller, Problem> {
        // Whoever nests this service may know already.
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(caller.clone());
        }
        let mut shown = parts.headers.get_all(AUTHORIZATION).iter();
        let credentials = match (shown.next(), shown.next()) {
            (None, _) => Credentials::None,
            (Some(value), None) => Credentials::Bearer(bearer(value).ok_or_else(|| {
                Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "credentials must be of the form `Bearer TOKEN`",
                )
            })?),
            // Which of them somebody in between has checked can't be known.
            (Some(_), Some(_)) => {
                let detail = "credentials must stand in one Authorization header, not several";
                return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
            }
        };
        let is_anonymous = matches!(credentials, Credentials::None);
        let (found, peer) = (parts.extensions.get(), parts.extensions.get::<PeerAddress>());
        let source = CredentialSource::of_request("http", found, peer.map(|peer| peer.ip));
        let caller = self.engine.authenticate(&self.authenticator, credentials, &source).await?;
        if is_anonymous {
            self.check_name(parts)?;
        }
        Ok(caller)
    }

    /// Of a page that a browser found under anybody's name, no more is known than of any other.
    fn check_name(&self, parts: &Parts) -> Result<(), Problem> {
        let host = host(&parts.uri, &parts.headers);
        let Some(host) = host.filter(|host| is_rebindable_host(host)) else { return Ok(()) };
        let is_host = |origin: &HeaderValue| {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            origin.is_some_and(|(_, allowed)| allowed == host)
        };
        if self.options.origins.iter().any(is_host) {
            return Ok(());
        }
        let shown: String = host.chars().take(100).collect();
        let detail = format!(
            "under the name `{shown}` nobody is let in without credentials; its origin would have \
             to be allowed"
        );
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }
}

/// The name under which a client has found this server.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let authority = uri.authority().map(|authority| authority.as_str());
    authority.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()))
}

fn bearer(value: &HeaderValue) -> Option<Secret> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim()))
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

async fn refuse_unclear_host(request: Request, next: Next) -> Response {
    match check_host(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => Problem::malformed(error.to_string()).into_response(),
    }
}

/// As RFC 9110 has it, section 14.2: who asks for the head alone asks for that of the whole.
async fn ignore_ranges_but_of_get(mut request: Request) -> Request {
    if request.method() != Method::GET {
        request.headers_mut().remove(RANGE);
    }
    request
}

fn on_files() -> MethodRouter<App> {
    get(files::read).put(files::write).delete(files::remove).post(files::transfer)
}

/// Ids and names are texts, but for those of files. axum's own refusal of others is no problem
/// document.
async fn refuse_what_is_no_text(request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with(FILES)
        && percent_decode_str(request.uri().path()).decode_utf8().is_err()
    {
        return Problem::malformed("the path is not UTF-8").into_response();
    }
    next.run(request).await
}

/// A page that a browser has open may send requests to any address that the browser reaches,
/// loopback included. What changes something is refused when it comes from a page of another site.
async fn refuse_foreign_pages(State(app): State<App>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if let Some(origin) = headers.get(ORIGIN).filter(|_| !request.method().is_safe()) {
        let own = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let is_own = own.is_some_and(|(_, origin)| Some(origin) == host(request.uri(), headers));
        if !is_own && !app.options.origins.contains(origin) {
            let detail = "requests from pages of this origin are not allowed";
            return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
        }
    }
    next.run(request).await
}
