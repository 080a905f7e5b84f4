use std::time::Duration;

use serde_json::{Value, json};
use splengine_core::auth::Access;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{How, TestServer, server, server_with};

const ALICES: &str = "alices-very-long-token";
/// Though pings come.
const PATIENCE: Duration = Duration::from_secs(60);
const BOBS: &str = "bobs-very-long-token-too";

/// What a browser gets for what it shows: the pair of its cookie.
fn cookie(answer: &str) -> String {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    cookie.expect("a cookie").split(';').next().expect("a pair").to_owned()
}

fn body(answer: &str) -> Value {
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {answer}"))
}

impl TestServer {
    async fn log_in(&self, token: &str) -> String {
        let body = json!({"token": token}).to_string();
        cookie(&self.http("POST /login HTTP/1.1", &body).await)
    }

    /// A request of a browser with this cookie.
    async fn browse(&self, request: &str, cookie: &str, body: &str) -> String {
        self.http(&format!("{request} HTTP/1.1\r\nCookie: {cookie}"), body).await
    }

    async fn user(&self, cookie: &str) -> Option<String> {
        let me = self.browse("GET /me", cookie, "").await;
        let list = self.browse("GET /api/v1/sessions", cookie, "").await;
        let user = body(&me)["user"].as_str().map(str::to_owned);
        assert_eq!(list.starts_with("HTTP/1.1 200"), user.is_some(), "{list}");
        user
    }
}

