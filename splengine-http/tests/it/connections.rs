use std::time::Duration;

use serde_json::json;
use splengine_core::net::ConnectionLimits;
use splengine_http::HttpServerBuilder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::Connection;
use crate::support::*;

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server = server().await;
    let mut connection = server.connect().await;
    for i in 0..20 {
        let body = sh(&format!("echo {i}")).to_string();
        connection.post("/execute", &[TOKEN, JSON], body.as_bytes()).await;
        assert_eq!(connection.response().await.json()["stdout"], format!("{i}\n"));
    }
}

#[tokio::test]
async fn half_a_header_is_not_waited_for() {
    let short = Duration::from_secs(2);
    let server = server_on(|server| server.header_timeout(short).keep_alive_timeout(short)).await;
    let mut halves = Vec::new();
    // Nothing, what HTTP/1.1 and HTTP/2 may both begin with, half of HTTP/2's beginning, a header.
    let beginnings: [&[u8]; 4] = [b"", b"P", b"PRI * HTTP/2", b"POST /execute HTTP/1.1\r\nHo"];
    for beginning in beginnings {
        let mut half = server.connect().await;
        half.send(beginning).await;
        halves.push(half);
    }
    let mut idle = server.connect().await;
    assert_eq!(idle.get("/health").await.status, 200);
    for (half, beginning) in halves.iter_mut().zip(beginnings) {
        assert!(half.is_closed().await, "{}", String::from_utf8_lossy(beginning));
    }
    assert!(idle.is_closed().await);
    assert_eq!(server.run(&sh("echo well")).await["stdout"], "well\n");
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_their_turn() {
    let server = server_on(|server| server.max_connections(2)).await;
    // Of two callers: a connection beyond the share of its caller would make room.
    let mut first = server.connect().await;
    first.post("/execute", &[TOKEN, JSON], sh("true").to_string().as_bytes()).await;
    assert_eq!(first.response().await.status, 200);
    let mut second = server.connect().await;
    let bob = "Authorization: Bearer bob-may-do-nothing";
    second.post("/execute", &[bob, JSON], sh("true").to_string().as_bytes()).await;
    assert_eq!(second.response().await.status, 403);
    let mut third = server.connect().await;
    third.send(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(200), third.response()).await;
    assert!(early.is_err(), "three are served at once");
    drop(first);
    let mut third = server.connect().await;
    drop(second);
    assert_eq!(third.get("/health").await.status, 200);
}

#[tokio::test]
async fn silent_connections_of_strangers_hold_up_nobody() {
    let limits = || ConnectionLimits::new().max_connections(8).max_unauthenticated(6);
    let server = server_on(|server| server.connection_limits(limits())).await;
    let mut known = server.connect().await;
    let run = sh("true").to_string();
    known.post("/execute", &[TOKEN, JSON], run.as_bytes()).await;
    assert_eq!(known.response().await.status, 200);
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(Connection::open_from([127, 0, 0, 2], server.addr).await);
        assert_eq!(server.get("/health").await.status, 200);
    }
    assert!(silent[0].is_closed().await, "the oldest goes first");
    known.post("/execute", &[TOKEN, JSON], run.as_bytes()).await;
    assert_eq!(known.response().await.status, 200, "who is known stays");
    let text = server.get("/metrics").await.text().to_owned();
    let evicted = r#"splengine_connections_closed_total{cause="evicted"} "#;
    let evicted = text.lines().find_map(|line| line.strip_prefix(evicted)).expect("counted");
    assert!(evicted.parse::<u64>().expect("a number") >= 20, "{evicted}");
}

#[tokio::test]
async fn an_http_2_connection_that_only_answers_pings_is_closed() {
    let idle = Duration::from_secs(2);
    let server = server_on(|server| server.keep_alive_timeout(idle)).await;
    let request = |body: &serde_json::Value| {
        http::Request::post(format!("http://{}/execute", server.addr))
            .header("authorization", TOKEN.trim_start_matches("Authorization: "))
            .header("content-type", "application/json")
            .body(http_body_util::Full::new(bytes::Bytes::from(body.to_string())))
            .expect("built")
    };
    let mut clients = Vec::new();
    for script in ["true", "sleep 5; echo still"] {
        let (mut client, served) = http_2(server.addr).await;
        let answer = client.send_request(request(&sh(script)));
        clients.push((client, served, answer));
    }
    let (_idle, served, answer) = clients.remove(0);
    assert_eq!(answer.await.expect("answered").status(), 200);
    // Long before the time within which pings must be answered.
    let closed = tokio::time::timeout(Duration::from_secs(30), served).await;
    drop(closed.expect("closed in time").expect("no panic"));
    assert!(server.engine.stats().connections.timed_out >= 1);
    let (_busy, _served, answer) = clients.remove(0);
    assert_eq!(answer.await.expect("answered").status(), 200, "what is worked at is not idle");
}

