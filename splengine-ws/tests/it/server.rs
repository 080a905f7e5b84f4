use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use splengine_core::auth::{Access, StaticTokens};
use splengine_core::net::ConnectionLimits;
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_http::HttpServer;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{ALICE, BOB, How, server, server_on, server_with};

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    let server = server_with(
        |policy| policy,
        |server| server.allow_origin("https://allowed.example").expect("an origin"),
    )
    .await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1", "garbage", ""] {
        let headers = [("authorization", ALICE), ("origin", origin)];
        assert_eq!(server.refusal(&headers).await, 403, "{origin}");
    }
    let own = format!("http://{}", server.addr);
    for origin in [own.as_str(), "https://allowed.example"] {
        let headers = [("authorization", ALICE), ("origin", origin)];
        let mut client =
            server.open(How { headers: &headers, ..How::default() }).await.expect("opens");
        client.frame("session").await;
    }
}

#[tokio::test]
async fn credentials_are_demanded() {
    let server = server().await;
    assert_eq!(server.refusal(&[]).await, 401);
    assert_eq!(server.refusal(&[("authorization", "Bearer wrong-wrong-wrong-wrong")]).await, 401);
    assert_eq!(server.refusal(&[("authorization", "Basic YTpi")]).await, 401);
    let own = format!("http://{}", server.addr);
    let headers = [("origin", own.as_str())];
    let mut client = server.open(How { headers: &headers, ..How::default() }).await.expect("opens");
    client.send(json!({"type": "hello", "ticket": "ticket-wrong"})).await;
    assert_eq!(client.closed().await, 4401);
}

#[tokio::test]
async fn an_unknown_parameter_is_named() {
    let server = server().await;
    let get = |query: &str| {
        format!(
            "GET /terminal?{query} HTTP/1.1\r\nAuthorization: {ALICE}\r\nConnection: upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        )
    };
    for (query, told) in [
        ("acces=view", "unknown parameter `acces`; there is: session, access, cols, rows"),
        ("session=x&token=y", "unknown parameter `token`"),
        ("access=look", "`access` must be view or control"),
        ("access=view&access=control", "once"),
        ("cols=wide", "`cols` and `rows` whole numbers"),
    ] {
        let answer = server.http(&get(query), "").await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(told), "{query}: {answer}");
    }
}

#[tokio::test]
async fn a_ticket_works_once() {
    let server = server().await;
    let mut owner = server.plain("").await;
    let id = owner.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
    let sessions = server.engine.sessions();
    let minute = Duration::from_secs(60);
    let (share, ticket) = sessions.share(&server.alice, &id, Access::View, minute).expect("shared");
    let own = format!("http://{}", server.addr);
    let headers = [("origin", own.as_str())];
    let how = How { headers: &headers, ..How::default() };
    let hello =
        json!({"type": "attach", "sessionId": id, "access": "control", "ticket": ticket.expose()});
    let mut guest = server.open(how.clone()).await.expect("opens");
    guest.send(hello.clone()).await;
    let session = guest.frame("session").await;
    assert_eq!(session["access"], "view");
    let mut second = server.open(how).await.expect("opens");
    second.send(hello).await;
    assert_eq!(second.closed().await, 4401);
    guest.send(json!({"type": "new_session"})).await;
    assert_eq!(guest.frame("error").await["code"], "forbidden");
    sessions.take_back_share(&server.alice, &id, &share.id).expect("taken back");
    assert_eq!(guest.closed().await, 4403);
}

