//! How connections end.

use std::time::Duration;

use russh::client::Config;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{Client, PATIENCE, Running, Setup, TestServer, gone, rest};

#[tokio::test]
async fn a_client_that_answers_may_be_quiet() {
    let server =
        TestServer::serving(|server| server.keepalive(Duration::from_millis(400), 3)).await;
    let client = server.login().await;
    let mut running = client.start("cat").await;
    // Three times as long as one that does not answer has.
    assert!(timeout(Duration::from_secs(5), running.0.wait()).await.is_err());
    running.types("still\n").await;
    assert_eq!(running.line().await, "still");
}

/// A client behind a middle that can fall silent.
struct Silenced {
    client: Client,
    is_silent: watch::Sender<bool>,
    /// Ends when the server has closed the connection.
    closed: JoinHandle<()>,
}

/// Once it is silent nothing of the client's reaches the server, and with `deaf` nothing is taken
/// from the server either, until that is told to `ears`.
async fn behind_a_middle(server: &TestServer, deaf: bool) -> (Silenced, oneshot::Sender<()>) {
    let mut outer = server.socket().await;
    let (near, mut inner) = tokio::io::duplex(1 << 16);
    let (is_silent, mut silenced) = watch::channel(false);
    let (ears, heard) = oneshot::channel::<()>();
    let closed = tokio::spawn(async move {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut outer, &mut inner) => {}
            _ = silenced.wait_for(|is| *is) => {}
        }
        if deaf {
            let _ = heard.await;
        }
        rest(&mut outer).await;
    });
    // A window that what lies between is full before it is.
    let config = Config { window_size: 1 << 28, ..Config::default() };
    let mut client = Client::begin(config, near).await.expect("a handshake");
    assert!(client.shows("alice", &server.key).await);
    (Silenced { client, is_silent, closed }, ears)
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_closed() {
    let server =
        TestServer::serving(|server| server.keepalive(Duration::from_millis(400), 3)).await;
    let (silenced, _ears) = behind_a_middle(&server, false).await;
    let mut running = silenced.client.start("sh -c 'echo $$; exec sleep 1000'").await;
    let pid = running.line().await;
    silenced.is_silent.send_replace(true);
    gone(&pid).await;
    timeout(PATIENCE, silenced.closed).await.expect("in time").expect("closed");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let server =
        TestServer::serving(|server| server.keepalive(Duration::from_millis(400), 3)).await;
    let (silenced, ears) = behind_a_middle(&server, true).await;
    let mut running = silenced.client.start("sh -c 'echo $$; exec yes'").await;
    let pid = running.line().await;
    silenced.is_silent.send_replace(true);
    // The server writes, and nobody takes it.
    gone(&pid).await;
    ears.send(()).expect("it waits");
    timeout(PATIENCE, silenced.closed).await.expect("in time").expect("closed");
}

async fn shell(client: &Client) -> Running {
    let mut running = Running(client.channel().await);
    running.0.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
    assert!(running.is_granted().await);
    running.0.request_shell(true).await.expect("sent");
    assert!(running.is_granted().await);
    running
}

const LINGER: Duration = Duration::from_millis(500);

#[tokio::test]
async fn what_runs_ends_before_its_connection() {
    let mut server = TestServer::with(Setup {
        grace: PATIENCE,
        // What was told is heard before it is over.
        server: |server| server.max_linger(PATIENCE),
        ..Setup::default()
    })
    .await;
    let mut client = server.login().await;
    let waits = "echo ready; while [ ! -e go ]; do sleep 0.01; done; echo done; exit 5";
    let mut running = client.start(format!("sh -c '{waits}'")).await;
    assert_eq!(running.line().await, "ready");
    let mut busy = shell(&client).await;
    let waits = "while [ ! -e go ]; do sleep 0.01; done";
    busy.types(format!("sh -c 'echo a\"\"b; {waits}'; exit\n")).await;
    busy.shows("ab\r\n").await;
    let mut waiting = shell(&client).await;
    waiting.types("echo a''b\n").await;
    waiting.shows("ab\r\n").await;
    server.close();
    // A shell that waits for somebody to type ends at once.
    waiting.shows("the server is shutting down").await;
    assert_eq!(waiting.ended().await.exit.as_deref(), Some("255"));
    // What is busy is told, and has its time.
    busy.shows("the server is shutting down").await;
    std::fs::write(server.root().join("go"), "").expect("written");
    assert_eq!(running.ended().await.told(), ("done\n", "", "5"));
    assert!(busy.ended().await.exit.is_some());
    assert_eq!(client.over().await, "the server is shutting down");
    let addr = server.addr;
    server.ended().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn the_server_does_not_wait_for_who_does_nothing() {
    let mut server = TestServer::serving(|server| server.max_linger(LINGER)).await;
    let _silent = server.socket().await;
    let _halfway = server.connect().await;
    let mut idle = server.login().await;
    let (silenced, _ears) = behind_a_middle(&server, true).await;
    let mut flooded = silenced.client.start("sh -c 'echo $$; exec yes'").await;
    let pid = flooded.line().await;
    silenced.is_silent.send_replace(true);
    server.close();
    idle.over().await;
    // Long before the time after which one who reads nothing is cut.
    server.ended().await;
    gone(&pid).await;
}