#[tokio::test]
async fn who_reads_nothing_is_cut_and_its_run_with_it() {
    let limits = || ConnectionLimits::new().write_timeout(Duration::from_secs(1));
    let server = server_on(|server| server.connection_limits(limits())).await;
    let mut deaf = Connection::open_narrow(server.addr).await;
    let body = sh("exec cat /dev/zero").to_string();
    deaf.post("/execute", &[TOKEN, JSON, "Accept: application/x-ndjson"], body.as_bytes()).await;
    eventually("it runs", || server.engine.stats().started == 1).await;
    eventually("it is cut", || server.engine.stats().connections.write_timed_out == 1).await;
    eventually("its run is over", || server.engine.stats().running == 0).await;
    drop(deaf);
}

#[tokio::test]
async fn who_asks_for_nothing_is_closed_and_a_poller_is_not() {
    let limits = || ConnectionLimits::new().unauthenticated_timeout(Duration::from_secs(3));
    let server = server_on(|server| server.connection_limits(limits())).await;
    let mut poller = server.connect().await;
    assert_eq!(poller.get("/health").await.status, 200);
    let mut silent = server.connect().await;
    let mut half = server.connect().await;
    half.send(b"GET /health HTTP/1.1\r\nHo").await;
    assert!(silent.is_closed().await && half.is_closed().await);
    assert_eq!(poller.get("/health").await.status, 200);
    assert_eq!(server.engine.stats().connections.timed_out, 2);
}

#[tokio::test]
async fn http_2_without_tls() {
    use http_body_util::{BodyExt as _, Full};
    let server = server().await;
    let (mut client, _connection) = http_2(server.addr).await;
    let mut answers = Vec::new();
    for i in 0..8 {
        let body = sh(&format!("echo {i}")).to_string();
        let request = http::Request::post(format!("http://{}/execute", server.addr))
            .header("authorization", "Bearer alices-very-long-token")
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(body)))
            .expect("built");
        answers.push(client.send_request(request));
    }
    for (i, answer) in answers.into_iter().enumerate() {
        let body = answer.await.expect("answered").into_body().collect().await.expect("read");
        let json: serde_json::Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
        assert_eq!(json["stdout"], json!(format!("{i}\n")));
    }
}

