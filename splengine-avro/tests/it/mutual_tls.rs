//! Certificates of clients, which TLS verifies.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use splengine_avro::{ClientCertificates, Tls};
use splengine_core::Engine;
use splengine_core::auth::{CertificateFingerprint, CredentialKind, Secret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::by_certificate::{BOBS_TOKEN, ByCertificate};
use crate::client::{Actor, Client, TestServer, execute, frame, hash, message, with_token, within};

/// An authority for clients' certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A client's certificate with its key.
#[derive(Clone)]
struct Own {
    der: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("made"))
    }

    fn pem(&self) -> Vec<u8> {
        self.0.as_ref().pem().into_bytes()
    }

    fn sign(&self, name: &str) -> Own {
        self.sign_as(name, |_| ())
    }

    fn sign_as(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Own {
        let mut params = CertificateParams::new([name.to_owned()]).expect("parameters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.0).expect("signed");
        Own { der: signed.der().clone(), key: key.serialize_der() }
    }
}

impl Own {
    fn fingerprint(&self) -> CertificateFingerprint {
        CertificateFingerprint::of(&self.der)
    }
}

/// The server's certificate, with its key in PEM.
struct Server {
    certificate: rcgen::Certificate,
    key: Secret,
}

impl Server {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        Self { certificate: made.cert, key: Secret::new(made.signing_key.serialize_pem()) }
    }

    fn tls(&self) -> Tls {
        Tls::new(self.certificate.pem().as_bytes(), &self.key).expect("fits")
    }
}

/// Serves with `tls`; the authenticator knows alice by her certificate, and bob by his token.
async fn serve(tls: &Tls, users: &ByCertificate) -> TestServer {
    let engine = Engine::builder(Actor).build().expect("built");
    let (tls, users) = (tls.clone(), users.clone());
    TestServer::with(engine, |builder| builder.authenticate(users), |server| server.serve_tls(tls))
        .await
}

/// A client that knows the server, and shows `own` where it is asked for a certificate.
fn connector(server: &Server, own: Option<&Own>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(server.certificate.der().clone()).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match own {
        Some(own) => {
            let key = PrivateKeyDer::try_from(own.key.clone()).expect("a key");
            builder.with_client_auth_cert(vec![own.der.clone()], key).expect("fits")
        }
        None => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

async fn connect(
    connector: &TlsConnector,
    to: &TestServer,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to.addr).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    connector.connect(name, stream).await
}

/// What is answered to a call, or `None` where the connection is closed before its handshake is done. In
/// TLS 1.3 the client learns of that when it reads.
async fn call(to: &TestServer, connector: &TlsConnector, call: &[u8]) -> Option<String> {
    let mut stream = connect(connector, to).await.ok()?;
    let handshake = [&hash()[..], &[0], &hash()[..], &[0]].concat();
    stream.write_all(&frame(1, &[&handshake[..], call].concat())).await.ok()?;
    let mut head = [0; 12];
    within("an answer", stream.read_exact(&mut head)).await.ok()?;
    let mut answer = vec![0; u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize];
    stream.read_exact(&mut answer).await.expect("all of it");
    Some(String::from_utf8_lossy(&answer).into_owned())
}

fn is_let_in(answer: Option<&String>) -> bool {
    answer.is_some_and(|answer| answer.contains("word"))
}

#[tokio::test]
async fn the_authenticator_knows_the_certificate_on_every_call() {
    let (server, authority) = (Server::new(), Authority::new());
    let alice = authority.sign("alice");
    let users = ByCertificate::new(alice.fingerprint());
    let tls = server.tls().client_ca(&authority.pem(), ClientCertificates::Required).expect("read");
    let to = serve(&tls, &users).await;
    let connector = connector(&server, Some(&alice));
    let mut client = Client::new(connect(&connector, &to).await.expect("secured"));
    client.shake_hands().await;
    let told = Some(alice.fingerprint());
    for serial in 1..3 {
        client.execute(serial, "word").await;
        assert_eq!(client.result().await.1.stdout, "word");
        assert_eq!(users.asked(), [(Some(CredentialKind::Certificate), told)]);
    }
    // Beside a token it is told.
    client.send(3, &with_token(&execute("word"), BOBS_TOKEN)).await;
    assert_eq!(client.result().await.1.stdout, "word");
    assert_eq!(users.asked(), [(Some(CredentialKind::Bearer), told)]);
    client.send(4, &with_token(&execute("word"), "another-very-long-token")).await;
    let answer = client.answer().await.1;
    assert!(String::from_utf8_lossy(&answer).contains("UNAUTHENTICATED"), "{answer:?}");
}

#[tokio::test]
async fn over_http_it_is_known_as_well() {
    let (server, authority) = (Server::new(), Authority::new());
    let alice = authority.sign("alice");
    let users = ByCertificate::new(alice.fingerprint());
    let tls = server.tls().client_ca(&authority.pem(), ClientCertificates::Required).expect("read");
    let to = serve(&tls, &users).await;
    let mut stream = connect(&connector(&server, Some(&alice)), &to).await.expect("secured");
    let body = message(&execute("word"));
    let head = format!(
        "POST /avro HTTP/1.1\r\nHost: engine.example.org\r\nContent-Type: avro/binary\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("sent");
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer)).await.expect("read");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("word"), "{text}");
}

