//! What the head of a request says is looked at before its body is read, and every body is bounded.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::Request;
use http_body_util::BodyExt as _;
use splengine_core::auth::SharedAuthenticator;
use splengine_core::batch::BatchPolicy;
use splengine_core::files::FilePolicy;
use splengine_core::store::MemoryStore;
use splengine_core::{Engine, LocalExecutor};
use splengine_http::{HttpServer, HttpServerBuilder, HttpService, RequestBody};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use tower::ServiceExt as _;

use crate::support::{TOKEN, TestServer, server_with, tokens};

/// Every route that reads a body.
const ROUTES: [(&str, &str, &str); 14] = [
    ("POST", "/execute", "application/json"),
    ("POST", "/execute?command=cat", "application/octet-stream"),
    ("POST", "/api/v1/execute", "application/json"),
    ("POST", "/api/v1/sessions", "application/json"),
    ("PATCH", "/api/v1/sessions/s", "application/json"),
    ("POST", "/api/v1/sessions/s/input", "application/octet-stream"),
    ("POST", "/api/v1/sessions/s/save", "application/json"),
    ("POST", "/api/v1/sessions/s/shares", "application/json"),
    ("DELETE", "/api/v1/sessions/s/shares", "application/json"),
    ("POST", "/api/v1/batches", "application/json"),
    ("PUT", "/api/v1/files/a", "application/octet-stream"),
    ("PUT", "/api/v1/files/a/", "application/octet-stream"),
    ("POST", "/api/v1/files/a?move=b", "application/octet-stream"),
    ("POST", "/api/v1/files/a?copy=b", "application/octet-stream"),
];

/// Those that read none, and get one all the same.
const WITHOUT: [(&str, &str); 7] = [
    ("GET", "/health"),
    ("GET", "/api/v1/batches"),
    ("POST", "/api/v1/batches/b/rerun"),
    ("DELETE", "/api/v1/batches/b"),
    ("DELETE", "/api/v1/sessions/s"),
    ("DELETE", "/api/v1/files/a"),
    ("POST", "/api/v1/tickets"),
];

async fn server() -> TestServer {
    let root = tempfile::tempdir().expect("a directory").keep();
    let files = FilePolicy::new().root(&root).max_file_size(1 << 20);
    let batches = BatchPolicy::new(MemoryStore::new(), root.join("batches"));
    server_with(|engine| engine.files(files).batches(batches), |http| http).await
}

#[tokio::test]
async fn rights_are_checked_before_a_body_is_read() {
    let server = server().await;
    for (method, path, kind) in ROUTES {
        for (credentials, status) in
            [("", 401), ("Authorization: Bearer bob-may-do-nothing\r\n", 403)]
        {
            let mut connection = server.connect().await;
            // Of the body nothing is sent.
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: test\r\n{credentials}Content-Type: {kind}\r\n\
                 Content-Length: 1000000\r\n\r\n"
            );
            connection.send(head.as_bytes()).await;
            assert_eq!(connection.response().await.status, status, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_announced_too_large_is_refused_at_once() {
    let server = server().await;
    let mut connection = server.connect().await;
    let head = format!(
        "PUT /api/v1/files/a HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\nContent-Length: 1048577\r\n\r\n"
    );
    connection.send(head.as_bytes()).await;
    assert!(connection.response().await.problem(413).contains("1048576"));
}

fn service(
    configure: impl FnOnce(
        HttpServerBuilder<SharedAuthenticator>,
    ) -> HttpServerBuilder<SharedAuthenticator>,
) -> (HttpService, TempDir) {
    let root = tempfile::tempdir().expect("a directory");
    let files = FilePolicy::new();
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).files(files).build().expect("built");
    let http = configure(HttpServer::builder(engine).authenticate(tokens()));
    (http.into_service(), root)
}

fn request(method: &str, path: &str, kind: &str, body: Body) -> Request<Body> {
    let (name, value) = TOKEN.split_once(": ").expect("a header");
    let request = Request::builder().method(method).uri(path).header("host", "test");
    let request = request.header(name, value).header("content-type", kind);
    request.body(body).expect("a request")
}

/// So many bytes, of which the rest never comes.
fn endless(length: usize) -> Body {
    let begin = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b' '; length]))]);
    Body::from_stream(begin.chain(stream::pending()))
}

