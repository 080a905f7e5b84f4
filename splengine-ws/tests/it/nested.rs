//! The service below a path of an application that knows its users by itself.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use splengine_core::auth::{
    CertificateFingerprint, ClientCertificate, CredentialKind, HostAuthenticator, Secret,
    StaticTokens,
};
use splengine_core::session::SessionPolicy;
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_ws::WsServer;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tower::ServiceExt as _;

use crate::by_certificate::ByCertificate;

/// Stands for the application's own login.
async fn login(mut request: Request, next: Next) -> Response {
    if request.headers().get("cookie").is_some_and(|cookie| cookie == "login=alice") {
        let alice = Caller::new("alice").expect("a name").with_all_scopes();
        request.extensions_mut().insert(alice);
    }
    next.run(request).await
}

fn app() -> (tempfile::TempDir, Router) {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let sessions = SessionPolicy::new().shell(["/bin/sh"]).store(root.path().join("runtime"));
    let engine = Engine::builder(executor).sessions(sessions).build().expect("built");
    let service = WsServer::builder(engine).authenticate(HostAuthenticator::new()).into_service();
    (root, Router::new().nest_service("/tools/ws", service).layer(from_fn(login)))
}

async fn get(app: &Router, path: &str, cookie: &str) -> Response {
    let request = http::Request::get(path).header("host", "example.org").header("cookie", cookie);
    let request = request.body(axum::body::Body::empty()).expect("a request");
    app.clone().oneshot(request).await.expect("never fails").into_response()
}

/// Opens a WebSocket and gives the type and the access of its first frame.
async fn open(app: &Router, cookie: &str, origin: Option<&str>) -> Result<Value, u16> {
    let origin = origin.map(|origin| ("origin", origin));
    open_with(app, [("cookie", cookie)].into_iter().chain(origin)).await
}

/// The same with these headers.
async fn open_with(
    app: &Router,
    headers: impl IntoIterator<Item = (&'static str, &str)>,
) -> Result<Value, u16> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let service = TowerToHyperService::new(app.clone());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepted");
        let http = hyper::server::conn::http1::Builder::new();
        let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    });
    let url = format!("ws://{address}/tools/ws/terminal");
    let mut request = url.into_client_request().expect("a request");
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).expect("a header");
        request.headers_mut().insert(name, value);
    }
    let stream = TcpStream::connect(address).await.expect("connects");
    let mut socket = match client_async(request, stream).await {
        Ok((socket, _)) => socket,
        Err(Error::Http(response)) => return Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    };
    let frame = socket.next().await.expect("a frame").expect("read").into_text().expect("text");
    let frame: Value = serde_json::from_str(&frame).expect("JSON");
    serving.abort();
    Ok(json!([frame["type"], frame["access"]]))
}

#[tokio::test]
async fn who_is_known_to_the_application_gets_a_terminal() {
    let (_root, app) = app();
    assert_eq!(open(&app, "login=alice", None).await, Ok(json!(["session", "control"])));
    assert_eq!(open(&app, "login=nobody", None).await, Err(401));
}

/// A browser sends the application's cookie whoever asks it to.
#[tokio::test]
async fn pages_of_other_origins_get_no_terminal_by_the_login_of_the_application() {
    let (_root, app) = app();
    assert_eq!(open(&app, "login=alice", Some("https://evil.example")).await, Err(403));
}

/// Stands for an application that serves TLS itself: its clients have certificates.
fn app_with_certificates() -> (tempfile::TempDir, ByCertificate, Router) {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let sessions = SessionPolicy::new().shell(["/bin/sh"]).store(root.path().join("runtime"));
    let engine = Engine::builder(executor).sessions(sessions).build().expect("built");
    let users = ByCertificate::new(CertificateFingerprint::of(b"alice"));
    let service = WsServer::builder(engine).authenticate(users.clone()).into_service();
    let hand_on = from_fn(|mut request: Request, next: Next| {
        let shown = request.headers().get("cookie").map(|cookie| cookie.as_bytes().to_vec());
        if let Some(certificate) = shown.filter(|shown| !shown.is_empty()) {
            request.extensions_mut().insert(ClientCertificate::new(certificate));
        }
        next.run(request)
    });
    (root, users, Router::new().nest_service("/tools/ws", service).layer(hand_on))
}

