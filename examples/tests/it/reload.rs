//! What is read again while the server runs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::certificate::Builder;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::conformance::Trusting;
use crate::server::*;

const BOB: &str = "bobs-very-long-token";

/// Replaces a file in one step, so that readers see the old or the new one.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).expect("set");
    std::fs::rename(new, path).expect("renamed");
}

fn status(addr: &str, token: &str) -> u16 {
    post(addr, token, r#"{"command": "true"}"#).expect("an answer").0
}

fn send(addr: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    stream.write_all(request.as_bytes()).expect("sent");
    stream
}

/// Reads until `needle` has come.
fn until(stream: &mut TcpStream, needle: &[u8]) {
    let (mut came, mut piece) = (Vec::new(), [0; 1024]);
    while !came.windows(needle.len()).any(|part| part == needle) {
        let count = stream.read(&mut piece).expect("more");
        assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&came));
        came.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn a_hangup_takes_back_what_is_configured_no_longer() {
    let dir = tempfile::tempdir().expect("a directory");
    let tokens = dir.path().join("tokens");
    write(&tokens, &format!("bob={BOB}\n"));
    let all = all_in_one(&["--tokens", tokens.to_str().expect("text")]);
    let ready: Value = serde_json::from_str(&all.server.ready).expect("JSON");
    let ws = ready["ws"].as_str().expect("an address");
    let body = json!({"command": "sh -c", "args": ["touch begun; exec sleep 600"]}).to_string();
    let mut run = send(
        &all.addr,
        &format!(
            "POST /execute HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {BOB}\r\n\
             Accept: application/x-ndjson\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    let mut socket = send(
        ws,
        &format!(
            "GET /terminal HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {BOB}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    );
    until(&mut socket, b"\"session\"");
    eventually("it runs", || all.root.path().join("begun").exists());

    write(&tokens, "# nobody\n");
    all.server.signal(Signal::HUP);
    let mut rest = Vec::new();
    let _ = run.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains(" 200 ") && !rest.contains("\"exit\""), "{rest}");
    // The frame of its end: 4401.
    until(&mut socket, b"\x11\x31");
    assert_eq!((status(&all.addr, BOB), status(&all.addr, ALICE)), (401, 200));
    all.server.signal(Signal::TERM);
    assert_eq!(all.server.wait().0, Some(0), "it ran on");
}

#[test]
fn what_changes_is_read_and_what_is_wrong_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let [tokens, config] = ["tokens", "config.toml"].map(|name| dir.path().join(name));
    write(&tokens, &format!("bob={BOB}\n"));
    // To the server, a client that tries until it is accepted is guessing.
    let configure = |more: &str| {
        write(&config, &format!("[guessing]\nexempt = [\"127.0.0.0/8\"]\n{more}"));
    };
    configure("");
    let [tokens_flag, config_flag] = [&tokens, &config].map(|path| path.to_str().expect("text"));
    let all = all_in_one(&["--tokens", tokens_flag, "--config", config_flag]);
    assert_eq!(status(&all.addr, BOB), 200);
    // Wider, narrower, other: each is seen without anybody being told.
    configure("[users.bob]\nscopes = [\"files\"]\n[limits]\nmax-running = 3\n");
    eventually("bob may not", || status(&all.addr, BOB) == 403);
    configure("");
    eventually("bob may again", || status(&all.addr, BOB) == 200);
    let carols = "carols-very-long-token";
    write(&tokens, &format!("carol={carols}\n"));
    eventually("carol is there", || status(&all.addr, carols) == 200);
    assert_eq!(status(&all.addr, BOB), 401);

    let unchanged = "users and tokens stay as they were";
    write(&tokens, "carol\n");
    all.server.signal(Signal::HUP);
    all.server.logs(1, unchanged);
    // Whoever tells it has it read what has not changed either.
    all.server.signal(Signal::HUP);
    all.server.logs(2, unchanged);
    std::fs::remove_file(&tokens).expect("removed");
    all.server.signal(Signal::HUP);
    all.server.logs(3, unchanged);
    configure("[users.carol]\nscopes = [\"all\"]\n");
    all.server.signal(Signal::HUP);
    all.server.logs(4, unchanged);
    configure("");
    write(&tokens, &format!("carol={carols}\nbob={BOB}\n"));
    eventually("bob is back", || {
        assert_eq!(status(&all.addr, carols), 200, "what is wrong changes nothing");
        status(&all.addr, BOB) == 200
    });
    all.server.signal(Signal::TERM);
    let (code, _, err) = all.server.wait();
    assert_eq!(code, Some(0));
    assert!(err.contains("limits") && err.contains("from the next start on"), "{err}");
    assert!(!err.contains(BOB) && !err.contains(carols), "{err}");
}

pub(crate) async fn login(addr: &str, key: &Arc<PrivateKey>, user: &str) -> Handle<Trusting> {
    let config = Arc::new(client::Config::default());
    let mut client = client::connect(config, addr, Trusting).await.expect("a handshake");
    let key = PrivateKeyWithHashAlg::new(Arc::clone(key), None);
    let shown = client.authenticate_publickey(user, key).await.expect("an answer");
    assert!(shown.success());
    client
}

/// Waits until the server has closed this connection.
async fn gone(who: &str, client: &Handle<Trusting>) {
    let is_gone = async {
        while !client.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(who, is_gone).await;
}

#[tokio::test]
async fn who_has_no_key_any_more_is_sent_away() {
    let root = tempfile::tempdir().expect("a directory");
    let keys = root.path().join("keys");
    std::fs::create_dir(&keys).expect("made");
    let key = ssh_key(keys.join("alice"));
    std::fs::copy(keys.join("alice"), keys.join("bob")).expect("copied");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).arg("--authorized-keys").arg(&keys);
    command.args(["--http", "off", "--ws", "off", "--ssh", "127.0.0.1:0"]);
    let server = Server::start(&mut command);
    let ready: Value = serde_json::from_str(&server.ready).expect("JSON");
    let addr = ready["ssh"].as_str().expect("an address");
    let (alice, bob) = (login(addr, &key, "alice").await, login(addr, &key, "bob").await);
    std::fs::remove_file(keys.join("bob")).expect("removed");
    gone("bob", &bob).await;
    assert!(!alice.is_closed());
    server.signal(Signal::TERM);
    let waited = tokio::task::spawn_blocking(|| server.wait().0).await;
    assert_eq!(waited.expect("no panic"), Some(0));
}

/// Of `x`, by the reference implementation.
const HASH: &str =
    "$argon2id$v=19$m=8,t=1,p=1$c2FsdHkgc2FsdA$bJm38KIwE/uHPXHD7nX6oVbFASF5eTTnG4ckdg+z4GY";

/// What a user shows to an SSH server.
enum Shown {
    Password(&'static str),
    Key(Arc<PrivateKey>),
    /// A key, and a certificate by this authority.
    Certificate(Arc<PrivateKey>, Arc<PrivateKey>),
}

impl Shown {
    /// A connection on which that was shown, and whether it lets the user in.
    async fn by(&self, user: &str, addr: &str) -> (Handle<Trusting>, bool) {
        let config = Arc::new(client::Config::default());
        let mut client = client::connect(config, addr, Trusting).await.expect("a handshake");
        let told = match self {
            Self::Password(password) => client.authenticate_password(user, *password).await,
            Self::Key(key) => {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), None);
                client.authenticate_publickey(user, key).await
            }
            Self::Certificate(key, authority) => {
                let mut builder =
                    Builder::new([7; 16], key.public_key(), 0, u64::MAX).expect("one");
                builder.valid_principal(user).expect("set");
                let signed = builder.sign(authority.as_ref()).expect("signed");
                client.authenticate_openssh_cert(user, Arc::clone(key), signed).await
            }
        };
        (client, matches!(told.expect("an answer"), AuthResult::Success))
    }
}

fn key() -> Arc<PrivateKey> {
    Arc::new(PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("a key"))
}

fn line(key: &PrivateKey) -> String {
    key.public_key().to_openssh().expect("a text") + "\n"
}

#[tokio::test]
async fn passwords_authorities_and_revoked_keys_of_ssh_count_as_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let (keys, carols, authority) = (at("keys"), key(), key());
    std::fs::create_dir(&keys).expect("made");
    write(&keys.join("carol"), &line(&carols));
    write(&at("passwords"), &format!("alice:{HASH}\n"));
    write(&at("ca"), &line(&authority));
    write(&at("revoked"), &line(&key()));
    let config = format!(
        "[guessing]\nexempt = [\"127.0.0.0/8\"]\n[ssh]\npasswords = {:?}\ntrusted-ca = {:?}\n\
         revoked-keys = {:?}\n",
        at("passwords"),
        at("ca"),
        at("revoked")
    );
    write(&at("config.toml"), &config);
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).arg("--authorized-keys").arg(&keys);
    command.args(["--http", "off", "--ws", "off", "--ssh", "127.0.0.1:0"]);
    let server = Server::start(command.arg("--config").arg(at("config.toml")));
    let ready: Value = serde_json::from_str(&server.ready).expect("JSON");
    let addr = ready["ssh"].as_str().expect("an address");
    let users = [
        ("alice", Shown::Password("x")),
        ("bob", Shown::Certificate(key(), Arc::clone(&authority))),
        ("carol", Shown::Key(Arc::clone(&carols))),
    ];
    let mut clients = Vec::new();
    for (user, shown) in &users {
        let (client, is_in) = shown.by(user, addr).await;
        assert!(is_in, "{user}");
        clients.push(client);
    }
    // One after the other is let in no longer, and the others stay.
    for (place, (file, text)) in
        [("passwords", "# nobody\n".to_owned()), ("ca", line(&key())), ("revoked", line(&carols))]
            .into_iter()
            .enumerate()
    {
        let (user, shown) = &users[place];
        write(&at(file), &text);
        server.signal(Signal::HUP);
        gone(user, &clients[place]).await;
        assert!(!shown.by(user, addr).await.1, "{user}");
        for ((user, shown), client) in users.iter().zip(&clients).skip(place + 1) {
            assert!(!client.is_closed() && shown.by(user, addr).await.1, "{user}");
        }
    }
    // And back, each without anybody being told.
    for (place, (file, text)) in [
        ("passwords", format!("alice:{HASH}\n")),
        ("ca", line(&authority)),
        ("revoked", line(&key())),
    ]
    .into_iter()
    .enumerate()
    {
        write(&at(file), &text);
        assert!(users[place].1.by(users[place].0, addr).await.1, "{file}");
    }
}

