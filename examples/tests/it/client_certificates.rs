//! The example of certificates of clients.

use std::fs::write;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;
use splengine_core::auth::CertificateFingerprint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::conformance::{avro_answer, avro_request, text};
use crate::server::{Server, example};

type Own = (CertificateDer<'static>, KeyPair);

/// What `echo hi` printed, or the answer to it where it is refused; `None` where the connection is closed.
async fn run(addr: &str, server: &CertificateDer<'static>, own: &Own) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(server.clone()).expect("a certificate");
    let (certificate, key) = own;
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate.clone()], key)
        .expect("fits");
    let stream = TcpStream::connect(addr).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let mut call = Vec::new();
    text(b"run", &mut call);
    text(b"echo hi", &mut call);
    call.resize(call.len() + 12, 0);
    stream.write_all(&avro_request(&[], &call)).await.ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.ok()?;
    let mut answer = vec![0; u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize];
    stream.read_exact(&mut answer).await.expect("all of it");
    Some(match avro_answer(answer) {
        Ok(mut answer) => {
            assert_eq!((answer.long(), answer.long()), (-1, 0));
            answer.text()
        }
        Err((branch, _)) => format!("refused by branch {branch}"),
    })
}

#[tokio::test]
async fn users_are_known_by_their_certificates() {
    let authority = || {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        CertifiedIssuer::self_signed(params, key).expect("made")
    };
    let signed_by = |authority: &CertifiedIssuer<'_, KeyPair>| {
        let params = CertificateParams::new(["user".to_owned()]).expect("parameters");
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, authority).expect("signed");
        (signed.der().clone(), key)
    };
    let (clients, others) = (authority(), authority());
    let (alice, bob, mallory) = (signed_by(&clients), signed_by(&clients), signed_by(&others));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, pem: String| {
        let path = directory.path().join(name);
        write(&path, pem).expect("written");
        path
    };
    let mut command = example("client-certificates");
    command
        .arg(file("server.pem", made.cert.pem()))
        .arg(file("server.key", made.signing_key.serialize_pem()))
        .arg(file("clients-ca.pem", clients.as_ref().pem()))
        .arg(format!("alice={}", CertificateFingerprint::of(&alice.0)))
        .current_dir(directory.path());
    let server = Server::start(&mut command);
    let addr = server.ready.trim();
    assert_eq!(run(addr, made.cert.der(), &alice).await.as_deref(), Some("hi\n"));
    // Who is not listed is told so, and who is of another authority hears nothing.
    assert_eq!(run(addr, made.cert.der(), &bob).await.as_deref(), Some("refused by branch 1"));
    assert_eq!(run(addr, made.cert.der(), &mallory).await, None);
    server.signal(Signal::INT);
    let (code, _, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(include_str!("../../client_certificates.rs").lines().count() < 120);
}
