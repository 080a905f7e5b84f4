//! The service in an application that serves TLS itself, and hands the certificates of its clients on.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use http_body_util::BodyExt as _;
use serde_json::Value;
use splengine_core::auth::{
    Authenticator, CertificateFingerprint, ClientCertificate, CredentialKind, CredentialSource,
    StaticTokens,
};
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_http::HttpServer;
use tower::ServiceExt as _;

use crate::by_certificate::{BOBS_TOKEN, ByCertificate};

const ALICE: &[u8] = b"alice's certificate";
const OTHER: &[u8] = b"somebody else's";

/// The service behind a layer that prepares its requests.
fn app(
    authenticator: impl Authenticator,
    prepare: impl Fn(&mut Request) + Clone + Send + Sync + 'static,
) -> Router {
    let engine = Engine::builder(LocalExecutor::new(".").expect("set up")).build().expect("built");
    let service = HttpServer::builder(engine).authenticate(authenticator).into_service();
    Router::new().fallback_service(service).layer(from_fn(
        move |mut request: Request, next: Next| {
            prepare(&mut request);
            next.run(request)
        },
    ))
}

/// Asks, under a name that a page could have been given for this server.
async fn whoami(app: Router, token: Option<&str>) -> (u16, Value) {
    let request = http::Request::get("/api/v1/whoami").header("host", "engine.example.org");
    let request = match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    let response = app.oneshot(request.body(Body::empty()).expect("a request"));
    let response = response.await.expect("never fails");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("read").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    (status, body["user"].clone())
}

fn showing(der: &'static [u8]) -> impl Fn(&mut Request) + Clone + Send + Sync + 'static {
    move |request| {
        request.extensions_mut().insert(ClientCertificate::new(der));
    }
}

fn users() -> ByCertificate {
    ByCertificate::new(CertificateFingerprint::of(ALICE))
}

#[tokio::test]
async fn who_shows_nothing_else_is_known_by_the_certificate() {
    assert_eq!(whoami(app(users(), showing(ALICE)), None).await, (200, "alice".into()));
    assert_eq!(whoami(app(users(), showing(OTHER)), None).await, (401, Value::Null));
    assert_eq!(whoami(app(users(), |_| ()), None).await, (401, Value::Null));
}

#[tokio::test]
async fn beside_a_token_the_certificate_is_told() {
    let users = users();
    let answer = whoami(app(users.clone(), showing(ALICE)), Some(BOBS_TOKEN)).await;
    assert_eq!(answer, (200, "bob".into()));
    let alice = CertificateFingerprint::of(ALICE);
    assert_eq!(users.asked(), [(Some(CredentialKind::Bearer), Some(alice))]);
    let answer = whoami(app(users, showing(ALICE)), Some("another-very-long-token")).await;
    assert_eq!(answer, (401, Value::Null));
}

#[tokio::test]
async fn the_source_of_a_connection_may_have_it_as_well() {
    let of_connection = |request: &mut Request| {
        let source = CredentialSource::new("test", None);
        let source = source.with_certificate(ClientCertificate::new(ALICE));
        request.extensions_mut().insert(source);
    };
    assert_eq!(whoami(app(users(), of_connection), None).await, (200, "alice".into()));
}

#[tokio::test]
async fn who_the_application_knows_is_not_asked_for_it() {
    let known = |request: &mut Request| {
        showing(OTHER)(request);
        request.extensions_mut().insert(Caller::new("carol").expect("a name"));
    };
    assert_eq!(whoami(app(users(), known), None).await, (200, "carol".into()));
}

/// What the authenticator does not accept makes nobody known under a name that anybody may have given.
#[tokio::test]
async fn a_certificate_that_is_not_heeded_does_not_vouch_for_the_name() {
    let guest = Caller::new("guest").expect("a name");
    let anybody = StaticTokens::new().allow_anonymous(guest);
    assert_eq!(whoami(app(anybody, showing(ALICE)), None).await.0, 403);
}