#[tokio::test]
async fn a_login_gives_a_cookie_that_servers_take() {
    let server = server().await;
    let answer = server.http("POST /login HTTP/1.1", r#"{"token":"alices-very-long-token"}"#).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let cookie =
        answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a pair");
    let me = server.http(&format!("GET /me HTTP/1.1\r\nCookie: {cookie}"), "").await;
    assert!(me.contains(r#""user":"alice""#), "{me}");
    let list = server.http(&format!("GET /api/v1/sessions HTTP/1.1\r\nCookie: {cookie}"), "").await;
    assert!(list.starts_with("HTTP/1.1 200"), "{list}");
    let own = format!("http://{}", server.addr);
    let headers = [("origin", own.as_str()), ("cookie", cookie)];
    let mut client = server.open(How { headers: &headers, ..How::default() }).await.expect("opens");
    client.frame("session").await;
    // A cookie comes along with whatever a browser sends: without an origin it counts for nothing.
    assert_eq!(server.refusal(&[("cookie", cookie)]).await, 401);
    let foreign = format!(
        "POST /api/v1/sessions HTTP/1.1\r\nOrigin: https://evil.example\r\nCookie: {cookie}"
    );
    assert!(server.http(&foreign, "{}").await.starts_with("HTTP/1.1 403"));
    let foreign = "POST /login HTTP/1.1\r\nOrigin: https://evil.example";
    assert!(
        server
            .http(foreign, r#"{"token":"alices-very-long-token"}"#)
            .await
            .starts_with("HTTP/1.1 403")
    );
    for (body, status) in [
        (r#"{"token":"wrong-wrong-wrong-wrong"}"#, "401"),
        (r#"{"ticket":"ticket-x"}"#, "401"),
        ("{}", "400"),
        ("secret", "400"),
    ] {
        let answer = server.http("POST /login HTTP/1.1", body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(!answer.contains("secret"), "{answer}");
    }
    let out = server.http(&format!("POST /logout HTTP/1.1\r\nCookie: {cookie}"), "").await;
    assert!(out.contains("Max-Age=0"), "{out}");
}

#[tokio::test]
async fn the_page_is_guarded() {
    let server = server().await;
    let page = server.http("GET / HTTP/1.1", "").await;
    assert!(page.starts_with("HTTP/1.1 200"));
    let lower = page.to_lowercase();
    assert!(lower.contains("content-security-policy: default-src 'none'; script-src 'self'"));
    assert!(lower.contains("x-content-type-options: nosniff"));
    let tag = page.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag");
    let again = server.http(&format!("GET / HTTP/1.1\r\nIf-None-Match: {tag}"), "").await;
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
    let script = asset(&page, "main.js");
    assert!(server.http(&format!("GET {script} HTTP/1.1"), "").await.contains("text/javascript"));
    assert!(server.http("GET /health HTTP/1.1", "").await.starts_with("HTTP/1.1 200"));
    assert!(server.http("GET /nothing.js HTTP/1.1", "").await.starts_with("HTTP/1.1 404"));
    assert!(server.http("GET /terminal HTTP/1.1", "").await.starts_with("HTTP/1.1 401"));
    let upgrade = format!("GET /terminal HTTP/1.1\r\nAuthorization: {ALICE}");
    assert!(server.http(&upgrade, "").await.starts_with("HTTP/1.1 426"));
}

/// The address of a part of the page, from what the page says.
fn asset(page: &str, name: &str) -> String {
    let address = page.split('"').find(|part| part.ends_with(&format!("/{name}")));
    format!("/{}", address.expect("it is in the page"))
}

#[tokio::test]
async fn the_page_is_compressed_and_its_parts_are_kept() {
    let server = server().await;
    let page = server.http("GET / HTTP/1.1", "").await.to_lowercase();
    assert!(page.contains("cache-control: no-cache") && !page.contains("content-encoding"));
    let script = asset(&page, "main.js");
    let head = |encodings: &str| format!("HEAD {script} HTTP/1.1\r\nAccept-Encoding: {encodings}");
    for (encodings, is_gzip) in [
        ("gzip, deflate, br", true),
        ("br;q=1.0, GZIP;q=0.5", true),
        ("gzip;q=0", false),
        ("identity", false),
        ("", false),
    ] {
        let answer = server.http(&head(encodings), "").await.to_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert_eq!(answer.contains("content-encoding: gzip"), is_gzip, "{encodings}: {answer}");
        assert!(answer.contains("cache-control: public, max-age=31536000, immutable"), "{answer}");
        assert!(answer.contains("vary: accept-encoding"), "{answer}");
    }
    let old = server.http("GET /assets/0000000000000000/main.js HTTP/1.1", "").await;
    assert!(old.starts_with("HTTP/1.1 404") && old.contains("reload"), "{old}");
}

#[tokio::test]
async fn a_refused_origin_is_told_what_would_help() {
    let server = server().await;
    let login = "POST /login HTTP/1.1\r\nOrigin: https://console.example:8443";
    let answer = server.http(login, r#"{"token":"alices-very-long-token"}"#).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    for part in [
        "https://console.example:8443",
        &server.addr.to_string(),
        "proxy_set_header Host $http_host",
        "allow-origins",
    ] {
        assert!(answer.contains(part), "{part} is not in {answer}");
    }
    let long = format!("POST /logout HTTP/1.1\r\nOrigin: https://{}", "x".repeat(4000));
    let answer = server.http(&long, "").await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.len() < 2000, "{answer}");
}

#[tokio::test]
async fn a_login_tells_its_scopes() {
    let server = server().await;
    let answer = server.http("POST /login HTTP/1.1", r#"{"token":"alices-very-long-token"}"#).await;
    assert!(answer.contains(r#""scopes":["execute","sessions""#), "{answer}");
}

#[tokio::test]
async fn a_restart_is_told_as_one() {
    let mut server = server().await;
    let mut client = server.plain("").await;
    client.frame("session").await;
    server.engine.drain(Duration::from_secs(5)).await;
    assert_eq!(client.frame("notice").await["kind"], "restart");
    assert_eq!(client.closed().await, 1012);
    let headers = [("authorization", BOB)];
    let mut late = server.open(How { headers: &headers, ..How::default() }).await.expect("opens");
    assert_eq!(late.closed().await, 1012);
    drop(server.stop.take());
    tokio::time::timeout(Duration::from_secs(60), server.ended).await.expect("ends").expect("well");
}

#[tokio::test]
async fn the_end_of_the_server_sends_clients_away() {
    let mut server = server().await;
    let mut client = server.plain("").await;
    client.frame("session").await;
    drop(server.stop.take());
    assert_eq!(client.closed().await, 1001);
    tokio::time::timeout(Duration::from_secs(60), server.ended).await.expect("ends").expect("well");
}

#[tokio::test]
async fn a_peer_that_is_gone_without_a_word_is_noticed() {
    let server =
        server_with(|policy| policy, |server| server.ping_every(Duration::from_millis(50))).await;
    let mut client = server.plain("").await;
    let id = client.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
    // It does not read any more, and so answers no ping.
    let gone = async {
        while server.engine.sessions().get(&server.alice, &id).expect("is there").clients > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("noticed");
    drop(client);
}

#[tokio::test]
async fn a_client_that_reads_is_pinged_and_kept() {
    let server =
        server_with(|policy| policy, |server| server.ping_every(Duration::from_millis(10))).await;
    let mut client = server.plain("").await;
    client.frame("session").await;
    client.send(json!({"type": "input", "data": "sleep 0.5; echo la''te\n"})).await;
    client.until("late").await;
    client.send(json!({"type": "ping"})).await;
    client.frame("pong").await;
}

#[tokio::test]
async fn the_routes_of_the_api_are_found_beside_the_console() {
    let avro = tower::service_fn(async |request: http::Request<splengine_http::RequestBody>| {
        let answer = format!("mounted {} {}", request.method(), request.uri().path());
        Ok::<_, std::convert::Infallible>(http::Response::new(axum::body::Body::from(answer)))
    });
    let server = server_with(
        |policy| policy,
        |server| {
            let engine = Engine::builder(LocalExecutor::new(".").expect("set up"));
            let tokens = StaticTokens::new()
                .allow_anonymous(Caller::new("guest").expect("a name").with_all_scopes());
            let api = HttpServer::builder(engine.build().expect("built")).authenticate(tokens);
            server.api(api.mount("/avro", avro).into_service())
        },
    )
    .await;
    let run = server.http("POST /execute HTTP/1.1", r#"{"command":"echo here"}"#).await;
    assert!(run.starts_with("HTTP/1.1 200") && run.contains("here"), "{run}");
    let mounted = server.http("POST /avro HTTP/1.1", "").await;
    assert!(mounted.ends_with("mounted POST /avro"), "{mounted}");
    let script = asset(&server.http("GET / HTTP/1.1", "").await, "main.js");
    for (request, status) in [
        (format!("POST {script} HTTP/1.1").as_str(), "405"),
        (&format!("GET {script} HTTP/1.1"), "200"),
        ("POST /nothing HTTP/1.1", "404"),
        ("GET /execute HTTP/1.1", "405"),
        ("GET /health HTTP/1.1\r\nHost: another", "400"),
    ] {
        let answer = server.http(request, "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        for header in
            ["x-content-type-options: nosniff", "cross-origin-resource-policy: same-origin"]
        {
            assert!(answer.contains(header), "{request}: {answer}");
        }
    }
}

#[tokio::test]
async fn before_a_ticket_messages_are_small() {
    let server = server().await;
    let own = format!("http://{}", server.addr);
    let headers = [("origin", own.as_str())];
    let how = How { headers: &headers, ..How::default() };
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(server.open(how.clone()).await.expect("opens"));
    }
    for mut client in clients {
        client.send(json!({"type": "hello", "ticket": "x".repeat(1 << 20)})).await;
        assert_eq!(client.frame("error").await["code"], "too_large");
        assert_eq!(client.closed().await, 4413);
    }
}

#[tokio::test]
async fn what_follows_a_ticket_at_once_may_be_large() {
    let server = server().await;
    let own = format!("http://{}", server.addr);
    let headers = [("origin", own.as_str())];
    let mut client = server.open(How { headers: &headers, ..How::default() }).await.expect("opens");
    let ticket = server.engine.sessions().ticket(&server.alice).expect("a ticket");
    client.send(json!({"type": "new_session", "ticket": ticket.expose()})).await;
    client.send_large(1 << 20).await;
    client.frame("pong").await;
}

#[tokio::test]
async fn all_messages_together_are_bounded() {
    let server = server_with(|policy| policy, |server| server.max_buffered(256 << 10)).await;
    let mut held = Vec::new();
    // One caller has most of the memory, and another goes beyond it.
    for (token, length) in [(ALICE, 200 << 10), (BOB, 1 << 20)] {
        let headers = &[("authorization", token)];
        let mut client = server.open(How { headers, ..How::default() }).await.expect("opens");
        client.frame("session").await;
        client.send_unfinished(length).await;
        held.push(client);
    }
    let mut third = server.plain("").await;
    third.frame("session").await;
    third.send_large(100 << 10).await;
    assert_eq!(third.frame("error").await["code"], "busy");
    assert_eq!(third.closed().await, 1013);
    drop(held);
    let mut fourth = server.plain("").await;
    fourth.frame("session").await;
    fourth.send_large(200 << 10).await;
    fourth.frame("pong").await;
}

#[tokio::test]
async fn one_callers_web_sockets_leave_places_to_others() {
    let server = server_with(|policy| policy, |server| server.max_clients(4)).await;
    let mut first = server.plain("").await;
    let session = first.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
    let (sessions, minute) = (server.engine.sessions(), Duration::from_secs(60));
    let share = sessions.share(&server.alice, &session, Access::View, minute).expect("shared");
    let mut second = server.plain("").await;
    second.frame("session").await;
    assert_eq!(server.refusal(&[("authorization", ALICE)]).await, 429);
    // Whom she has invited counts as she does.
    let own = format!("http://{}", server.addr);
    let headers = [("origin", own.as_str())];
    let mut guest = server.open(How { headers: &headers, ..How::default() }).await.expect("opens");
    guest.send(json!({"type": "hello", "ticket": share.1.expose()})).await;
    assert_eq!(guest.first_frame().await["code"], "limit");
    assert_eq!(guest.closed().await, 4429);
    drop(guest);
    let headers = [("authorization", BOB)];
    let mut bobs = server.open(How { headers: &headers, ..How::default() }).await.expect("opens");
    bobs.frame("session").await;
    // With hers that is gone she has a place again.
    drop(second);
    loop {
        let headers = &[("authorization", ALICE)];
        match server.open(How { headers, ..How::default() }).await {
            Ok(mut again) => {
                again.frame("session").await;
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test]
async fn web_sockets_without_a_ticket_make_room_for_others() {
    let limits = ConnectionLimits::new().max_connections(3);
    let server = server_on(|server| server.connection_limits(limits)).await;
    // Whose callers are known take no places.
    let mut known = Vec::new();
    for _ in 0..4 {
        let mut client = server.plain("").await;
        client.frame("session").await;
        known.push(client);
    }
    let own = format!("http://{}", server.addr);
    let headers = [("origin", own.as_str())];
    let mut unknown = Vec::new();
    for _ in 0..8 {
        let how = How { headers: &headers, ..How::default() };
        unknown.push(server.open(how).await.expect("opens"));
    }
    let mut late = server.plain("").await;
    late.frame("session").await;
    let stats = server.engine.stats().connections;
    assert!(stats.evicted >= 5 && stats.unauthenticated <= 3, "{stats:?}");
    for client in &mut known {
        client.send(json!({"type": "ping"})).await;
        client.frame("pong").await;
    }
}

#[tokio::test]
async fn an_http_2_connection_that_only_answers_pings_is_closed() {
    let server = server().await;
    let stream = TcpStream::connect(server.addr).await.expect("connects");
    let (executor, stream) = (TokioExecutor::new(), TokioIo::new(stream));
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(executor, stream).await.expect("HTTP/2");
    let served = tokio::spawn(connection);
    let request = http::Request::get(format!("http://{}/api/v1/sessions", server.addr));
    let request = request.header("authorization", ALICE).body(axum::body::Body::empty());
    let answer = client.send_request(request.expect("built")).await.expect("answered");
    assert_eq!(answer.status(), 200);
    drop(answer);

    // The clock is moved here alone: not while a thread is at work.
    tokio::time::pause();
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let working = tokio::task::spawn_blocking(move || waits.recv().is_err());
    let begun = Instant::now();
    while !served.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(200), "it stays");
        tokio::time::advance(Duration::from_secs(1)).await;
        // Meanwhile the pings of each 20 s are answered.
        assert!(server.http("GET /nothing HTTP/1.1", "").await.starts_with("HTTP/1.1 404"));
    }
    let stayed = begun.elapsed();
    let idle = Duration::from_secs(75)..Duration::from_secs(90);
    assert!(idle.contains(&stayed), "closed after {stayed:?}");
    assert_eq!(server.engine.stats().connections.timed_out, 1);
    drop((client, done));
    assert!(working.await.expect("no panic"));
}