#[tokio::test]
async fn who_has_none_is_refused_where_it_is_required() {
    let (server, authority) = (Server::new(), Authority::new());
    let alice = authority.sign("alice");
    let users = ByCertificate::new(alice.fingerprint());
    let shown = with_token(&execute("word"), BOBS_TOKEN);
    let (with, without) = (connector(&server, Some(&alice)), connector(&server, None));
    for (demanded, is_let_in_without) in
        [(ClientCertificates::Required, false), (ClientCertificates::Optional, true)]
    {
        let tls = server.tls().client_ca(&authority.pem(), demanded).expect("read");
        let to = serve(&tls, &users).await;
        assert!(is_let_in(call(&to, &with, &execute("word")).await.as_ref()), "{demanded:?}");
        let answer = call(&to, &without, &shown).await;
        assert_eq!(is_let_in(answer.as_ref()), is_let_in_without, "{demanded:?} {answer:?}");
        assert_eq!(answer.is_none(), !is_let_in_without, "in the handshake");
        users.asked();
    }
    // Without any it is nobody.
    let tls = server.tls().client_ca(&authority.pem(), ClientCertificates::Optional).expect("read");
    let answer = call(&serve(&tls, &users).await, &without, &execute("word")).await;
    assert!(answer.is_some_and(|answer| answer.contains("UNAUTHENTICATED")));
    assert_eq!(users.asked(), [(None, None)]);
}