/// The certificate that the server on `addr` shows, to one who trusts these.
async fn shown_certificate(
    addr: &str,
    trusted: &[&CertificateDer<'static>],
) -> CertificateDer<'static> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).expect("a certificate");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(addr).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let secured = secured.expect("one of those that are trusted");
    let shown = secured.get_ref().1.peer_certificates().expect("it has one");
    shown[0].clone().into_owned()
}

#[tokio::test]
async fn certificates_of_tls_are_read_again() {
    let dir: TempDir = tempfile::tempdir().expect("a directory");
    let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let [first, second, third] = [make(), make(), make()];
    let trusted = [first.cert.der(), second.cert.der(), third.cert.der()];
    // Both in one file, which is replaced in one step.
    let file = dir.path().join("both.pem");
    let put = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        write(&file, &(made.cert.pem() + &made.signing_key.serialize_pem()));
    };
    put(&first);
    let config = dir.path().join("config.toml");
    let avro = "address = \"127.0.0.1:0\"";
    write(&config, &format!("[avro]\n{avro}\ncertificates = {file:?}\nprivate-key = {file:?}\n"));
    let root = tempfile::tempdir().expect("a directory");
    let mut command = example("all-in-one");
    command.arg("--root").arg(root.path()).arg("--config").arg(&config);
    command.env_remove("SPLENGINE_AVRO").args(["--http", "127.0.0.1:0", "--ws", "off"]);
    let server = Server::start(command.args(["--token", &format!("alice={ALICE}")]));
    let ready: Value = serde_json::from_str(&server.ready).expect("JSON");
    let addr = ready["avro"].as_str().expect("an address");
    let shows = async |wanted: &CertificateDer<'static>| {
        let comes = async {
            while shown_certificate(addr, &trusted).await != *wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within("a certificate", comes).await;
    };
    assert_eq!(shown_certificate(addr, &trusted).await, *trusted[0]);

    put(&second);
    server.signal(Signal::HUP);
    shows(trusted[1]).await;
    // What is broken keeps the one before it, and is told.
    let said = "the certificates stay as they were";
    let broken = [
        "nonsense\n".to_owned(),
        third.cert.pem().replacen("MII", "AAA", 1) + &third.signing_key.serialize_pem(),
        third.cert.pem() + &first.signing_key.serialize_pem(),
    ];
    for (count, text) in (1..).zip(broken) {
        write(&file, &text);
        server.signal(Signal::HUP);
        server.logs(count, said);
        assert_eq!(shown_certificate(addr, &trusted).await, *trusted[1], "{text}");
    }
    put(&third);
    server.signal(Signal::HUP);
    shows(trusted[2]).await;
    server.signal(Signal::TERM);
    let (code, _, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    let line = log.lines().find(|line| line.contains(said)).expect("it was told");
    assert!(line.contains("ERROR") && line.contains("[avro] "), "{line}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}