/// A piece a second, without end.
fn trickle(piece: &'static [u8]) -> Body {
    Body::from_stream(stream::unfold((), move |()| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(piece)), ()))
    }))
}

#[tokio::test(start_paused = true)]
async fn no_body_is_waited_for_without_end() {
    let (service, _root) = service(|http| http);
    for (method, path, kind) in ROUTES {
        if path.contains("session") || path.contains("batches") || path.contains("command=") {
            // There is no such session; and a command's input ends with the command.
            continue;
        }
        for piece in [&b" "[..], b""] {
            let begun = Instant::now();
            let request = request(method, path, kind, trickle(piece));
            let status = service.clone().oneshot(request).await.expect("never fails").status();
            // What has no body is refused for the first piece of one.
            assert!([400, 408].contains(&status.as_u16()), "{method} {path}: {status}");
            assert!(begun.elapsed() < Duration::from_secs(40), "{method} {path}");
        }
    }
    for (method, path) in WITHOUT {
        let begun = Instant::now();
        let request = request(method, path, "application/json", endless(1));
        let _ = service.clone().oneshot(request).await.expect("never fails").status();
        assert!(begun.elapsed() < Duration::from_secs(1), "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_may_be_slow_as_long_as_it_comes() {
    let (service, root) = service(|http| http);
    let pieces = stream::iter(0..60).then(|_| async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 4096]))
    });
    let request = request("PUT", "/api/v1/files/a", "text/plain", Body::from_stream(pieces));
    let response = service.oneshot(request).await.expect("never fails");
    assert_eq!(response.status(), 201);
    let written = std::fs::metadata(root.path().join("a")).expect("a file");
    assert_eq!(written.len(), 60 * 4096);
}

#[tokio::test(start_paused = true)]
async fn all_bodies_together_are_bounded() {
    const PIECE: usize = 128 << 10;
    let (service, _root) = service(|http| http.max_buffered(4 * PIECE));
    let begun = Instant::now();
    let ask = |token: &'static str, body| {
        let mut request = request("POST", "/execute", "application/json", body);
        let token = http::HeaderValue::from_static(token);
        request.headers_mut().insert("authorization", token);
        let response = service.clone().oneshot(request);
        async move {
            let response = response.await.expect("never fails");
            (response.status().as_u16(), response.headers().contains_key("retry-after"))
        }
    };
    let alices = || ask("Bearer alices-very-long-token", endless(PIECE));
    let carols = || ask("Bearer carol-may-execute", endless(PIECE));
    // One caller has half of the memory, and beyond it one body.
    let alice = async { tokio::join!(alices(), alices(), alices()) };
    let refused = async {
        later(1).await;
        let refused = alices().await;
        assert_eq!(begun.elapsed().as_secs(), 6, "waited for 5 s");
        refused
    };
    // Another may have half of what is left, and beyond it one body; for the next there is none.
    let carol = async {
        later(7).await;
        tokio::join!(carols(), carols(), async {
            later(1).await;
            carols().await
        })
    };
    let (alice, refused, carol) = tokio::join!(alice, refused, carol);
    assert_eq!((alice, refused), (((408, false), (408, false), (408, false)), (429, true)));
    assert_eq!(carol, ((408, false), (503, true), (503, true)));
    // It is given back.
    assert_eq!(ask("Bearer alices-very-long-token", Body::from("{}")).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn who_is_over_their_own_share_is_told_so() {
    const PIECE: usize = 96 << 10;
    // What is left of the caller's half is too little for one more; there is more of all.
    let (service, _root) = service(|http| http.max_buffered(512 << 10));
    let ask =
        || service.clone().oneshot(request("POST", "/execute", "application/json", endless(PIECE)));
    let refused = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ask().await
    };
    let (.., refused) = tokio::join!(ask(), ask(), ask(), refused);
    assert_eq!(refused.expect("never fails").status(), 429);
}

/// Asks with a body that is compressed, of which nothing ever comes; the status, and whether it tells
/// when to try again.
async fn compressed(service: &HttpService, token: &str, method: &str, path: &str) -> (u16, bool) {
    let kind = if path.contains('?') { "application/octet-stream" } else { "application/json" };
    let mut request = request(method, path, kind, endless(0));
    let token = http::HeaderValue::from_str(token).expect("a value");
    request.headers_mut().insert("authorization", token);
    request.headers_mut().insert("content-encoding", http::HeaderValue::from_static("zstd"));
    let response = service.clone().oneshot(request).await.expect("never fails");
    (response.status().as_u16(), response.headers().contains_key("retry-after"))
}

