//! How much one client may take, and how long.

use std::time::Duration;

use russh::ChannelOpenFailure::{self, AdministrativelyProhibited, ResourceShortage};
use russh::Error;
use splengine_core::net::ConnectionLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::support::{PATIENCE, Running, TestServer, rest};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn one_address_has_few_places_until_it_logs_in() {
    let server = TestServer::serving(|server| {
        server.connection_limits(ConnectionLimits::new().max_unauthenticated_per_address(2))
    })
    .await;
    // Who has logged in takes none.
    let clients = [server.login().await, server.login().await, server.login().await];
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = server.socket_from([127, 0, 0, 2]).await;
        stream.read_u8().await.expect("it greets");
        held.push(stream);
    }
    // A client from elsewhere gets in at once, and the oldest of them make room for the others.
    assert_eq!(server.login().await.run("echo there").await.told().0, "there\n");
    for stream in &mut held[..2] {
        rest(stream).await;
    }
    for stream in &mut held[2..] {
        assert!(timeout(SHORT, rest(stream)).await.is_err(), "there are places for two");
    }
    assert_eq!(server.engine.stats().connections.evicted, 2);
    for client in clients {
        assert_eq!(client.run("echo here").await.told().0, "here\n");
    }
}

#[tokio::test]
async fn a_connection_on_which_something_runs_is_not_idle() {
    let server = TestServer::serving(|server| {
        server.connection_limits(ConnectionLimits::new().max_connections(4))
    })
    .await;
    let _kept = [server.login().await, server.login().await];
    // Two beyond what one user keeps.
    let busy = server.login().await;
    let running = busy.start("cat").await;
    let mut idle = server.login().await;
    assert_eq!(idle.run("echo here").await.told().0, "here\n");
    crate::support::until("all are authenticated", || {
        server.engine.stats().connections.unauthenticated == 0
    })
    .await;
    assert_eq!(server.login().await.run("echo there").await.told().0, "there\n");
    idle.over().await;
    running.types("still\n").await;
    running.0.eof().await.expect("sent");
    assert_eq!(running.ended().await.told(), ("still\n", "", "0"));
}

#[tokio::test]
async fn whoever_does_not_log_in_is_closed_in_time() {
    const GRACE: Duration = Duration::from_secs(8);
    let server = TestServer::serving(|server| server.login_grace(GRACE)).await;
    let begun = Instant::now();
    let mut silent = server.socket().await;
    let mut halfway = server.socket().await;
    halfway.write_all(b"SSH-2.0-test\r\n\0\0\x01").await.expect("sent");
    let mut idle = server.connect().await;
    let mut wrong = server.connect().await;
    assert!(!wrong.shows("alice", &crate::support::key()).await);
    let client = server.login().await;
    rest(&mut silent).await;
    rest(&mut halfway).await;
    idle.over().await;
    wrong.over().await;
    assert!(begun.elapsed() >= GRACE, "{:?}", begun.elapsed());
    assert_eq!(client.run("echo here").await.told().0, "here\n", "who has logged in stays");
}

#[tokio::test]
async fn what_is_no_ssh_closes_its_own_connection() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let mut huge = b"SSH-2.0-test\r\n".to_vec();
    huge.extend_from_slice(&[0xff; 4096]);
    for garbage in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 70_000], b"SSH-1.5-old\r\n", &huge]
    {
        let mut stream = server.socket().await;
        drop(stream.write_all(garbage).await);
        drop(stream.shutdown().await);
        rest(&mut stream).await;
    }
    assert_eq!(client.run("echo here").await.told().0, "here\n");
    assert_eq!(server.login().await.run("echo there").await.told().0, "there\n");
}

fn refusal<T>(opened: Result<T, Error>) -> ChannelOpenFailure {
    match opened {
        Err(Error::ChannelOpenFailure(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_counted_while_they_last() {
    let server = TestServer::serving(|server| server.max_channels(2)).await;
    let client = server.login().await;
    let unused = client.channel().await;
    let running = client.start("cat").await;
    assert_eq!(refusal(client.try_channel().await), ResourceShortage);
    running.0.eof().await.expect("sent");
    assert_eq!(running.ended().await.told(), ("", "", "0"));
    // One place is left, and the next command has it at once.
    for number in 0..200 {
        let word = format!("{number}\n");
        assert_eq!(client.run(format!("echo {number}")).await.told(), (&*word, "", "0"));
    }
    let _running = client.start("cat").await;
    assert_eq!(refusal(client.try_channel().await), ResourceShortage);
    // As one that was closed before it was used for anything.
    unused.close().await.expect("sent");
    let another = client.channel().await;
    another.close().await.expect("sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_channels_on_all_connections_are_counted() {
    let server = TestServer::serving(|server| server.max_channels_of_callers(3, 8)).await;
    let bobs = server.new_user("bob", "");
    let (first, second) = (server.login().await, server.login().await);
    let unused = [first.channel().await, second.channel().await];
    let running = second.start("cat").await;
    for client in [&first, &second] {
        assert_eq!(refusal(client.try_channel().await), ResourceShortage);
    }
    assert_eq!(server.login_as("bob", &bobs).await.run("echo bob").await.told().0, "bob\n");
    // Of one that has ended the place is free, though its client closes it no more.
    running.0.eof().await.expect("sent");
    assert_eq!(running.ended().await.told(), ("", "", "0"));
    assert_eq!(first.run("echo there").await.told().0, "there\n");
    let another = first.channel().await;
    assert_eq!(refusal(second.try_channel().await), ResourceShortage);
    // A connection that is gone has none.
    drop((first, another, unused));
    let opened = async {
        while second.try_channel().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, opened).await.expect("a place in time");
}

#[tokio::test]
async fn nothing_is_forwarded() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let handle = &client.handle;
    let direct = handle.channel_open_direct_tcpip("127.0.0.1", 80, "127.0.0.1", 1);
    assert_eq!(refusal(direct.await), AdministrativelyProhibited);
    let local = handle.channel_open_direct_streamlocal("/tmp/socket");
    assert_eq!(refusal(local.await), AdministrativelyProhibited);
    assert_eq!(refusal(handle.channel_open_x11("127.0.0.1", 1).await), AdministrativelyProhibited);
    assert!(matches!(handle.tcpip_forward("127.0.0.1", 0).await, Err(Error::RequestDenied)));
    let forward = handle.streamlocal_forward("/tmp/sshtests-socket").await;
    assert!(matches!(forward, Err(Error::RequestDenied)));
    let mut running = Running(client.channel().await);
    running.0.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await.expect("sent");
    assert!(!running.is_granted().await);
    running.0.agent_forward(true).await.expect("sent");
    assert!(!running.is_granted().await);
    for name in ["netconf", "", "SFTP", "../sftp"] {
        running.0.request_subsystem(true, name).await.expect("sent");
        assert!(!running.is_granted().await, "{name}");
    }
    // None of it has spoilt the channel.
    running.0.exec(true, "echo here").await.expect("sent");
    assert!(running.is_granted().await);
    assert_eq!(running.ended().await.told(), ("here\n", "", "0"));
}