#[tokio::test]
async fn a_cookie_is_a_random_number() {
    let server = server().await;
    let [first, second] = [server.log_in(ALICES).await, server.log_in(ALICES).await];
    assert_ne!(first, second);
    let (name, id) = first.split_once('=').expect("a pair");
    assert_eq!(name, format!("splengine{}", server.addr.port()));
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert!(!first.contains(ALICES));
    // What was a cookie is none, and neither is any other number.
    for value in [format!("t.{ALICES}"), ALICES.to_owned(), "0".repeat(64)] {
        assert_eq!(server.user(&format!("{name}={value}")).await, None, "{value}");
    }
    let tls = "POST /login HTTP/1.1\r\nX-Forwarded-Proto: https";
    let answer = server.http(tls, &json!({"token": ALICES}).to_string()).await;
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = cookie.expect("a cookie");
    assert!(cookie.starts_with(&format!("__Host-{name}=")), "{cookie}");
    for attribute in ["; Secure", "; Path=/", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
}

#[tokio::test]
async fn a_log_out_ends_the_login_and_what_is_open_by_it() {
    let server = server().await;
    let [first, second] = [server.log_in(ALICES).await, server.log_in(ALICES).await];
    let own = format!("http://{}", server.addr);
    let open = async |cookie: &str| {
        let headers = [("origin", own.as_str()), ("cookie", cookie)];
        let mut client =
            server.open(How { headers: &headers, ..How::default() }).await.expect("opens");
        client.frame("session").await;
        client
    };
    let (mut of_first, mut of_second) = (open(&first).await, open(&second).await);
    let mut by_token = server.plain("").await;
    by_token.frame("session").await;
    let out = server.browse("POST /logout", &first, "").await;
    assert!(out.starts_with("HTTP/1.1 204") && out.contains("Max-Age=0"), "{out}");
    let told = timeout(PATIENCE, of_first.frame("error")).await.expect("told in time");
    assert_eq!(told["code"], "credentials");
    assert_eq!(of_first.closed().await, 4401);
    assert_eq!(server.user(&first).await, None);
    assert_eq!(server.user(&second).await.as_deref(), Some("alice"));
    of_second.send(json!({"type": "ping"})).await;
    of_second.frame("pong").await;

    let bobs = server.log_in(BOBS).await;
    let out = server.browse("POST /logout?everywhere=maybe", &bobs, "").await;
    assert!(out.starts_with("HTTP/1.1 400"), "{out}");
    let third = server.log_in(ALICES).await;
    server.browse("POST /logout?everywhere=true", &third, "").await;
    assert_eq!(timeout(PATIENCE, of_second.closed()).await, Ok(4401));
    assert_eq!(server.user(&second).await, None);
    assert_eq!(server.user(&bobs).await.as_deref(), Some("bob"));
    by_token.send(json!({"type": "ping"})).await;
    by_token.frame("pong").await;
}

#[tokio::test]
async fn a_log_out_ends_what_streams_over_http_too() {
    let server = server().await;
    let cookie = server.log_in(ALICES).await;
    let body = r#"{"command":"sh -c 'echo begun; sleep 60'"}"#;
    let request = format!(
        "POST /api/v1/execute HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nCookie: {cookie}\r\n\
         Accept: application/x-ndjson\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        server.addr,
        body.len()
    );
    let mut stream = TcpStream::connect(server.addr).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("begun") {
        let read = timeout(PATIENCE, stream.read_buf(&mut seen)).await.expect("in time");
        let seen = String::from_utf8_lossy(&seen);
        assert!(read.is_ok_and(|read| read > 0), "{seen}");
    }
    server.browse("POST /logout", &cookie, "").await;
    // It may end by a reset.
    drop(timeout(PATIENCE, stream.read_to_end(&mut seen)).await.expect("ends in time"));
}

#[tokio::test]
async fn nobody_is_logged_out_unasked() {
    let server = server().await;
    let alices = server.log_in(ALICES).await;
    let asks = |token: &str| json!({"token": token, "replace": false}).to_string();
    let answer = server.browse("POST /login", &alices, &asks(BOBS)).await;
    assert!(answer.starts_with("HTTP/1.1 409") && !answer.contains("set-cookie"), "{answer}");
    let told = body(&answer);
    assert_eq!((&told["user"]["user"], &told["wanted"]["user"]), (&json!("alice"), &json!("bob")));
    assert_eq!(told["status"], 409);
    assert_eq!(server.user(&alices).await.as_deref(), Some("alice"));
    // The same user goes on.
    let answer = server.browse("POST /login", &alices, &asks(ALICES)).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("set-cookie"), "{answer}");
    assert_eq!(server.user(&alices).await.as_deref(), Some("alice"));
    // What is wrong is not asked about.
    let answer = server.browse("POST /login", &alices, &asks("wrong-wrong-wrong-wrong")).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    // A ticket is not used up by the question.
    let session = server.plain("").await.frame("session").await;
    let id = session["sessionId"].as_str().expect("an id");
    let minute = Duration::from_secs(60);
    let shared = server.engine.sessions().share(&server.alice, id, Access::View, minute);
    let (_, ticket) = shared.expect("shared");
    for (replace, status) in [(false, "409"), (true, "200"), (true, "401")] {
        let shown = json!({"ticket": ticket.expose(), "replace": replace}).to_string();
        let cookie = if replace { "" } else { &alices };
        let answer = server.browse("POST /login", cookie, &shown).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    let shown = json!({"token": BOBS, "replace": true}).to_string();
    let bobs = cookie(&server.browse("POST /login", &alices, &shown).await);
    assert_eq!(server.user(&bobs).await.as_deref(), Some("bob"));
    assert_eq!(server.user(&alices).await, None, "and then it is over");
}

#[tokio::test]
async fn a_restart_logs_nobody_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("runtime/logins");
    let before = server_with(|policy| policy, |server| server.keep_logins(&file)).await;
    let [kept, over] = [before.log_in(ALICES).await, before.log_in(ALICES).await];
    before.browse("POST /logout", &over, "").await;
    drop(before);
    let server = server_with(|policy| policy, |server| server.keep_logins(&file)).await;
    // A server on another port, whose cookie has another name.
    let renamed = |cookie: &str| {
        let value = cookie.split_once('=').expect("a pair").1;
        format!("splengine{}={value}", server.addr.port())
    };
    assert_eq!(server.user(&renamed(&kept)).await.as_deref(), Some("alice"));
    assert_eq!(server.user(&renamed(&over)).await, None);
}
