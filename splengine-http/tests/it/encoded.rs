//! Bodies that come compressed are held to what plain ones are held to.

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use serde_json::json;
use splengine_core::files::FilePolicy;
use tokio::io::AsyncWriteExt as _;

use crate::client::Response;
use crate::support::*;

async fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(data).await.expect("in memory");
    encoder.shutdown().await.expect("in memory");
    encoder.into_inner()
}

async fn zstd(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZstdEncoder::new(Vec::new());
    encoder.write_all(data).await.expect("in memory");
    encoder.shutdown().await.expect("in memory");
    encoder.into_inner()
}

async fn encoded(coding: &str, data: &[u8]) -> Vec<u8> {
    if coding.contains("gzip") { gzip(data).await } else { zstd(data).await }
}

async fn server() -> TestServer {
    let root = tempfile::tempdir().expect("a directory").keep();
    let files = FilePolicy::new().root(&root).max_file_size(1 << 20);
    server_with(|engine| engine.files(files), |http| http.max_body(100_000)).await
}

async fn put(server: &TestServer, coding: &str, body: &[u8]) -> Response {
    let mut connection = server.connect().await;
    let head = format!(
        "PUT /api/v1/files/a HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\nContent-Encoding: {coding}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    connection.send(head.as_bytes()).await;
    connection.send(body).await;
    connection.response().await
}

#[tokio::test]
async fn compressed_bodies_are_decoded_on_every_route() {
    let server = server().await;
    let input = "Content-Type: application/octet-stream";
    for coding in ["gzip", "x-gzip", "GZIP", "zstd", "identity, zstd"] {
        let header = format!("Content-Encoding: {coding}");
        let body = encoded(&coding.to_lowercase(), sh("echo well").to_string().as_bytes()).await;
        let response = server.post("/execute", &[TOKEN, JSON, &header], &body).await;
        assert_eq!(response.json()["stdout"], "well\n", "{coding}");
        let body = encoded(&coding.to_lowercase(), b"as input").await;
        let query = "/execute?command=cat";
        let response = server.post(query, &[TOKEN, input, &header], &body).await;
        assert_eq!(response.json()["stdout"], "as input", "{coding}");
        let response = put(&server, coding, &body).await;
        assert!([200, 201].contains(&response.status), "{coding}: {}", response.text());
        let file = server.ask("GET", "/api/v1/files/a", None).await;
        assert_eq!(file.text(), "as input", "{coding}");
    }
    // Several members are one body.
    let body = [gzip(b"one ").await, gzip(b"two").await].concat();
    assert_eq!(put(&server, "gzip", &body).await.status, 200);
    assert_eq!(server.ask("GET", "/api/v1/files/a", None).await.text(), "one two");
}

#[tokio::test]
async fn unknown_codings_are_refused_on_every_route() {
    let server = server().await;
    let body = sh("true").to_string();
    for (coding, path) in [
        ("br", "/execute"),
        ("deflate", "/execute?command=cat"),
        ("gzip, gzip", "/api/v1/batches"),
        ("zstd, gzip", "/api/v1/sessions"),
        ("nonsense", "/api/v1/sessions/s/input"),
    ] {
        let header = format!("Content-Encoding: {coding}");
        let refused = server.post(path, &[TOKEN, JSON, &header], body.as_bytes()).await;
        assert!(refused.problem(415).contains("gzip or zstd"), "{path}");
        assert_eq!(refused.header("accept-encoding"), Some("gzip, zstd"), "{path}");
    }
    put(&server, "br", b"x").await.problem(415);
}

#[tokio::test]
async fn a_body_that_grows_beyond_the_bound_is_too_large() {
    let server = server().await;
    for coding in ["gzip", "zstd"] {
        let header = format!("Content-Encoding: {coding}");
        let large = json!({"command": "true", "stdin": "x".repeat(200_000)}).to_string();
        let body = encoded(coding, large.as_bytes()).await;
        assert!(body.len() < 1000, "it is small on the way");
        let refused = server.post("/execute", &[TOKEN, JSON, &header], &body).await;
        assert!(refused.problem(413).contains("100000 bytes"), "{coding}");
        let body = encoded(coding, &vec![0; (1 << 20) + 1]).await;
        put(&server, coding, &body).await.problem(413);
    }
}

#[tokio::test]
async fn what_is_not_compressed_as_it_says_is_told_so() {
    let server = server().await;
    let whole = gzip(sh("true").to_string().as_bytes()).await;
    let half = &whole[..whole.len() / 2];
    let more = [&whole[..], b"and more"].concat();
    // A window of 16 MiB, over the 8 MiB that every decoder of the coding has to have.
    let wide = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 14 << 3, 0x01, 0x00, 0x00];
    for (coding, body) in [
        ("gzip", &b"{\"command\": \"true\"}"[..]),
        ("gzip", half),
        ("gzip", &more),
        ("zstd", &whole),
        ("zstd", &wide),
    ] {
        let header = format!("Content-Encoding: {coding}");
        let refused = server.post("/execute", &[TOKEN, JSON, &header], body).await;
        assert!(refused.problem(400).contains("Content-Encoding"), "{coding} {body:?}");
        let refused = put(&server, coding, body).await;
        assert!(refused.problem(400).contains("Content-Encoding"), "{coding} {body:?}");
    }
    assert_eq!(server.ask("GET", "/api/v1/files/a", None).await.status, 404);
}

/// Else five commands that run would leave their caller no memory for a further body.
#[tokio::test]
async fn a_decoder_lasts_no_longer_than_its_body() {
    let server = server().await;
    let header = "Content-Encoding: zstd";
    let body = zstd(sh("sleep 600").to_string().as_bytes()).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut connection = server.connect().await;
        connection.post("/execute", &[TOKEN, JSON, header], &body).await;
        waiting.push(connection);
    }
    let run = async || {
        let all = server.ask("GET", "/api/v1/executions", None).await.json();
        all["executions"].as_array().expect("a list").len() == waiting.len()
    };
    until("they run", run).await;
    let body = zstd(b"{}").await;
    server.post("/execute", &[TOKEN, JSON, header], &body).await.problem(400);
}