async fn later(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn decoders_of_one_caller_leave_memory_to_others() {
    // Decoders have a quarter of 256 MiB: eight of zstd, of which one caller may have four.
    let (service, _root) = service(|http| http);
    let alices = |method, path| compressed(&service, "Bearer alices-very-long-token", method, path);
    let execute = || alices("POST", "/execute");
    // The fifth goes beyond that, and no other.
    let fit = async { tokio::join!(execute(), execute(), execute(), execute(), execute()) };
    let more = async {
        later(1).await;
        let file = alices("PUT", "/api/v1/files/a");
        tokio::join!(execute(), file, alices("POST", "/execute?command=cat"))
    };
    let carols = async {
        later(2).await;
        compressed(&service, "Bearer carol-may-execute", "POST", "/execute").await
    };
    let (fit, more, carols) = tokio::join!(fit, more, carols);
    let late = (408, false);
    assert_eq!((fit, carols), ((late, late, late, late, late), late));
    assert_eq!(more, ((429, true), (429, true), (429, true)));
}

#[tokio::test(start_paused = true)]
async fn a_shortage_of_memory_for_decoders_is_told_as_one() {
    // Less than one decoder of zstd needs; one goes beyond it.
    let (service, _root) = service(|http| http.max_buffered(4 << 20));
    let alices = compressed(&service, "Bearer alices-very-long-token", "POST", "/execute");
    let eriks = async {
        later(1).await;
        let [execute, file, input] =
            [("POST", "/execute"), ("PUT", "/api/v1/files/a"), ("POST", "/execute?command=cat")]
                .map(|(method, path)| {
                    compressed(&service, "Bearer erik-has-files-too", method, path)
                });
        tokio::join!(execute, file, input)
    };
    let (alices, eriks) = tokio::join!(alices, eriks);
    assert_eq!(alices, (408, false));
    assert_eq!(eriks, ((503, true), (503, true), (503, true)));
}

#[tokio::test(start_paused = true)]
async fn decoders_of_nobody_leave_memory_to_callers() {
    // As the service that is mounted there, others read a body before they look at credentials.
    let mounted = tower::service_fn(|request: Request<RequestBody>| async {
        let read = request.into_body().collect().await;
        let status = if read.is_ok() { 200 } else { 400 };
        let response = http::Response::builder().status(status).body(Body::empty());
        Ok::<_, Infallible>(response.expect("a response"))
    });
    let (service, _root) = service(|http| http.mount("/open", mounted));
    let unknown = async {
        let mut refused = 0;
        let asked = (0..20).map(|_| compressed(&service, "none", "POST", "/open"));
        let mut asked: futures_util::stream::FuturesUnordered<_> = asked.collect();
        while let Ok(Some((status, _))) = timeout(Duration::from_secs(20), asked.next()).await {
            assert_eq!(status, 400);
            refused += 1;
        }
        refused
    };
    let alices = async {
        later(1).await;
        compressed(&service, "Bearer alices-very-long-token", "POST", "/execute").await
    };
    let (refused, alices) = tokio::join!(unknown, alices);
    // Two have a sixteenth of all the memory, and one goes beyond it.
    assert_eq!((refused, alices), (17, (408, false)));
}

#[tokio::test]
async fn one_host_is_named_and_no_more() {
    let server = server().await;
    for (head, status) in [
        ("GET /health HTTP/1.1\r\n", 400),
        ("GET http://test/health HTTP/1.1\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: a:80\r\n", 200),
        ("GET /health HTTP/1.0\r\n", 200),
    ] {
        let mut connection = server.connect().await;
        connection.send(format!("{head}\r\n").as_bytes()).await;
        assert_eq!(connection.response().await.status, status, "{head:?}");
    }
}

#[tokio::test]
async fn answers_are_not_for_other_pages_to_embed() {
    let server = server().await;
    for path in ["/health", "/api/v1/batches", "/nothing", "/api/v1/files/", "/info"] {
        let response = server.get(path).await;
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
        let policy = response.header("cross-origin-resource-policy");
        assert_eq!(policy, Some("same-origin"), "{path}");
    }
}
