//! An axum application of one's own with splengine below `/spl`. The application knows its users
//! itself: it puts a `Caller` into the extensions of a request, and splengine asks for no token.
//!
//!     cargo run --example embed-in-axum
//!     curl -H 'Cookie: login=alice' --json '{"command": "echo hi"}' http://ADDRESS/spl/execute
//!
//! Terminals are at `ws://ADDRESS/spl/ws/terminal`, the console at `/spl/ws/`. It runs until ctrl-c.
//!
//! `axum::serve` has none of splengine's bounds on connections: where clients without credentials reach the
//! port, serve the application by `splengine_http::serve` with `ConnectionLimits`, or put a proxy before it.

use std::io::Write as _;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::COOKIE;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use splengine_core::auth::{HostAuthenticator, Scope};
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_http::HttpServer;
use splengine_ws::WsServer;
use tokio::signal::unix::{SignalKind, signal};

/// Stands for the application's own login, such as a session in a database.
async fn login(mut request: Request, next: Next) -> Response {
    let cookie = request.headers().get(COOKIE).and_then(|cookie| cookie.to_str().ok());
    let user = cookie.and_then(|cookie| cookie.strip_prefix("login="));
    let Some(Ok(caller)) = user.map(Caller::new) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    request.extensions_mut().insert(caller.with(Scope::Execute).with(Scope::Sessions));
    next.run(request).await
}

pub(crate) fn app(engine: &Engine) -> axum::Router {
    // Nobody gets past `login` by a token.
    let host = HostAuthenticator::new();
    let http = HttpServer::builder(engine.clone()).authenticate(host).into_service();
    let ws = WsServer::builder(engine.clone()).authenticate(host).api(http.clone()).into_service();
    axum::Router::new()
        .nest_service("/spl/ws", ws)
        .nest_service("/spl", http)
        .layer(from_fn(login))
        .route("/", get(|| async { "an application of its own" }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    let app = app(&engine);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            interrupt.recv().await;
            engine.drain(Duration::from_secs(30)).await;
        })
        .await?;
    Ok(())
}