#[tokio::test]
async fn the_server_ends_gracefully_and_in_time() {
    let linger = Duration::from_secs(10);
    let mut server = server_on(|server| server.max_linger(linger)).await;
    let mut finishing = server.connect().await;
    finishing
        .post(
            "/execute",
            &[TOKEN, JSON],
            sh("while [ ! -e go ]; do sleep 0.01; done; echo done").to_string().as_bytes(),
        )
        .await;
    let mut stuck = server.connect().await;
    stuck.post("/execute", &[TOKEN, JSON], sh("sleep 60").to_string().as_bytes()).await;
    eventually("both run", || server.engine.stats().running == 2).await;
    server.stop.take().expect("once").send(()).expect("it runs");
    let is_closed = || std::net::TcpStream::connect(server.addr).is_err();
    eventually("nobody listens any more", is_closed).await;
    std::fs::write(server.root.path().join("go"), "").expect("made");
    assert_eq!(finishing.response().await.json()["stdout"], "done\n");
    tokio::time::timeout(Duration::from_secs(60), server.ended)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(stuck.is_closed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_callers_and_health_answers_all_the_while() {
    let server = server_with(|engine| engine.max_running(8), |http| http).await;
    let (addr, engine) = (server.addr, server.engine.clone());
    let callers: Vec<_> = (0..200)
        .map(|i| {
            tokio::spawn(async move {
                let mut connection = crate::client::Connection::open(addr).await;
                let body = sh(&format!("sleep 0.02; echo {i}")).to_string();
                connection.post("/execute", &[TOKEN, JSON], body.as_bytes()).await;
                assert_eq!(connection.response().await.json()["stdout"], format!("{i}\n"));
            })
        })
        .collect();
    let mut health = server.connect().await;
    let mut asked = 0;
    while !callers.iter().all(tokio::task::JoinHandle::is_finished) {
        assert_eq!(health.get("/health").await.status, 200);
        assert!(engine.stats().running <= 8);
        asked += 1;
    }
    assert!(asked > 1);
    for caller in callers {
        caller.await.expect("answered");
    }
}

#[tokio::test]
async fn bounds_of_any_size_are_taken() {
    let extremes = [(usize::MAX, Duration::MAX), (0, Duration::from_secs(30))];
    for (connections, time) in extremes {
        let bodies = |http: HttpServerBuilder<_>| http.body_timeout(time).max_body(usize::MAX);
        let server = server_as(bodies, |server| {
            server
                .max_connections(connections)
                .header_timeout(time)
                .keep_alive_timeout(time)
                .max_linger(time)
        })
        .await;
        assert_eq!(server.run(&sh("echo well")).await["stdout"], "well\n");
    }
}

#[tokio::test]
async fn a_client_that_ends_its_half_gets_its_answer() {
    let server = server().await;
    let script = sh("sleep 4; echo well").to_string();
    for (version, accept) in [
        ("1.1", "application/json"),
        ("1.0", "application/json"),
        ("1.1", "text/event-stream"),
        ("1.0", "application/x-ndjson"),
    ] {
        let mut connection = server.connect().await;
        let head = format!(
            "POST /execute HTTP/{version}\r\nHost: test\r\n{TOKEN}\r\n{JSON}\r\nAccept: {accept}\r\n\
             Content-Length: {}\r\n\r\n{script}",
            script.len()
        );
        connection.send(head.as_bytes()).await;
        connection.end_sending().await;
        let answer = connection.rest().await;
        // Nothing that was sent to find out whether it still listens is seen in it.
        assert!(answer.starts_with(&format!("HTTP/{version} 200 OK\r\n")), "{version} {answer}");
        assert!(answer.contains("well") && answer.contains("\"exitCode\":0"), "{answer}");
    }
}

#[tokio::test]
async fn requests_one_behind_the_other_are_all_answered_to_who_ends_their_half() {
    let server = server().await;
    let mut connection = server.connect().await;
    let mut requests = String::new();
    for i in 0..3 {
        let script = sh(&format!("sleep 1.5; echo {i}")).to_string();
        let length = script.len();
        requests += &format!(
            "POST /execute HTTP/1.1\r\nHost: test\r\n{TOKEN}\r\n{JSON}\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\n\r\n{script}"
        );
    }
    connection.send(requests.as_bytes()).await;
    connection.end_sending().await;
    for i in 0..3 {
        let mut response = connection.response().await;
        while response.status == 100 {
            response = connection.response().await;
        }
        assert_eq!(response.json()["stdout"], format!("{i}\n"));
    }
    assert_eq!(connection.rest().await, "");
}

#[tokio::test]
async fn idle_connections_are_kept_for_as_long_as_clients_are_told() {
    let short = Duration::from_secs(3);
    let server = server_on(|server| server.keep_alive_timeout(short)).await;
    let mut idle = server.connect().await;
    let response = idle.get("/health").await;
    assert_eq!(response.header("keep-alive"), Some("timeout=3"));
    assert_eq!(response.header("connection"), Some("keep-alive"));
    tokio::time::sleep(short).await;
    // What is sent just in time is answered.
    assert_eq!(idle.get("/health").await.status, 200);
    assert!(idle.is_closed().await);

    let default = crate::support::server().await;
    assert_eq!(default.get("/health").await.header("keep-alive"), Some("timeout=75"));
    for (head, kept) in [
        ("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", None),
        ("GET /health HTTP/1.0\r\n\r\n", None),
        ("GET /health HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Some("timeout=75")),
    ] {
        let mut connection = default.connect().await;
        connection.send(head.as_bytes()).await;
        assert_eq!(connection.response().await.header("keep-alive"), kept, "{head}");
    }
}

/// Without a length, its end is that of the connection, of which nothing else is said.
#[tokio::test]
async fn a_long_answer_to_http_1_0_ends_with_its_connection() {
    let server = server().await;
    let body = sh("head -c 100000 /dev/zero | tr '\\0' x").to_string();
    let mut socket = tokio::net::TcpStream::connect(server.addr).await.expect("connects");
    let head = format!(
        "POST /execute HTTP/1.0\r\n{TOKEN}\r\n{JSON}\r\nConnection: keep-alive\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(30), socket.read_to_string(&mut answer));
    read.await.expect("it ends").expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("keep-alive"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["stdout"].as_str().map(str::len), Some(100_000));
}

#[tokio::test]
async fn half_a_header_of_a_further_request_is_not_waited_for() {
    let short = Duration::from_secs(2);
    let server = server_on(|server| server.header_timeout(short)).await;
    let mut half = server.connect().await;
    assert_eq!(half.get("/health").await.status, 200);
    half.send(b"GET /health HTTP/1.1\r\nHo").await;
    // Long before the time for which it might lie idle.
    assert!(half.is_closed().await);
    assert_eq!(server.engine.stats().connections.timed_out, 1);
}

#[tokio::test]
async fn an_answer_is_not_lost_to_what_is_sent_after_it() {
    let server = server().await;
    for _ in 0..20 {
        let mut connection = server.connect().await;
        let close = "GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        connection.send(close.as_bytes()).await;
        // The connection is at its end, and this comes all the same.
        for _ in 0..10 {
            connection.send(close.as_bytes()).await;
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(connection.response().await.status, 200);
        assert!(connection.ends_well().await, "it was reset");
    }
}
