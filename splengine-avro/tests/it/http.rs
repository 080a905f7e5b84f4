//! Requests of HTTP: what their heads are refused for, before a body is read.

use splengine_core::Caller;
use splengine_core::auth::{Secret, StaticTokens};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{TestServer, execute};

const TOKEN: &str = "alices-very-long-token";
const BINARY: &str = "Content-Type: avro/binary\r\nConnection: close";

/// Takes alice's token, and nobody without one.
async fn server() -> TestServer {
    let mut tokens = StaticTokens::new();
    let alice = Caller::new("alice").expect("a name").with_all_scopes();
    tokens.insert(&Secret::new(TOKEN), alice).expect("long enough");
    TestServer::open(|server| server.authenticate(tokens)).await
}

/// What is answered to these bytes, to which no more come, until the connection is closed.
async fn answer(server: &TestServer, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.addr).await.expect("connects");
    stream.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /avro HTTP/1.1\r\n{head}\r\n{BINARY}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The head of a request whose body never comes.
fn post_nothing(head: &str, announced: usize) -> Vec<u8> {
    let head =
        format!("POST /avro HTTP/1.1\r\n{head}\r\n{BINARY}\r\nContent-Length: {announced}\r\n\r\n");
    head.into_bytes()
}

/// A handshake and a call in the specification's framing, with this metadata.
fn message(metadata: &[u8]) -> Vec<u8> {
    crate::client::message(&[metadata, &execute("word")[1..]].concat())
}

#[tokio::test]
async fn a_request_must_name_one_host() {
    let server = TestServer::open(|server| server).await;
    for (host, status) in [
        ("Host: a", "200"),
        ("X: a", "400"),
        ("Host: a\r\nHost: a", "400"),
        ("Host: a\r\nHost: b", "400"),
        ("Host: a/b", "400"),
        ("Host: user@a", "400"),
    ] {
        let answer = answer(&server, &post(host, &message(&[0]))).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
        let get = format!("GET /avro/protocol HTTP/1.1\r\n{host}\r\nConnection: close\r\n\r\n");
        let answer = self::answer(&server, get.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    let server = server().await;
    for (encoding, status) in [("gzip", "415"), ("zstd, identity", "415"), ("identity", "200")] {
        let head =
            format!("Host: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Encoding: {encoding}");
        let told = answer(&server, &post(&head, &message(&[0]))).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{encoding}: {told}");
        assert_eq!(told.contains("Content-Encoding must"), status == "415", "{told}");
    }
}

#[tokio::test]
async fn every_answer_is_for_avro_clients_only() {
    let server = server().await;
    for request in [
        post(&format!("Host: a\r\nAuthorization: Bearer {TOKEN}"), &message(&[0])),
        post("Host: a\r\nAuthorization: Bearer wrong-and-rather-long", b""),
        b"GET /avro/protocol HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET /avro/protocol HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(),
    ] {
        let answer = answer(&server, &request).await.to_ascii_lowercase();
        for header in [
            "\r\nx-content-type-options: nosniff\r\n",
            "\r\ncross-origin-resource-policy: same-origin\r\n",
            "\r\ncache-control: no-store\r\n",
        ] {
            assert!(answer.contains(header), "{answer}");
        }
    }
}

#[tokio::test]
async fn credentials_of_a_head_are_looked_at_before_its_body() {
    let server = server().await;
    let wrong = post_nothing("Host: a\r\nAuthorization: Bearer wrong-and-rather-long", 1000);
    let told = answer(&server, &wrong).await;
    assert!(told.starts_with("HTTP/1.1 401 "), "{told}");
    assert!(told.to_ascii_lowercase().contains("\r\nwww-authenticate: bearer\r\n"), "{told}");
    let basic = post_nothing("Host: a\r\nAuthorization: Basic YTpi", 1000);
    let told = answer(&server, &basic).await;
    assert!(told.starts_with("HTTP/1.1 401 "), "{told}");
    let right = post(&format!("Host: a\r\nAuthorization: Bearer {TOKEN}"), &message(&[0]));
    let told = answer(&server, &right).await;
    assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("word"), "{told}");
}

#[tokio::test]
async fn a_head_without_credentials_brings_a_small_message_only() {
    let server = server().await;
    let told = answer(&server, &post_nothing("Host: a", (512 << 10) + 1)).await;
    assert!(told.starts_with("HTTP/1.1 413 ") && told.contains("Authorization"), "{told}");
    // Chunks announce nothing.
    let head =
        format!("POST /avro HTTP/1.1\r\nHost: a\r\n{BINARY}\r\nTransfer-Encoding: chunked\r\n");
    let chunks = format!("\r\n80001\r\n{}\r\n", "x".repeat(0x8_0001));
    let told = answer(&server, &[head.as_bytes(), chunks.as_bytes()].concat()).await;
    assert!(told.starts_with("HTTP/1.1 413 "), "{told}");

    let none = answer(&server, &post("Host: a", &message(&[0]))).await;
    assert!(none.starts_with("HTTP/1.1 200 ") && none.contains("UNAUTHENTICATED"), "{none}");
    let value = format!("Bearer {TOKEN}");
    let sized = |text: &str| [&[(text.len() << 1) as u8], text.as_bytes()].concat();
    let metadata = [&[2][..], &sized("spl-authorization"), &sized(&value), &[0]].concat();
    let told = answer(&server, &post("Host: a", &message(&metadata))).await;
    assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("word"), "{told}");
}

#[tokio::test]
async fn who_is_let_in_without_credentials_may_send_a_whole_message() {
    let server = TestServer::open(|server| server).await;
    let body = vec![0xff; (512 << 10) + 1];
    let told = answer(&server, &post("Host: a", &body)).await;
    assert!(told.starts_with("HTTP/1.1 4") && !told.starts_with("HTTP/1.1 401"), "{told}");
    assert!(!told.contains("Authorization"), "{told}");
}

#[tokio::test]
async fn wrong_tokens_in_heads_count_as_guesses() {
    let server = server().await;
    let mut guesses = 0;
    let refused = loop {
        let head = format!("Host: a\r\nAuthorization: Bearer guess-{guesses}-of-some-length");
        let told = answer(&server, &post(&head, b"")).await;
        if !told.starts_with("HTTP/1.1 401 ") {
            break told;
        }
        guesses += 1;
        assert!(guesses < 50, "never refused");
    };
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.to_ascii_lowercase().contains("\r\nretry-after: "), "{refused}");
    assert!(guesses >= 5, "{guesses}");
}

#[tokio::test]
async fn of_bodies_over_http_2_no_more_than_a_window_is_taken() {
    let server = server().await;
    let mut stream = TcpStream::connect(server.addr).await.expect("connects");
    let no_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &no_settings].concat();
    stream.write_all(&begin).await.expect("sent");
    let (mut of_stream, mut of_connection) = (None, None);
    while of_stream.is_none() || of_connection.is_none() {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.expect("a frame");
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four"));
        match head[3] {
            // SETTINGS, of which one is the initial window.
            4 => {
                let settings = payload.chunks_exact(6);
                let windows = settings.filter(|setting| setting[..2] == [0, 4]);
                of_stream = of_stream.or(windows.map(|setting| number(&setting[2..])).next());
            }
            // WINDOW_UPDATE, beyond what each connection begins with.
            8 => of_connection = Some(65_535 + number(&payload)),
            _ => {}
        }
    }
    assert_eq!((of_stream, of_connection), (Some(64 << 10), Some(8 << 20)));
}
