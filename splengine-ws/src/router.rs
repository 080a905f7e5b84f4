//! The routes put together, and those of the console's page.

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Request, State};
use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HOST, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{any, get, post};
use splengine_core::Caller;
use splengine_http::problem::Problem;
use tower::ServiceExt as _;

use crate::context::Context;
use crate::{auth, console, login, upgrade};

impl Context {
    pub(crate) fn router(self: &Arc<Self>) -> Router {
        let mut router = Router::new().route("/terminal", any(upgrade::terminal));
        if self.options.console {
            router = router
                .route("/", get(document))
                .route("/login", post(login::login))
                .route("/logout", post(login::logout))
                .route("/me", get(login::me))
                .route("/assets/{*path}", any(asset))
                .fallback(api);
        }
        router
            .layer(middleware::from_fn(name_host))
            .layer(middleware::map_response(add_headers))
            .with_state(Arc::clone(self))
    }
}

/// The page. Its links are relative, so a path that it is nested at is asked for with a `/` at the end.
async fn document(OriginalUri(asked): OriginalUri, headers: HeaderMap) -> Response {
    match asked.path().rsplit_once('/') {
        Some((_, last)) if !last.is_empty() => {
            let query = asked.query().map(|query| format!("?{query}")).unwrap_or_default();
            Redirect::temporary(&format!("./{last}/{query}")).into_response()
        }
        _ => page("", &headers),
    }
}

async fn asset(request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refusal = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "there is GET, HEAD");
        let mut response = refusal.into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    page(request.uri().path().trim_start_matches('/'), request.headers())
}

/// Refuses a request that does not name one host, and lets all others name it by `Host`: over HTTP/2 they
/// may name it in `:authority` alone.
async fn name_host(mut request: Request, next: Next) -> Response {
    if let Err(error) = splengine_http::check_host(&request) {
        return Problem::new(StatusCode::BAD_REQUEST, error.to_string()).into_response();
    }
    let authority = request.uri().authority().filter(|_| request.version() >= Version::HTTP_2);
    let host = authority.map(|authority| HeaderValue::try_from(authority.as_str()));
    if let Some(Ok(host)) = host {
        request.headers_mut().insert(HOST, host);
    }
    next.run(request).await
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
        let detail = "the console has no such file; reload the page";
        return Problem::new(StatusCode::NOT_FOUND, detail).into_response();
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
async fn api(State(context): State<Arc<Context>>, mut request: Request) -> Response {
    if request.extensions().get::<Caller>().is_none()
        && !request.headers().contains_key(axum::http::header::AUTHORIZATION)
        && let source = auth::source(request.extensions())
        && let Some(present) = auth::by_cookie(&context, request.headers(), &source).await
    {
        request.extensions_mut().insert(present.caller);
    }
    match context.api.clone().oneshot(request).await {
        Ok(response) => response.map(axum::body::Body::new),
        Err(never) => match never {},
    }
}
