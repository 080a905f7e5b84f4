use serde_json::json;

use crate::client::Connection;
use crate::support::*;

#[tokio::test]
async fn credentials_are_demanded() {
    let server = server().await;
    let body = sh("true").to_string();
    for header in [
        "X: y",
        "Authorization: Bearer wrong-wrong-wrong-wrong",
        "Authorization: Bearer ",
        "Authorization: Basic YWxpY2U6eA==",
        "Authorization: alices-very-long-token",
    ] {
        let refused = server.post("/execute", &[JSON, header], body.as_bytes()).await;
        let detail = refused.problem(401);
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"), "{header}");
        assert!(!detail.contains("alice") && !detail.contains("wrong"));
    }
    for query in ["token=alices-very-long-token", "access_token=alices-very-long-token"] {
        let refused = server.post(&format!("/execute?{query}"), &[JSON], body.as_bytes()).await;
        refused.problem(401);
    }
    let twice = [JSON, TOKEN, "Authorization: Bearer wrong-wrong-wrong-wrong"];
    server.post("/execute", &twice, body.as_bytes()).await.problem(400);
    let lower = "authorization: bearer alices-very-long-token";
    assert_eq!(server.post("/execute", &[JSON, lower], body.as_bytes()).await.status, 200);
    let bob = "Authorization: Bearer bob-may-do-nothing";
    let refused = server.post("/execute", &[JSON, bob], body.as_bytes()).await;
    assert_eq!(refused.problem(403), "`bob` lacks the scope `execute`");
}

#[tokio::test]
async fn credentials_come_before_the_body() {
    let server = server().await;
    let mut connection = server.connect().await;
    let head =
        format!("POST /execute HTTP/1.1\r\nHost: test\r\n{JSON}\r\nContent-Length: 1000\r\n\r\n");
    connection.send(head.as_bytes()).await;
    assert_eq!(connection.response().await.status, 401);
}