#[tokio::test]
async fn what_can_not_be_verified_is_refused_in_the_handshake() {
    let (server, authority, unknown) = (Server::new(), Authority::new(), Authority::new());
    let alice = authority.sign("alice");
    let of_unknown = unknown.sign("alice");
    let expired = authority.sign_as("alice", |params| params.not_after = date_time_ymd(2001, 1, 1));
    let of_server = authority.sign_as("alice", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let users = ByCertificate::new(alice.fingerprint());
    // No other credentials make up for it.
    let shown = with_token(&execute("word"), BOBS_TOKEN);
    for demanded in [ClientCertificates::Required, ClientCertificates::Optional] {
        let tls = server.tls().client_ca(&authority.pem(), demanded).expect("read");
        let to = serve(&tls, &users).await;
        for (what, own) in
            [("another signer", &of_unknown), ("expired", &expired), ("a server's", &of_server)]
        {
            let answer = call(&to, &connector(&server, Some(own)), &shown).await;
            assert_eq!(answer, None, "{what}, {demanded:?}");
        }
        assert_eq!(users.asked(), []);
    }
}

/// Two authorities at a time, as when one takes the place of another.
#[tokio::test]
async fn certificates_and_authorities_are_replaced_apart() {
    let ([first, second], [old, new]) =
        ([Server::new(), Server::new()], [Authority::new(), Authority::new()]);
    let alice = old.sign("alice");
    let users = ByCertificate::new(alice.fingerprint());
    let tls = first.tls().client_ca(&old.pem(), ClientCertificates::Required).expect("read");
    let to = serve(&tls, &users).await;
    let word = execute("word");
    // What is demanded of clients outlives the server's certificate.
    tls.replace(second.certificate.pem().as_bytes(), &second.key).expect("fits");
    assert!(is_let_in(call(&to, &connector(&second, Some(&alice)), &word).await.as_ref()));
    assert_eq!(call(&to, &connector(&second, None), &word).await, None);
    // The server's certificate outlives what is demanded of clients; one session of TLS is not resumed by
    // another.
    let same = connector(&second, Some(&alice));
    let mut before = Client::new(connect(&same, &to).await.expect("secured"));
    before.shake_hands().await;
    let both = [old.pem(), new.pem()].concat();
    tls.replace_client_ca(&both, ClientCertificates::Required).expect("read");
    assert!(is_let_in(call(&to, &same, &word).await.as_ref()));
    tls.replace_client_ca(&new.pem(), ClientCertificates::Required).expect("read");
    assert_eq!(call(&to, &same, &word).await, None);
    let refused = tls.replace_client_ca(b"nothing", ClientCertificates::Required);
    let text = refused.expect_err("there is none").to_string();
    assert_eq!(text, "the authorities of clients can't be used");
    assert_eq!(call(&to, &same, &word).await, None);
    before.execute(1, "still").await;
    assert_eq!(before.result().await.1.stdout, "still");
}

/// The certificate of a connection is one that was verified for this connection.
#[tokio::test]
async fn sessions_of_tls_are_not_resumed() {
    use tokio_rustls::rustls::HandshakeKind;
    let (server, authority) = (Server::new(), Authority::new());
    let alice = authority.sign("alice");
    let users = ByCertificate::new(alice.fingerprint());
    let asking = server.tls().client_ca(&authority.pem(), ClientCertificates::Required);
    for (tls, second) in
        [(server.tls(), HandshakeKind::Resumed), (asking.expect("read"), HandshakeKind::Full)]
    {
        let to = serve(&tls, &users).await;
        let connector = connector(&server, Some(&alice));
        for kind in [HandshakeKind::Full, second] {
            let mut client = Client::new(connect(&connector, &to).await.expect("secured"));
            // Tickets come with the first answer.
            client.shake_hands().await;
            assert_eq!(client.stream.get_ref().1.handshake_kind(), Some(kind));
        }
    }
}

#[tokio::test]
async fn a_large_certificate_has_room_and_a_larger_one_has_none() {
    let (server, authority) = (Server::new(), Authority::new());
    let with_names = |count: usize| {
        authority.sign_as("alice", |params| {
            let name = |place| format!("{place:04}.{}.example.org", "n".repeat(50));
            let names: Vec<String> = (0..count).map(name).collect();
            params.subject_alt_names =
                CertificateParams::new(names).expect("names").subject_alt_names;
        })
    };
    let (large, larger) = (with_names(300), with_names(500));
    assert!(large.der.len() > 16 << 10 && large.der.len() < 30 << 10, "{}", large.der.len());
    assert!(larger.der.len() > 32 << 10, "{}", larger.der.len());
    let users = ByCertificate::new(large.fingerprint());
    let tls = server.tls().client_ca(&authority.pem(), ClientCertificates::Required).expect("read");
    let to = serve(&tls, &users).await;
    let word = execute("word");
    assert!(is_let_in(call(&to, &connector(&server, Some(&large)), &word).await.as_ref()));
    assert_eq!(call(&to, &connector(&server, Some(&larger)), &word).await, None);
}
