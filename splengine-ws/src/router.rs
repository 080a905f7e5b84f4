//! What every route knows, and the routes put together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use splengine_core::auth::SharedAuthenticator;
use splengine_core::quota::{
    CallerBudgets, CallerPlace, CallerPlaces, GatherLimits, MemoryBudget, PlaceError,
};
use splengine_core::session::SessionPolicy;
use splengine_core::{Caller, Engine};
use splengine_http::HttpService;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::auth::{self, LogGate};
use crate::login::{self, problem};
use crate::logins::Logins;
use crate::{console, upgrade};

/// What is set up once for all requests.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) origins: Vec<String>,
    pub(crate) console: bool,
    pub(crate) max_clients: usize,
    pub(crate) max_message: usize,
    pub(crate) max_buffered: usize,
    pub(crate) ping_every: Duration,
    pub(crate) max_linger: Duration,
}

pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) authenticator: SharedAuthenticator,
    pub(crate) logins: Logins,
    pub(crate) options: Options,
    /// When a refusal of an origin was logged last.
    pub(crate) refused_origins: LogGate,
    api: HttpService,
    /// The places of WebSockets whose callers are known.
    clients: CallerPlaces,
    /// Of those whose callers are not known yet, where no limits of connections bound them.
    pub(crate) unknown_clients: Arc<Semaphore>,
    /// Of those that were refused and are told why.
    pub(crate) refused_clients: CallerPlaces,
    /// The shares of callers in what messages hold that are being read or wait to be typed.
    pub(crate) budgets: CallerBudgets,
    /// The part of all that that clients have of whom nobody is recognised yet.
    pub(crate) unknown: MemoryBudget,
    /// Of the bodies of whoever logs in, of whom nothing is known yet.
    pub(crate) login_limits: GatherLimits,
    /// Turns true when everybody is to leave.
    pub(crate) closing: watch::Sender<bool>,
}

impl App {
    pub(crate) fn new(
        engine: Engine,
        authenticator: SharedAuthenticator,
        api: HttpService,
        options: Options,
        logins: Option<PathBuf>,
    ) -> Self {
        let budget = engine.memory_budget(options.max_buffered);
        let unknown = budget.share(options.max_buffered / 4);
        let clients = CallerPlaces::new(options.max_clients);
        let unknown_clients = Semaphore::new(options.max_clients.min(Semaphore::MAX_PERMITS));
        let refused_clients = CallerPlaces::bounded(options.max_clients, MAX_REFUSED_PER_CALLER);
        Self {
            engine,
            authenticator,
            logins: Logins::open(logins),
            options,
            refused_origins: LogGate::default(),
            api,
            clients,
            unknown_clients: Arc::new(unknown_clients),
            refused_clients,
            login_limits: GatherLimits::new(MAX_LOGIN_BYTES, LOGIN_TIMEOUT, &unknown),
            budgets: CallerBudgets::new(&budget),
            unknown,
            closing: watch::channel(false).0,
        }
    }

    pub(crate) fn router(self: &Arc<Self>) -> Router {
        let mut router = Router::new().route("/terminal", any(upgrade::terminal));
        if self.options.console {
            router = router
                .route("/", get(|headers: HeaderMap| async move { page("", &headers) }))
                .route("/login", post(login::login))
                .route("/logout", post(login::logout))
                .route("/me", get(login::me))
                .route("/assets/{*path}", any(asset))
                .fallback(api);
        }
        router
            .layer(middleware::from_fn(refuse_unclear_host))
            .layer(middleware::map_response(add_headers))
            .with_state(Arc::clone(self))
    }

    /// Takes the place of a WebSocket of `caller`.
    pub(crate) fn take_place(&self, caller: &Caller) -> Result<CallerPlace, PlaceError> {
        let user = caller.accounted_user();
        match caller.guest() {
            Some(_) => self.clients.take_guest(user, caller.user(), MAX_CLIENTS_PER_GUEST),
            None => self.clients.take(user),
        }
    }

    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        // Each WebSocket has a receiver.
        let gone = self.closing.closed();
        if timeout(self.options.max_linger, gone).await.is_err() {
            tracing::info!("some clients did not leave in time");
        }
    }
}

async fn asset(Path(path): Path<String>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "there is GET, HEAD");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    page(&format!("assets/{path}"), request.headers())
}

async fn refuse_unclear_host(request: Request, next: Next) -> Response {
    match splengine_http::check_host(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// Nothing here is for a page of another origin to embed.
async fn add_headers(mut response: Response) -> Response {
    let corp = HeaderName::from_static("cross-origin-resource-policy");
    for (name, value) in [(X_CONTENT_TYPE_OPTIONS, "nosniff"), (corp, "same-origin")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A part of the console, compressed for who takes that.
fn page(path: &str, asked: &HeaderMap) -> Response {
    let Some(asset) = console::asset(path) else {
        return problem(StatusCode::NOT_FOUND, "the console has no such file; reload the page");
    };
    let is_gzip = takes_gzip(asked);
    let (body, tag) = match is_gzip {
        true => (asset.gzip, format!("\"{}-gzip\"", asset.tag)),
        false => (asset.body, format!("\"{}\"", asset.tag)),
    };
    let known = asked.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response =
        if known { StatusCode::NOT_MODIFIED.into_response() } else { body.into_response() };
    let headers = response.headers_mut();
    let mut add = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    add(CONTENT_TYPE, asset.content_type());
    add(CACHE_CONTROL, asset.cache_control());
    add(VARY, "Accept-Encoding");
    add(ETAG, &tag);
    // They say something of what a browser can show by itself, not of its parts.
    if asset.is_document() {
        add(REFERRER_POLICY, "no-referrer");
        add(CONTENT_SECURITY_POLICY, &console::content_security_policy());
    }
    if is_gzip && !known {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Whether a client lists gzip, and not with a weight of nothing (RFC 9110, section 12.5.3).
fn takes_gzip(asked: &HeaderMap) -> bool {
    let lists = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|entry| {
        let (name, weight) = entry.split_once(';').unwrap_or((entry, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.unwrap_or(1.0) > 0.0
    })
}

/// Everything else is the HTTP server's. Who is logged in needs no header there.
async fn api(State(app): State<Arc<App>>, mut request: Request) -> Response {
    if !request.headers().contains_key(axum::http::header::AUTHORIZATION)
        && let Some(present) = auth::by_cookie(&app, request.headers()).await
    {
        request.extensions_mut().insert(present.caller);
    }
    match app.api.clone().oneshot(request).await {
        Ok(response) => response.map(axum::body::Body::new),
        Err(never) => match never {},
    }
}

/// Twice as many as a session takes of clients with one share.
const MAX_CLIENTS_PER_GUEST: usize = 2 * SessionPolicy::MAX_CLIENTS_PER_SHARE;
const MAX_REFUSED_PER_CALLER: usize = 8;
const MAX_LOGIN_BYTES: usize = 4 << 10;
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
