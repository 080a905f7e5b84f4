use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use splengine_core::Engine;
use splengine_core::auth::{AccountList, Accounts, Scopes};
use tokio::net::TcpStream;

use crate::client::{Actor, HOLDING, TestServer, eventually};

#[tokio::test]
async fn at_its_end_it_answers_what_it_was_asked() {
    let mut server = TestServer::open(|server| server).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    let deadline = b"\x02\x1espl-deadline-ms\x083000\0\x0eexecute\x08wait\0\0\0";
    client.send(1, deadline).await;
    client.execute(2, "quick").await;
    assert_eq!(client.result().await.0, 2);
    server.close();
    let (serial, answer) = client.answer().await;
    assert_eq!(serial, 1);
    assert!(answer.windows(8).any(|part| part == b"timedOut"), "its reason is in its metadata");
    assert!(client.is_closed().await);
    let addr = server.addr;
    server.ended().await;
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn whoever_does_not_finish_is_closed_after_a_while() {
    let mut server = TestServer::on(|server| server.max_linger(Duration::from_millis(100))).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    client.execute(1, "hold").await;
    eventually("it is held", || HOLDING.load(Relaxed) > 0).await;
    server.close();
    server.ended().await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_connection_ends_with_its_callers_credentials() {
    let guest = || "guest".parse().expect("a name");
    let accounts = Accounts::new(AccountList::new().allow_anonymous(guest()));
    let given = accounts.clone();
    let engine = Engine::builder(Actor).build().expect("built");
    let server = TestServer::open_to(engine.clone(), |server| server.authenticate(given)).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    client.execute(1, "quick").await;
    assert_eq!(client.result().await.0, 1);
    client.execute(2, "wait").await;
    eventually("it runs", || engine.stats().running > 0).await;
    let list = AccountList::new().allow_anonymous(guest()).user(guest(), Scopes::NONE);
    assert_eq!(accounts.replace(list), 1);
    // The call that was let in is answered before.
    let (serial, answer) = client.answer().await;
    assert_eq!(serial, 2);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("UNAUTHENTICATED"), "{answer}");
    assert!(client.is_closed().await);
    let mut again = server.connect().await;
    again.shake_hands().await;
    again.execute(3, "quick").await;
    let answer = again.answer().await.1;
    assert!(String::from_utf8_lossy(&answer).contains("PERMISSION_DENIED"));
}
