//! The service over HTTP in an application that serves TLS itself, and hands certificates on.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use splengine_avro::AvroServer;
use splengine_core::Engine;
use splengine_core::auth::{CertificateFingerprint, ClientCertificate, CredentialKind};
use tower::Service as _;

use crate::by_certificate::{BOBS_TOKEN, ByCertificate};
use crate::client::{Actor, execute, message, with_token};

const ALICE: &[u8] = b"alice's certificate";
const OTHER: &[u8] = b"somebody else's";

/// What is answered to a call of a client with this certificate, from a page of the server itself.
async fn call(users: &ByCertificate, certificate: Option<&[u8]>, call: &[u8]) -> (u16, String) {
    let engine = Engine::builder(Actor).build().expect("built");
    let mut service = AvroServer::builder(engine).authenticate(users.clone()).into_service();
    let mut request = http::Request::post("/avro")
        .header("host", "engine.example.org")
        .header("origin", "https://engine.example.org")
        .header("content-type", "avro/binary")
        .body(Full::new(Bytes::from(message(call))))
        .expect("a request");
    if let Some(certificate) = certificate {
        request.extensions_mut().insert(ClientCertificate::new(certificate));
    }
    let response = service.call(request).await.expect("it never fails");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("read").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn who_shows_nothing_else_is_known_by_the_certificate() {
    let alice = CertificateFingerprint::of(ALICE);
    let users = ByCertificate::new(alice);
    let (status, answer) = call(&users, Some(ALICE), &execute("word")).await;
    assert!(status == 200 && answer.contains("word"), "{answer}");
    // Once: before the body is read.
    assert_eq!(users.asked(), [(Some(CredentialKind::Certificate), Some(alice))]);
    let (status, answer) = call(&users, Some(OTHER), &execute("word")).await;
    assert!(status == 200 && answer.contains("UNAUTHENTICATED"), "{answer}");
    // Of such a page no more is known than of any other.
    assert_eq!(call(&users, None, &execute("word")).await.0, 403);
}

#[tokio::test]
async fn what_a_call_shows_itself_comes_first() {
    let alice = CertificateFingerprint::of(ALICE);
    let users = ByCertificate::new(alice);
    for certificate in [ALICE, OTHER] {
        let shown = with_token(&execute("word"), BOBS_TOKEN);
        let (status, answer) = call(&users, Some(certificate), &shown).await;
        assert!(status == 200 && answer.contains("word"), "{answer}");
        let last = users.asked().pop();
        let told = CertificateFingerprint::of(certificate);
        assert_eq!(last, Some((Some(CredentialKind::Bearer), Some(told))));
    }
    let shown = with_token(&execute("word"), "another-very-long-token");
    let (_, answer) = call(&users, Some(ALICE), &shown).await;
    assert!(answer.contains("UNAUTHENTICATED"), "{answer}");
}
