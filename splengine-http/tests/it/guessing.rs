use std::net::SocketAddr;

use tokio::net::TcpSocket;

use crate::client::Connection;
use crate::support::{JSON, TOKEN, server};

/// A connection from another address of this host.
async fn from(address: [u8; 4], to: SocketAddr) -> Connection {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((address, 0))).expect("bound");
    Connection::over(socket.connect(to).await.expect("connects"))
}

#[tokio::test]
async fn who_guesses_tokens_is_shut_out() {
    let server = server().await;
    let body = br#"{"command":"echo"}"#;
    let mut before = server.connect().await;
    before.post("/execute", &[TOKEN, JSON], body).await;
    assert_eq!(before.response().await.status, 200);
    let mut refused = None;
    let mut guesses = 0;
    while refused.is_none() && guesses < 50 {
        let guess = format!("Authorization: Bearer guess-{guesses}-of-some-length");
        let answer = server.post("/execute", &[&guess, JSON], body).await;
        match answer.status {
            401 => guesses += 1,
            _ => refused = Some(answer),
        }
    }
    let detail = refused.expect("refused at some time").problem(429);
    assert!(detail.contains("not valid") && !detail.contains("guess"), "{detail}");
    assert!((5..20).contains(&guesses), "{guesses}");
    server.post("/execute", &[TOKEN, JSON], body).await.problem(429);
    assert_eq!(server.get("/health").await.status, 200, "which nobody needs to log in for");
    before.post("/execute", &[TOKEN, JSON], body).await;
    assert_eq!(before.response().await.status, 200, "it had shown what is right before");
    let mut other = from([127, 0, 0, 9], server.addr).await;
    other.post("/execute", &[TOKEN, JSON], body).await;
    assert_eq!(other.response().await.status, 200);
    let metrics = server.get("/metrics").await;
    let failures =
        format!("splengine_authentication_failures_total{{server=\"http\"}} {guesses}\n");
    for line in [&failures, "authentications_refused_total 2\n", "shut_out_addresses 1\n"] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
}
