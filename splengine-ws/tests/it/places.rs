//! The places of WebSockets: what one caller or guest is refused keeps nobody else out.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use splengine_core::auth::{Access, Secret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{ALICE, BOB, Client, How, TestServer, server_on, server_with};

const MINUTE: Duration = Duration::from_secs(60);

/// Opens one, or returns the status that it is refused with.
async fn open(server: &TestServer, headers: &[(&'static str, &str)]) -> Result<Client, u16> {
    // To look costs no session.
    match server.open(How { headers, v1: true, ..How::default() }).await {
        Ok(client) => Ok(client),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn bob_gets_in(server: &TestServer) {
    let mut bobs = open(server, &[("authorization", BOB)]).await.expect("there is a place");
    bobs.send(json!({"type": "ping"})).await;
    bobs.frame("pong").await;
}

#[tokio::test]
async fn web_sockets_that_are_refused_keep_nobody_out() {
    let server = server_with(|policy| policy, |server| server.max_clients(8)).await;
    let alices = [("authorization", ALICE)];
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(open(&server, &alices).await.expect("her part"));
    }
    for _ in 0..20 {
        assert_eq!(open(&server, &alices).await.err(), Some(429));
    }
    bob_gets_in(&server).await;

    // Pages that show a ticket of hers are told once they are open, so many at once; the next is closed.
    // None of them closes its side.
    let own = format!("http://{}", server.addr);
    let mut refused = Vec::new();
    loop {
        let ticket = server.engine.sessions().ticket(&server.alice).expect("issued");
        let mut page = open(&server, &[("origin", own.as_str())]).await.expect("opens");
        page.send(json!({"type": "hello", "ticket": ticket.expose()})).await;
        let first = timeout(MINUTE, page.socket.next()).await.expect("an answer");
        let Some(Ok(Message::Text(text))) = first else { break };
        assert!(text.contains(r#""code":"limit""#), "{text}");
        if refused.is_empty() {
            assert_eq!(page.closed().await, 4429);
        }
        refused.push(page);
        assert!(refused.len() < 64, "there is no bound");
    }
    assert!(!refused.is_empty());
    // So do pages that show nothing.
    for _ in 0..10 {
        refused.push(open(&server, &[("origin", own.as_str())]).await.expect("opens"));
    }
    bob_gets_in(&server).await;
    drop((held, refused));
}

/// Logs a guest in, and returns the cookie of that.
async fn cookie_of_guest(server: &TestServer, ticket: &Secret) -> String {
    let own = format!("http://{}", server.addr);
    let body = json!({"ticket": ticket.expose()}).to_string();
    let answer = server.http(&format!("POST /login HTTP/1.1\r\nOrigin: {own}"), &body).await;
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    cookie.expect("a cookie").split(';').next().expect("a pair").to_owned()
}

/// Connections on which nothing is asked for any more count as their host's.
#[tokio::test]
async fn guests_of_one_host_leave_connections_to_others() {
    let server = server_on(|server| server.max_connections(8)).await;
    let mut first = server.plain("").await;
    let id = first.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
    let sessions = server.engine.sessions();
    let mut idle = Vec::new();
    for connections in [4, 2, 1, 1] {
        let shared = sessions.share(&server.alice, &id, Access::View, MINUTE).expect("shared");
        let cookie = cookie_of_guest(&server, &shared.1).await;
        for _ in 0..connections {
            let mut stream = TcpStream::connect(server.addr).await.expect("connects");
            let asked = format!(
                "GET /api/v1/whoami HTTP/1.1\r\nHost: {}\r\nCookie: {cookie}\r\n\r\n",
                server.addr
            );
            stream.write_all(asked.as_bytes()).await.expect("sent");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.expect("answered");
            assert_eq!(&answer, b"HTTP/1.1 200");
            idle.push(stream);
        }
    }
    let request = format!("GET /api/v1/whoami HTTP/1.1\r\nAuthorization: {BOB}");
    let answer = timeout(Duration::from_secs(60), server.http(&request, ""))
        .await
        .expect("there is a place");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(idle);
}

#[tokio::test]
async fn a_guest_leaves_places_to_the_host() {
    let server = server_with(|policy| policy, |server| server).await;
    let mut first = server.plain("").await;
    let id = first.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
    let sessions = server.engine.sessions();
    let (_, ticket) = sessions.share(&server.alice, &id, Access::View, MINUTE).expect("shared");
    let own = format!("http://{}", server.addr);
    let cookie = cookie_of_guest(&server, &ticket).await;
    let headers = [("origin", own.as_str()), ("cookie", cookie.as_str())];

    let query = format!("?session={id}&access=view");
    let mut attached = Vec::new();
    let how = How { query: &query, headers: &headers, ..How::default() };
    for _ in 0..8 {
        let mut client = server.open(how.clone()).await.expect("opens");
        client.frame("session").await;
        attached.push(client);
    }
    let mut late = server.open(how).await.expect("opens");
    let error = late.first_frame().await;
    assert_eq!(error["code"], "limit");
    assert!(error["error"].as_str().is_some_and(|text| text.contains("your share")), "{error}");
    assert_eq!(late.closed().await, 4429);
    let mut idle = Vec::new();
    let status = loop {
        match open(&server, &headers).await {
            Ok(client) => idle.push(client),
            Err(status) => break status,
        }
        assert!(idle.len() <= 16, "there is no bound");
    };
    assert_eq!(status, 429);

    // The host is not asked to end what is not theirs.
    let mut again = server.plain(&format!("?session={id}")).await;
    again.frame("session").await;
    drop((attached, idle));
}