#[tokio::test]
async fn who_has_a_certificate_gets_a_terminal() {
    let (_root, users, app) = app_with_certificates();
    // The name is one that TLS has checked.
    let host = ("host", "engine.example.org");
    let opened = open_with(&app, [host, ("cookie", "alice")]).await;
    assert_eq!(opened, Ok(json!(["session", "control"])));
    let alice = CertificateFingerprint::of(b"alice");
    assert_eq!(users.asked(), [(Some(CredentialKind::Certificate), Some(alice))]);
    assert_eq!(open_with(&app, [host, ("cookie", "mallory")]).await, Err(401));
    assert_eq!(open_with(&app, [host]).await, Err(401));
    let page = ("origin", "https://evil.example");
    assert_eq!(open_with(&app, [host, ("cookie", "alice"), page]).await, Err(403));
    for path in ["/tools/ws/me", "/tools/ws/api/v1/sessions"] {
        assert_eq!(get(&app, path, "alice").await.status(), 200, "{path}");
        assert_eq!(get(&app, path, "mallory").await.status(), 401, "{path}");
    }
}

#[tokio::test]
async fn the_console_knows_who_is_logged_in_to_the_application() {
    let (_root, app) = app();
    for path in ["/tools/ws/me", "/tools/ws/api/v1/sessions"] {
        assert_eq!(get(&app, path, "login=alice").await.status(), 200, "{path}");
        assert_eq!(get(&app, path, "").await.status(), 401, "{path}");
    }
}

/// The links of the page are relative to a directory.
#[tokio::test]
async fn the_page_is_below_a_path_with_a_slash_at_its_end() {
    let (_root, app) = app();
    let response = get(&app, "/tools/ws?session=spl-1", "").await;
    assert_eq!(response.status(), 307);
    assert_eq!(response.headers()["location"], "./ws/?session=spl-1");
    let page = get(&app, "/tools/ws/", "").await;
    assert_eq!(page.status(), 200);
    assert!(page.headers()["content-type"].to_str().expect("text").starts_with("text/html"));
}

/// Behind a proxy that speaks HTTP/2 to it: requests name their host in `:authority` alone.
#[tokio::test]
async fn a_page_logs_in_over_http_2_as_well() {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let (mut tokens, token) = (StaticTokens::new(), "alices-very-long-token");
    let alice = Caller::new("alice").expect("a name").with_all_scopes();
    tokens.insert(&Secret::new(token), alice).expect("long enough");
    let app = WsServer::builder(engine).authenticate(tokens).into_service();
    let app = Router::new().fallback_service(app);
    let ask = async |method: &str, path: &str, header: (&str, &str), body: String| {
        let request = http::Request::builder()
            .version(http::Version::HTTP_2)
            .method(method)
            .uri(format!("http://console.example:8443{path}"))
            .header("content-type", "application/json")
            .header(header.0, header.1);
        let request = request.body(axum::body::Body::from(body)).expect("a request");
        app.clone().oneshot(request).await.expect("never fails")
    };
    let body = json!({"token": token}).to_string();
    let foreign = ("origin", "https://evil.example");
    assert_eq!(ask("POST", "/login", foreign, body.clone()).await.status(), 403);
    let own = ("origin", "https://console.example:8443");
    let answer = ask("POST", "/login", own, body).await;
    assert_eq!(answer.status(), 200);
    let cookie = answer.headers()["set-cookie"].to_str().expect("text");
    let cookie = cookie.split(';').next().expect("a pair");
    assert!(cookie.starts_with("splengine8443="), "{cookie}");
    for path in ["/me", "/api/v1/sessions"] {
        let status = ask("GET", path, ("cookie", cookie), String::new()).await.status();
        assert_eq!(status, 200, "{path}");
    }
}