#[tokio::test]
async fn malformed_requests_are_told_what_is_wrong() {
    let server = server().await;
    for (body, culprit) in [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("nonsense", "not JSON"),
        (r#"{"command": "a"} x"#, "not JSON"),
        ("[]", "not an object"),
        (r#" ["echo hi", [], null, null, {}, null, null, null, null, null, null, null]"#, "object"),
        ("null", "an object with `command`"),
        ("{}", "`command`"),
        (r#"{"command": 1}"#, "`command`"),
        (r#"{"command": "a", "args": "b"}"#, "`args`"),
        (r#"{"command": "a", "args": [1]}"#, "`args[0]`"),
        (r#"{"command": "a", "env": {"A": 1}}"#, "`env.A`"),
        (r#"{"command": "a", "timeout": -1}"#, "`timeout`"),
        (r#"{"command": "a", "timeout": 1.5}"#, "`timeout`"),
        (r#"{"command": "a", "timeout": "1"}"#, "`timeout`"),
        (r#"{"command": "a", "timeout": 0}"#, "`timeout`"),
        (r#"{"command": "a", "timout": 1}"#, "`timout`"),
        (r#"{"command": "a", "background": "maybe"}"#, "`background`"),
        (r#"{"command": "a", "stdinEncoding": "utf16"}"#, "`stdinEncoding`"),
        (r#"{"command": "a", "stdin": "*", "stdinEncoding": "base64"}"#, "`stdin`"),
        (r#"{"command": "a", "limits": {"cpu": 1}}"#, "cpu"),
        (r#"{"command": "a", "command": "b"}"#, "command"),
        (r#"{"command": ""}"#, "`command`"),
        (r#"{"command": "echo 'a"}"#, "quote"),
        (r#"{"command": "echo a; echo b"}"#, "`;`"),
        (r#"{"command": "echo a\necho b"}"#, "a line end"),
        (r#"{"command": "a", "shell": "yes"}"#, "`shell`"),
        (r#"{"command": "echo", "args": ["a\u0000b"]}"#, "NUL"),
        (r#"{"command": "echo", "env": {"A=B": ""}}"#, "`env`"),
    ] {
        let detail = server.post("/execute", &[TOKEN, JSON], body.as_bytes()).await.problem(400);
        assert!(detail.contains(culprit), "{body}: {detail}");
        for word in ["Dto", "u64", "sequence", "map", "struct", "enum"] {
            assert!(!detail.contains(word), "{detail}");
        }
    }
    let deep = "[".repeat(100_000);
    server.post("/execute", &[TOKEN, JSON], deep.as_bytes()).await.problem(400);
    server.post("/execute", &[TOKEN, JSON], b"{\"command\": \"\xff\"}").await.problem(400);
    server.get("/api/v1/batches/%ff").await.problem(400);
    server
        .post("/execute?timeout=1", &[TOKEN, JSON], sh("true").to_string().as_bytes())
        .await
        .problem(400);
    assert_eq!(server.run(&sh("echo well")).await["stdout"], "well\n");
}

#[tokio::test]
async fn a_list_that_is_too_long_is_told_with_its_place() {
    let server = server().await;
    let request = json!({"command": "true", "mask": vec!["X"; 65]});
    let answer = server.execute(&request).await;
    assert_eq!(answer.json()["pointer"], "/mask");
    let detail = answer.problem(422);
    assert_eq!(detail, "`mask` has more than 64 elements, the maximum (at /mask)");
}

#[tokio::test]
async fn impossible_requests_are_told_what_is_wrong() {
    let server = server().await;
    std::os::unix::fs::symlink("/etc", server.root.path().join("link")).expect("made");
    for (request, culprit) in [
        (json!({"command": "no-such-program"}), "no-such-program"),
        (json!({"command": "pwd", "workdir": "../.."}), "workdir"),
        (json!({"command": "pwd", "workdir": "/etc"}), "workdir"),
        (json!({"command": "pwd", "workdir": "link"}), "workdir"),
        (json!({"command": "pwd", "workdir": "missing"}), "workdir"),
        (json!({"command": "pwd", "timeout": u64::MAX}), "timeout"),
        (json!({"command": "pwd", "outputLimit": u64::MAX}), "outputLimit"),
        (json!({"command": "pwd", "async": true}), "async"),
    ] {
        let detail = server.execute(&request).await.problem(422);
        assert!(detail.contains(culprit), "{request}: {detail}");
    }
    let request = json!({"command": "pwd", "sessionId": "spl-alice-x"});
    assert!(server.execute(&request).await.problem(404).contains("spl-alice-x"));
}

#[tokio::test]
async fn many_arguments_pass() {
    let server = server().await;
    let mut args = vec!["echo $#".to_owned(), "sh".to_owned()];
    args.extend((0..10_000).map(|i| i.to_string()));
    assert_eq!(server.run(&json!({"command": "sh -c", "args": args})).await["stdout"], "10000\n");
}

#[tokio::test]
async fn a_shell_is_had_by_asking_for_it() {
    let request = json!({"command": "echo a; echo \"$1\"", "args": ["b"], "shell": true});
    let refused = server().await.execute(&request).await;
    assert!(refused.problem(422).contains("`shell`"));
    let server = server_with(|engine| engine.shell_commands(true), |http| http).await;
    assert_eq!(server.run(&request).await["stdout"], "a\nb b\n");
    let input = "Content-Type: application/octet-stream";
    let query = "/execute?shell=true&command=cat%3B+echo+b";
    let ran = server.post(query, &[TOKEN, input], b"a\n").await;
    assert_eq!(ran.json()["stdout"], "a\nb\n");
}

#[tokio::test]
async fn a_type_is_demanded_and_known() {
    let server = server().await;
    let body = sh("true").to_string();
    for headers in [
        vec![TOKEN],
        vec![TOKEN, "Content-Type: text/plain"],
        vec![TOKEN, "Content-Type: application/x-www-form-urlencoded"],
        vec![TOKEN, "Content-Type: multipart/form-data; boundary=x"],
    ] {
        server.post("/execute", &headers, body.as_bytes()).await.problem(415);
    }
    for fine in ["application/json; charset=utf-8", "Application/JSON", "application/x+json"] {
        let header = format!("Content-Type: {fine}");
        let response = server.post("/execute", &[TOKEN, &header], body.as_bytes()).await;
        assert_eq!(response.status, 200, "{fine}");
    }
    let picky = [TOKEN, JSON, "Accept: text/html"];
    server.post("/execute", &picky, body.as_bytes()).await.problem(406);
    let streamed = [TOKEN, JSON, "Accept: text/event-stream"];
    let refused = server.post("/execute?failStatus=500", &streamed, body.as_bytes()).await;
    assert!(refused.problem(400).contains("failStatus"));
}

#[tokio::test]
async fn a_query_of_input_is_checked_like_a_body() {
    let server = server().await;
    let input = "Content-Type: application/octet-stream";
    for (query, culprit) in [
        ("", "command"),
        ("command=a&command=b", "command"),
        ("command=cat&timeout=x", "timeout"),
        ("command=cat&background=x", "background"),
        ("command=cat&token=x", "token"),
        ("command=cat&shell=1", "shell"),
        ("command=cat+%3E+a", "`>`"),
    ] {
        let refused = server.post(&format!("/execute?{query}"), &[TOKEN, input], b"").await;
        assert!(refused.problem(400).contains(culprit), "{query}");
    }
}

#[tokio::test]
async fn a_huge_body_is_refused() {
    let server = server_with(|engine| engine, |http| http.max_body(1000)).await;
    let body = with(sh("true"), json!({"stdin": "x".repeat(2000)})).to_string();
    let refused = server.post("/execute", &[TOKEN, JSON], body.as_bytes()).await;
    assert!(refused.problem(413).contains("1000 bytes"));
    // The same without saying beforehand how long it is.
    let mut connection = server.connect().await;
    let head = format!(
        "POST /execute HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    connection.send(head.as_bytes()).await;
    connection.send(format!("{:x}\r\n{body}\r\n", body.len()).as_bytes()).await;
    connection.response().await.problem(413);
    // And announced only: nothing of it needs to be sent.
    let mut connection = server.connect().await;
    let head = format!(
        "POST /execute HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n{JSON}\r\nContent-Length: 99999999999\r\n\r\n"
    );
    connection.send(head.as_bytes()).await;
    connection.response().await.problem(413);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let timeout = std::time::Duration::from_millis(200);
    let server = server_with(|engine| engine, |http| http.body_timeout(timeout)).await;
    let mut connection = server.connect().await;
    let head = format!(
        "POST /execute HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n{JSON}\r\nContent-Length: 10\r\n\r\n{{"
    );
    connection.send(head.as_bytes()).await;
    connection.response().await.problem(408);
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let allow = |http: splengine_http::HttpServerBuilder<_>| {
        http.allow_origin("https://console.example").expect("an origin")
    };
    let server = server_with(|engine| engine, allow).await;
    let body = sh("true").to_string();
    for (origin, status) in [
        ("http://evil.example", 403),
        ("null", 403),
        ("http://test.evil.example", 403),
        ("http://test", 200),
        ("https://console.example", 200),
    ] {
        let header = format!("Origin: {origin}");
        let response = server.post("/execute", &[TOKEN, JSON, &header], body.as_bytes()).await;
        assert_eq!(response.status, status, "{origin}");
        let allowed = response.header("access-control-allow-origin");
        assert_eq!(allowed.is_some(), origin == "https://console.example");
    }
    let mut connection = Connection::open(server.addr).await;
    let preflight = "OPTIONS /execute HTTP/1.1\r\nHost: test\r\nOrigin: https://console.example\r\n\
                     Access-Control-Request-Method: POST\r\n\
                     Access-Control-Request-Headers: authorization,content-type\r\n\r\n";
    connection.send(preflight.as_bytes()).await;
    let response = connection.response().await;
    assert_eq!(response.status, 200);
    let allowed = response.header("access-control-allow-headers").expect("a list");
    for name in
        ["authorization", "content-encoding", "idempotency-key", "last-event-id", "if-range"]
    {
        assert!(allowed.contains(name), "{name}: {allowed}");
    }
    let headers = [TOKEN, JSON, "Origin: https://console.example"];
    let response = server.post("/execute", &headers, body.as_bytes()).await;
    let exposed = response.header("access-control-expose-headers").expect("a list");
    for name in ["retry-after", "location", "stdout-gap", "attempt", "idempotency-replayed"] {
        assert!(exposed.contains(name), "{name}: {exposed}");
    }
}

#[tokio::test]
async fn without_configuration_no_page_is_let_in() {
    let server = server().await;
    let headers = [TOKEN, JSON, "Origin: https://console.example"];
    let refused = server.post("/execute", &headers, sh("true").to_string().as_bytes()).await;
    assert_eq!(refused.header("access-control-allow-origin"), None);
    refused.problem(403);
}

#[test]
fn an_origin_is_a_scheme_and_a_host() {
    struct Nothing;
    impl splengine_core::Execute for Nothing {
        async fn execute(
            &self,
            _: splengine_core::execute::Command,
            _: splengine_core::execute::Stdin,
            _: splengine_core::execute::Output,
            _: splengine_core::execute::Cancel,
        ) -> Result<splengine_core::execute::Exit, splengine_core::ExecuteError> {
            Ok(splengine_core::execute::Exit::new(splengine_core::execute::ExitStatus::Code(0)))
        }
    }
    let engine = splengine_core::Engine::builder(Nothing).build().expect("built");
    for (origin, fine) in [
        ("https://a.example", true),
        ("http://localhost:3000", true),
        ("*", false),
        ("a.example", false),
        ("https://a.example/", false),
        ("https://a.example/x", false),
    ] {
        let builder = splengine_http::HttpServer::builder(engine.clone());
        assert_eq!(builder.allow_origin(origin).is_ok(), fine, "{origin}");
    }
}
