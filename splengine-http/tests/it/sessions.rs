use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use splengine_core::session::SessionPolicy;

use crate::support::{TOKEN, TestServer, http_2, server_with};

async fn server() -> TestServer {
    let store = tempfile::tempdir().expect("a directory");
    let policy = SessionPolicy::new().shell(["/bin/sh"]).store(store.path().join("sessions"));
    let server = server_with(|engine| engine.sessions(policy), |http| http).await;
    // Kept as long as the engine may write there.
    std::mem::forget(store);
    server
}

impl TestServer {
    async fn session(&self, request: Value) -> String {
        let made = self.ask("POST", "/api/v1/sessions", Some(&request)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let id = made.json()["sessionId"].as_str().expect("an id").to_owned();
        assert_eq!(made.header("location"), Some(format!("/api/v1/sessions/{id}").as_str()));
        format!("/api/v1/sessions/{id}")
    }

    async fn shows(&self, session: &str, needle: &str) -> String {
        for _ in 0..6000 {
            let screen = self.ask("GET", &format!("{session}/screen"), None).await;
            if screen.text().contains(needle) {
                return screen.text().to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{needle} is never shown");
    }
}

#[tokio::test]
async fn a_session_from_its_beginning_to_its_end() {
    let server = server().await;
    let session =
        server.session(json!({"name": "mine", "cols": 100, "rows": 30, "env": {"A": "b"}})).await;
    let info = server.ask("GET", &session, None).await.json();
    for (member, value) in [
        ("user", json!("alice")),
        ("name", json!("mine")),
        ("cols", json!(100)),
        ("rows", json!(30)),
        ("clients", json!(0)),
        ("state", json!("running")),
        ("exitCode", json!(null)),
    ] {
        assert_eq!(info[member], value, "{member}");
    }
    for member in ["created", "lastActivity", "workdir"] {
        assert!(info[member].is_string(), "{member}");
    }
    let mut connection = server.connect().await;
    connection.post(&format!("{session}/input"), &[TOKEN], b"echo $A-$((6*7)); exit 3\n").await;
    assert_eq!(connection.response().await.status, 204);
    assert!(server.shows(&session, "b-42").await.contains("b-42"));
    let renamed = server.ask("PATCH", &session, Some(&json!({"name": "yours"}))).await;
    assert_eq!(renamed.json()["name"], "yours");
    let info = loop {
        let info = server.ask("GET", &session, None).await.json();
        if info["state"] == "exited" {
            break info;
        }
    };
    assert_eq!(info["exitCode"], 3);
    let late = server.ask("POST", &format!("{session}/input"), Some(&json!("x"))).await;
    late.problem(409);
    assert_eq!(server.ask("DELETE", &session, None).await.status, 204);
    server.ask("GET", &session, None).await.problem(404);
    let list = server.ask("GET", "/api/v1/sessions", None).await.json();
    assert_eq!(list["sessions"], json!([]));
}

#[tokio::test]
async fn screens_and_recordings_are_given_in_their_forms() {
    let server = server().await;
    // Nothing follows, as the end of the line would.
    let script = "printf '\\033[31mred\\033[m'; read x";
    let session = server.session(json!({"command": "sh -c", "args": [script]})).await;
    assert_eq!(server.shows(&session, "red").await, "red");
    let ansi = server.ask("GET", &format!("{session}/screen?format=ansi"), None).await;
    assert!(ansi.text().contains("\x1b[0;31mred"), "{ansi:?}");
    assert_eq!(ansi.header("terminal-cols"), Some("80"));
    server.ask("GET", &format!("{session}/screen?format=png"), None).await.problem(400);
    server.ask("GET", &format!("{session}/screen?at=x"), None).await.problem(400);
    let then = server.ask("GET", &format!("{session}/screen?at=1000"), None).await;
    assert_eq!(then.text(), "red");
    let path = format!("{session}/recording");
    let whole = server.ask("GET", &path, None).await;
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let first: Value =
        serde_json::from_str(whole.text().lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["version"], &first["width"]), (&json!(2), &json!(80)));
    let mut connection = server.connect().await;
    let request = |range: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\nRange: bytes={range}\r\n\r\n")
    };
    connection.send(request("5-9").as_bytes()).await;
    let part = connection.response().await;
    assert_eq!((part.status, &part.body[..]), (206, &whole.body[5..10]));
    let expected = format!("bytes 5-9/{}", whole.body.len());
    assert_eq!(part.header("content-range"), Some(expected.as_str()));
    connection.send(request("1000000-").as_bytes()).await;
    connection.response().await.problem(416);
}

#[tokio::test]
async fn sessions_are_saved_loaded_and_forgotten() {
    let server = server().await;
    let session = server.session(json!({"command": "cat", "name": "mine"})).await;
    let saved =
        server.ask("POST", &format!("{session}/save"), Some(&json!({"name": "kept"}))).await;
    assert_eq!(saved.status, 201, "{}", saved.text());
    let saved_id = saved.json()["savedId"].as_str().expect("an id").to_owned();
    assert_eq!(saved.json()["name"], "kept");
    let list = server.ask("GET", "/api/v1/saved-sessions", None).await.json();
    assert_eq!(list["savedSessions"][0]["savedId"], saved_id.as_str());
    let path = format!("/api/v1/saved-sessions/{saved_id}");
    assert_eq!(server.ask("GET", &path, None).await.json()["name"], "kept");
    let loaded = server.session(json!({"from": saved_id})).await;
    assert_eq!(server.ask("GET", &loaded, None).await.json()["restored"], true);
    assert_eq!(server.ask("DELETE", &path, None).await.status, 204);
    server.ask("DELETE", &path, None).await.problem(404);
    let gone = server.ask("POST", "/api/v1/sessions", Some(&json!({"from": saved_id}))).await;
    gone.problem(404);
}

#[tokio::test]
async fn shares_and_tickets_are_given_and_taken_back() {
    let server = server().await;
    let session = server.session(json!({"command": "cat"})).await;
    let path = format!("{session}/shares");
    let request = json!({"access": "control", "expiresIn": 60000});
    let share = server.ask("POST", &path, Some(&request)).await;
    assert_eq!(share.status, 201, "{}", share.text());
    let share = share.json();
    let ticket = share["ticket"].as_str().expect("text");
    assert!(share["url"].as_str().expect("text").ends_with(&format!("/#ticket={ticket}")));
    let list = server.ask("GET", &path, None).await;
    assert_eq!(list.json()["shares"][0]["shareId"], share["shareId"]);
    assert!(!list.text().contains(ticket), "it is told once");
    assert_eq!(server.ask("DELETE", &path, Some(&json!({"ticket": ticket}))).await.status, 204);
    server.ask("DELETE", &path, Some(&json!({"ticket": ticket}))).await.problem(404);
    server.ask("POST", &path, Some(&json!({"access": "all"}))).await.problem(400);
    server.ask("POST", &path, Some(&json!({"access": "view", "expiresIn": 0}))).await.problem(400);
    server.ask("POST", &path, Some(&json!({"access": "view"}))).await;
    assert_eq!(server.ask("DELETE", &path, None).await.status, 204);
    assert_eq!(server.ask("GET", &path, None).await.json()["shares"], json!([]));
    let made = server.ask("POST", "/api/v1/tickets", None).await;
    assert_eq!(made.status, 201);
    assert!(made.json()["ticket"].is_string());
}

/// Where requests name it in `:authority`.
#[tokio::test]
async fn the_link_of_a_share_leads_to_the_host_over_http_2_as_well() {
    let server = server().await;
    let session = server.session(json!({"command": "cat"})).await;
    let (mut client, _connection) = http_2(server.addr).await;
    let request = Request::post(format!("http://{}{session}/shares", server.addr));
    let request = request.header("authorization", "Bearer alices-very-long-token");
    let request = request.body(Full::default()).expect("a request");
    let share = client.send_request(request).await.expect("answered");
    assert_eq!(share.status(), 201);
    let share = share.into_body().collect().await.expect("read").to_bytes();
    let share: Value = serde_json::from_slice(&share).expect("JSON");
    let url = share["url"].as_str().expect("text");
    assert!(url.starts_with(&format!("http://{}/#ticket=", server.addr)), "{url}");
}

#[tokio::test]
async fn a_bad_request_is_told_what_is_wrong() {
    let server = server().await;
    for (request, status, words) in [
        (json!({"cols": 0}), 400, "cols"),
        (json!({"rows": 501}), 400, "rows"),
        (json!({"command": 7}), 400, "command"),
        (json!({"colour": "red"}), 400, "colour"),
        (json!({"command": "no-such-program"}), 422, "no-such-program"),
        (json!({"workdir": "missing"}), 422, "missing"),
        (json!({"from": "saved-x"}), 404, "saved-x"),
    ] {
        let answer = server.ask("POST", "/api/v1/sessions", Some(&request)).await;
        let detail = answer.problem(status);
        assert!(detail.contains(words), "{detail}");
    }
    server.ask("GET", "/api/v1/sessions/nonsense", None).await.problem(404);
    server.get("/api/v1/sessions").await.problem(401);
    let session = server.session(json!({"command": "cat"})).await;
    let run =
        json!({"command": "pwd", "sessionId": session.trim_start_matches("/api/v1/sessions/")});
    assert_eq!(server.run(&run).await["sessionId"], run["sessionId"]);
}
