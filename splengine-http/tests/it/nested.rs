//! The service below a path of another application.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use splengine_core::auth::HostAuthenticator;
use splengine_core::batch::BatchPolicy;
use splengine_core::files::FilePolicy;
use splengine_core::session::SessionPolicy;
use splengine_core::store::MemoryStore;
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_http::{HttpServer, HttpService};
use tempfile::TempDir;
use tower::ServiceExt as _;

/// A service with all parts, where no request has credentials of its own.
fn service(base_path: Option<&str>) -> (TempDir, HttpService) {
    let root = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(root.path().join("data")).expect("made");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let state = root.path().join("runtime");
    let batches = BatchPolicy::new(MemoryStore::new(), state.join("batches"));
    let sessions = SessionPolicy::new().shell(["/bin/sh"]).store(state.join("sessions"));
    let engine = Engine::builder(executor)
        .batches(batches)
        .sessions(sessions)
        .files(FilePolicy::new())
        .build()
        .expect("built");
    let builder = HttpServer::builder(engine).authenticate(HostAuthenticator::new());
    let builder = match base_path {
        Some(path) => builder.base_path(path).expect("a path"),
        None => builder,
    };
    (root, builder.into_service())
}

/// Lets everybody in as alice, as an application does that has authenticated them.
async fn as_alice(mut request: Request, next: Next) -> axum::response::Response {
    request.extensions_mut().insert(Caller::new("alice").expect("a name").with_all_scopes());
    next.run(request).await
}

async fn ask(app: &Router, method: &str, path: &str, body: Value) -> (u16, String, Value) {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "example.org")
        .header("content-type", "application/json")
        .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
        .expect("a request");
    let response = app.clone().oneshot(request).await.expect("never fails");
    let location = response.headers().get("location").map(|value| value.to_str().expect("text"));
    let (status, location) = (response.status().as_u16(), location.unwrap_or_default().to_owned());
    let body = response.into_body().collect().await.expect("read").to_bytes();
    (status, location, serde_json::from_slice(&body).unwrap_or_default())
}

/// Asks for everything that says where something is.
async fn assert_addresses(app: &Router, path: &str, base: &str) {
    let batch = json!({"steps": [{"command": "true"}]});
    let (status, batch, _) = ask(app, "POST", &format!("{path}/api/v1/batches"), batch).await;
    assert!(status == 202 && batch.starts_with(&format!("{base}/api/v1/batches/")), "{batch}");
    let sessions = format!("{path}/api/v1/sessions");
    let (status, session, _) = ask(app, "POST", &sessions, json!({})).await;
    assert!(status == 201 && session.starts_with(&format!("{base}/api/v1/sessions/")), "{session}");
    let id = session.rsplit('/').next().expect("an id").to_owned();
    let (status, share, body) =
        ask(app, "POST", &format!("{sessions}/{id}/shares"), json!({})).await;
    assert!(status == 201 && share.starts_with(&format!("{session}/shares/")), "{share}");
    let link = body["url"].as_str().expect("a link");
    assert!(link.starts_with(&format!("http://example.org{base}/#ticket=")), "{link}");
    let data = format!("{path}/api/v1/files/data");
    let (status, data, _) = ask(app, "GET", &data, Value::Null).await;
    assert_eq!((status, data), (308, format!("{base}/api/v1/files/data/")));
    let own = if path.is_empty() { "/" } else { path };
    let (status, info, _) = ask(app, "GET", own, Value::Null).await;
    assert_eq!((status, info), (307, format!("{base}/info")));
    let (_, _, info) = ask(app, "GET", &format!("{path}/info"), Value::Null).await;
    assert_eq!(info["interfaces"]["rest"], format!("{base}/api/v1"));
    let (_, _, document) = ask(app, "GET", &format!("{path}/openapi.json"), Value::Null).await;
    assert_eq!(document["servers"], json!([{"url": base}]));
    assert_eq!(document["openapi"], "3.1.0");
}

#[tokio::test]
async fn addresses_lead_below_the_path_of_a_router() {
    let (_root, service) = service(None);
    let app = Router::new().nest_service("/tools/spl", service).layer(from_fn(as_alice));
    assert_addresses(&app, "/tools/spl", "/tools/spl").await;
    // Twice.
    let app = Router::new().nest("/all", app);
    assert_addresses(&app, "/all/tools/spl", "/all/tools/spl").await;
}

/// Parts of the path may be parameters of the application's routes, of any name.
#[tokio::test]
async fn addresses_lead_below_a_path_with_parameters() {
    let (_root, service) = service(None);
    let app = Router::new().nest_service("/of/{id}/spl", service).layer(from_fn(as_alice));
    let app = Router::new().nest("/all/{tenant}", app);
    assert_addresses(&app, "/all/x/of/y/spl", "/all/x/of/y/spl").await;
}

#[tokio::test]
async fn keys_are_heeded_below_the_path_of_a_router() {
    let (_root, service) = service(None);
    let app = Router::new().nest_service("/tools/spl", service).layer(from_fn(as_alice));
    let ask = async |method: &str, path: &str| {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("/tools/spl{path}"))
            .header("host", "example.org")
            .header("content-type", "application/json")
            .header("idempotency-key", "one")
            .body(Body::from(json!({"command": "true"}).to_string()))
            .expect("a request");
        app.clone().oneshot(request).await.expect("never fails")
    };
    for replayed in [None, Some("true")] {
        let done = ask("POST", "/execute").await;
        let told = done.headers().get("idempotency-replayed");
        let told = told.map(|told| told.to_str().expect("text"));
        assert_eq!((done.status().as_u16(), told), (200, replayed));
    }
    assert_eq!(ask("PUT", "/api/v1/files/data/x").await.status(), 400);
}

/// As a proxy does that takes the path away.
#[tokio::test]
async fn addresses_lead_below_the_path_that_was_configured() {
    let (_root, service) = service(Some("/outside/"));
    let app = Router::new().fallback_service(service).layer(from_fn(as_alice));
    assert_addresses(&app, "", "/outside").await;
}

#[tokio::test]
async fn without_a_path_addresses_begin_at_the_root() {
    let (_root, service) = service(None);
    let app = Router::new().fallback_service(service).layer(from_fn(as_alice));
    let (_, info, _) = ask(&app, "GET", "/", Value::Null).await;
    assert_eq!(info, "/info");
    let (_, _, document) = ask(&app, "GET", "/openapi.json", Value::Null).await;
    assert_eq!(document["servers"], Value::Null);
    // What a client writes does not become a host.
    let (status, location, _) = ask(&app, "GET", "//evil.example/", Value::Null).await;
    assert_eq!((status, location.as_str()), (404, ""));
}

#[tokio::test]
async fn who_is_not_known_to_the_host_is_not_let_in() {
    let (_root, service) = service(None);
    let app = Router::new().nest_service("/spl", service);
    let (status, _, problem) = ask(&app, "GET", "/spl/api/v1/whoami", Value::Null).await;
    assert_eq!(status, 401, "{problem}");
    let app = app.layer(from_fn(as_alice));
    let (status, _, known) = ask(&app, "GET", "/spl/api/v1/whoami", Value::Null).await;
    assert_eq!((status, &known["user"]), (200, &json!("alice")));
}

#[test]
fn what_is_no_path_is_refused() {
    let executor = LocalExecutor::new(".").expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    for path in ["spl", "//spl", "/a//b", "/a?b", "/a b", "http://example.org/", "/spl#top"] {
        let builder = HttpServer::builder(engine.clone());
        let error = builder.base_path(path).expect_err(path);
        assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
    }
}
