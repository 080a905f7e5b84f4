//! The memory of messages is shared between callers.

use std::time::Duration;

use serde_json::json;
use splengine_core::auth::Access;
use splengine_core::session::{Attach, Update};
use splengine_ws::WsServerBuilder;
use tokio::time::timeout;

use crate::support::{ALICE, BOB, Came, Client, How, TestServer, script, server_with};

const KIB: usize = 1 << 10;

async fn server(buffered: usize) -> TestServer {
    server_with(|policy| policy, |server| WsServerBuilder::max_buffered(server, buffered)).await
}

async fn open(server: &TestServer, token: &str) -> Client {
    let headers = &[("authorization", token)];
    let mut client = server.open(How { headers, ..How::default() }).await.expect("opens");
    client.frame("session").await;
    client
}

/// Expects that there was no memory for the last message, and how that is told.
async fn expect_refusal(client: &mut Client, word: &str, code: u16) {
    // Pings come all the while.
    let told = timeout(Duration::from_secs(60), async {
        let error = client.frame("error").await;
        assert_eq!(error["code"], word, "{error}");
        assert_eq!(client.closed().await, code);
    });
    told.await.expect("it is refused in time");
}

#[tokio::test]
async fn what_one_caller_holds_leaves_memory_to_others() {
    let server = server(1024 * KIB).await;
    // A caller has half of it, and one message beyond.
    let mut held = Vec::new();
    for length in [400, 200] {
        let mut client = open(&server, ALICE).await;
        client.send_unfinished(length * KIB).await;
        held.push(client);
    }
    let mut late = open(&server, ALICE).await;
    late.send_large(200 * KIB).await;
    expect_refusal(&mut late, "limit", 4429).await;
    let mut other = open(&server, BOB).await;
    other.send_large(200 * KIB).await;
    other.frame("pong").await;
    drop(held);
    let mut again = open(&server, ALICE).await;
    again.send_large(200 * KIB).await;
    again.frame("pong").await;
}

#[tokio::test]
async fn input_that_waits_to_be_typed_takes_memory_of_its_caller() {
    let server = server(8192 * KIB).await;
    let mut client = open(&server, ALICE).await;
    // A program that reads nothing.
    client.send(script("stty raw -echo; echo rea''dy; exec sleep 1000")).await;
    client.until("ready").await;
    // More than the session itself keeps of it.
    client.binary(vec![b'x'; 3500 * KIB]).await;
    // Whoever reads the next message has done with the one before, but for its typing.
    client.send(json!({"type": "ping"})).await;
    client.frame("pong").await;
    let mut second = open(&server, ALICE).await;
    second.send_unfinished(1000 * KIB).await;
    let mut late = open(&server, ALICE).await;
    late.send_large(1000 * KIB).await;
    expect_refusal(&mut late, "limit", 4429).await;
}

#[tokio::test]
async fn guests_take_memory_of_whoever_invited_them() {
    let server = server(1024 * KIB).await;
    let own = format!("http://{}", server.addr);
    let mut client = server.plain("").await;
    let id = client.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
    let mut held = Vec::new();
    for length in [400, 200] {
        let (_, ticket) = server
            .engine
            .sessions()
            .share(&server.alice, &id, Access::View, Duration::from_secs(60))
            .expect("shared");
        let headers = [("origin", own.as_str())];
        let mut guest =
            server.open(How { headers: &headers, ..How::default() }).await.expect("opens");
        guest.send(json!({"type": "hello", "ticket": ticket.expose()})).await;
        guest.frame("session").await;
        guest.send_unfinished(length * KIB).await;
        held.push(guest);
    }
    client.send_large(200 * KIB).await;
    expect_refusal(&mut client, "limit", 4429).await;
    let mut other = open(&server, BOB).await;
    other.send_large(200 * KIB).await;
    other.frame("pong").await;
    drop(held);
}

/// What is drawn for clients that do not read yet is counted for the owner of the session.
#[tokio::test]
async fn screens_that_are_told_take_memory_of_their_owner() {
    const PRINT: &str = r#"awk 'BEGIN { for (i = 0; i < 300; i++) { for (j = 0; j < 200; j++)
        printf "\033[38;2;%d;%d;%dmx", i % 256, j, i * j % 256; print "" }
        print "rea" "dy" }'; read x"#;
    let server = server_with(|policy| policy.max_screen_bytes(4096 * KIB), |server| server).await;
    let mut sessions = Vec::new();
    for token in [ALICE, ALICE, BOB] {
        let headers = &[("authorization", token)];
        let query = "?cols=200";
        let how = How { query, headers, ..How::default() };
        let mut client = server.open(how).await.expect("opens");
        client.frame("session").await;
        client.send(script(PRINT)).await;
        let id = client.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
        client.until("ready").await;
        sessions.push((token, id, client));
    }
    // One that is drawn is more than her part.
    let attach = Attach::new(Access::View);
    let mut held =
        server.engine.sessions().attach(&server.alice, &sessions[0].1, attach).expect("hers");
    let held = held.next().await.expect("an update");
    assert!(matches!(held, Update::Snapshot { .. }), "{held:?}");
    for (token, id, _client) in &sessions[1..] {
        let headers = &[("authorization", *token)];
        let query = &format!("?session={id}&access=view");
        for v1 in [false, true] {
            let query = if v1 { "" } else { query };
            let mut viewer = server.open(How { query, headers, v1 }).await.expect("opens");
            if v1 {
                let attach = json!({"type": "attach", "sessionId": id, "access": "view"});
                viewer.send(attach).await;
            }
            if *token == ALICE {
                expect_refusal(&mut viewer, "limit", 4429).await;
                continue;
            }
            let mut screen = String::new();
            while !screen.contains("ready") {
                match viewer.next().await {
                    Came::Frame(frame) if frame["type"] == "output" => {
                        let data = frame["data"].as_str().expect("text");
                        assert!(data.len() <= 64 * KIB, "a plain client gets it in pieces");
                        screen.push_str(data);
                    }
                    Came::Snapshot { data, .. } => {
                        screen = String::from_utf8(data).expect("UTF-8");
                        assert!(screen.contains("ready"), "it is one message");
                    }
                    Came::Frame(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            assert!(screen.len() > 600 * KIB, "a large screen");
        }
    }
    drop(held);
}
