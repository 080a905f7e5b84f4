use std::sync::Arc;
use std::time::Duration;

use splengine_avro::Tls;
use splengine_core::Engine;
use splengine_core::auth::Secret;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::{Actor, Client, TestServer};

#[tokio::test]
async fn every_framing_is_spoken_within_it_and_beside_it() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let key = Secret::new(made.signing_key.serialize_pem());
    let chain = made.cert.pem();
    let server = TestServer::on(|server| server.tls(chain.as_bytes(), &key).expect("fits")).await;

    let mut secured = Client::new(secure(&server, made.cert.der()).await.expect("secured"));
    let mut open = server.connect().await;
    secured.shake_hands().await;
    open.shake_hands().await;
    secured.execute(1, "secret").await;
    open.execute(2, "open").await;
    assert_eq!(secured.result().await.1.stdout, "secret");
    assert_eq!(open.result().await.1.stdout, "open");
    // More than goes out in one piece, to the last of which the layer must not cling.
    let words: Vec<String> = (0..1000).map(|number| format!("word{number}")).collect();
    assert_eq!(secured.execute_all(&words).await, words);
}

/// A connection to whoever has this certificate.
async fn secure(
    server: &TestServer,
    certificate: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.addr).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn certificates_are_replaced_while_they_are_served() {
    let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let key =
        |made: &rcgen::CertifiedKey<rcgen::KeyPair>| Secret::new(made.signing_key.serialize_pem());
    let [first, second] = [make(), make()];
    let tls = Tls::new(first.cert.pem().as_bytes(), &key(&first)).expect("fits");
    let given = tls.clone();
    let server = TestServer::on(|server| server.serve_tls(given)).await;
    let mut before = Client::new(secure(&server, first.cert.der()).await.expect("secured"));
    before.shake_hands().await;
    assert!(secure(&server, second.cert.der()).await.is_err());

    tls.replace(second.cert.pem().as_bytes(), &key(&second)).expect("fits");
    assert!(secure(&server, second.cert.der()).await.is_ok());
    assert!(secure(&server, first.cert.der()).await.is_err());
    // What does not fit changes nothing, and who was there stays.
    tls.replace(first.cert.pem().as_bytes(), &key(&second)).expect_err("another's key");
    assert!(secure(&server, second.cert.der()).await.is_ok());
    before.execute(1, "still").await;
    assert_eq!(before.result().await.1.stdout, "still");
}

#[tokio::test]
async fn plain_text_can_be_switched_off() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let key = Secret::new(made.signing_key.serialize_pem());
    let chain = made.cert.pem();
    let server = TestServer::on(|server| {
        server.tls(chain.as_bytes(), &key).expect("fits").plain_text(false)
    })
    .await;
    for begin in [&b"\0\0\0\x01\0\0\0\x01\0\0\0\x04"[..], b"\0\0\0\x04\0\0\0\0\0\0\0\0"] {
        let mut client = server.connect().await;
        client.stream.write_all(begin).await.expect("sent");
        assert!(client.is_closed().await, "{begin:?}");
    }
    let mut stream = TcpStream::connect(server.addr).await.expect("connects");
    stream.write_all(b"GET /avro/protocol HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.ends_with("takes TLS (https)\n"),
        "{answer}"
    );
    let mut secured = Client::new(secure(&server, made.cert.der()).await.expect("secured"));
    secured.shake_hands().await;
    secured.execute(1, "secret").await;
    assert_eq!(secured.result().await.1.stdout, "secret");
}

#[tokio::test]
async fn a_handshake_is_bounded() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let key = Secret::new(made.signing_key.serialize_pem());
    let chain = made.cert.pem();
    let engine = Engine::builder(Actor).build().expect("built");
    let server = TestServer::with(
        engine,
        // It is the bound that ends it.
        |server| server.handshake_timeout(Duration::from_secs(3600)),
        |server| server.tls(chain.as_bytes(), &key).expect("fits"),
    )
    .await;
    let mut client = server.connect().await;
    use tokio::io::AsyncWriteExt as _;
    // Half of a hello of 32 KiB: two records of 8 KiB, the first with the message's head.
    let record = |message: &[u8]| [b"\x16\x03\x01\x20\x00", message].concat();
    let mut first = b"\x01\0\x80\0\x03\x03".to_vec();
    first.resize(8 << 10, 0);
    client.stream.write_all(&record(&first)).await.expect("sent");
    client.stream.write_all(&record(&[0; 8 << 10])).await.expect("sent");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn without_it_its_clients_are_sent_away() {
    let server = TestServer::open(|server| server).await;
    let mut client = server.connect().await;
    use tokio::io::AsyncWriteExt as _;
    client.stream.write_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03a").await.expect("sent");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn what_is_no_certificate_is_told() {
    let engine = splengine_core::Engine::builder(crate::client::Actor).build().expect("built");
    let server = splengine_avro::AvroServer::builder(engine)
        .authenticate(splengine_core::auth::StaticTokens::new())
        .bind("127.0.0.1:0")
        .await
        .expect("bound");
    let refused = server.tls(b"nothing", &Secret::new("none"));
    let text = refused.expect_err("it is none").to_string();
    assert!(text.contains("private key"), "{text}");
}
