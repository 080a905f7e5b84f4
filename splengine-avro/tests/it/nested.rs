//! The service within another application, which has authenticated its clients.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use splengine_avro::{AvroServer, AvroService};
use splengine_core::auth::HostAuthenticator;
use splengine_core::{Caller, Engine, Scope};
use tower::Service as _;

use crate::client::{Actor, execute, message};

/// What is answered to `execute` of a request with the application's `caller`, and with this header.
async fn answer(
    service: &AvroService,
    caller: Option<&Caller>,
    authorization: Option<&str>,
) -> (StatusCode, String) {
    let mut request =
        Request::post("/avro").header("host", "example.org").header("content-type", "avro/binary");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    if let Some(caller) = caller {
        request = request.extension(caller.clone());
    }
    let body = message(&[&[0][..], &execute("word")[1..]].concat());
    let request = request.body(Full::new(Bytes::from(body))).expect("a request");
    let (head, body) = service.clone().call(request).await.expect("never fails").into_parts();
    let body = body.collect().await.expect("read").to_bytes();
    (head.status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn whom_the_application_knows_is_not_asked_for_credentials() {
    let engine = Engine::builder(Actor).build().expect("built");
    let builder = AvroServer::builder(engine.clone()).authenticate(HostAuthenticator::new());
    let service = builder.into_service();
    let alice = Caller::new("alice").expect("a name").with(Scope::Execute);
    let (status, told) = answer(&service, Some(&alice), None).await;
    assert!(status == StatusCode::OK && told.contains("word"), "{told}");
    // The rights are those of that caller.
    let bob = Caller::new("bob").expect("a name").with(Scope::Files);
    let (status, told) = answer(&service, Some(&bob), None).await;
    assert!(status == StatusCode::OK && told.contains("`bob` lacks the scope `execute`"), "{told}");
    assert_eq!(engine.stats().started, 1);

    let (status, told) = answer(&service, None, None).await;
    assert!(status == StatusCode::OK && told.contains("UNAUTHENTICATED"), "{told}");
    let token = Some("Bearer whatever-the-client-shows");
    assert_eq!(answer(&service, None, token).await.0, StatusCode::UNAUTHORIZED);
    let (status, told) = answer(&service, Some(&alice), token).await;
    assert!(status == StatusCode::OK && told.contains("word"), "{told}");
}
