//! What clients send to programs that do not read it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use russh::{ChannelMsg, ChannelReadHalf};
use splengine_core::engine::EngineBuilder;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::support::{PATIENCE, Running, Setup, TestServer, gone};

const MIB: usize = 1 << 20;

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i % 251) as u8).collect()
}

/// What is still printed, and the code at its end.
async fn rest(reader: &mut ChannelReadHalf) -> (Vec<u8>, Option<u32>) {
    let (mut seen, mut exit) = (Vec::new(), None);
    while let Some(message) = timeout(PATIENCE, reader.wait()).await.expect("in time") {
        match message {
            ChannelMsg::Data { data } => seen.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => exit = Some(exit_status),
            _ => {}
        }
    }
    (seen, exit)
}

/// Waits until a file named `go` is there.
const LATE: &str = "sh -c 'while [ ! -e go ]; do sleep 0.01; done; exec cat'";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_of_what_is_read_late_and_others_do_not_wait() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let all = bytes(40 * MIB);
    let Running(channel) = client.start(LATE).await;
    let (mut reader, writer) = channel.split();
    // All of it goes, though nobody reads it.
    writer.data_bytes(all.clone()).await.expect("sent");
    writer.eof().await.expect("sent");
    assert_eq!(client.run("echo hi").await.told(), ("hi\n", "", "0"));
    assert_eq!(client.run("touch go").await.told(), ("", "", "0"));
    let (seen, exit) = rest(&mut reader).await;
    assert!(seen == all, "{} of {} bytes", seen.len(), all.len());
    assert_eq!(exit, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_over_its_bound_is_closed_alone() {
    let server = TestServer::serving(|server| server.max_unread(4 << 20, 64 << 20)).await;
    let client = server.login().await;
    let mut sibling = client.start("cat").await;
    let mut running = client.start("sh -c 'echo $$; exec sleep 1000'").await;
    let pid = running.line().await;
    // It may be closed before all of it is sent.
    let mut writer = running.0.make_writer();
    let all = bytes(8 * MIB);
    let sending = tokio::spawn(async move { writer.write_all(&all).await });
    let ran = running.ended().await;
    let (stdout, stderr, exit) = ran.told();
    assert_eq!((stdout, exit), ("", "255"));
    assert!(stderr.contains("does not read"), "{stderr}");
    gone(&pid).await;
    sending.abort();
    sibling.types("still\n").await;
    assert_eq!(sibling.line().await, "still");
    assert_eq!(client.run("echo here").await.told().0, "here\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_of_one_caller_share_their_memory() {
    // Next to nothing may be on disk: what is kept is in memory.
    let server = TestServer::serving(|server| server.max_unread(1, 1)).await;
    let (bobs, piece) = (server.new_user("bob", ""), bytes(MIB));
    let mut channels = Vec::new();
    let clients = [server.login().await, server.login().await];
    for client in &clients {
        for _ in 0..16 {
            let channel = client.channel().await;
            channel.data_bytes(piece.clone()).await.expect("sent");
            channels.push(channel);
        }
    }
    // So that all of it has arrived.
    for client in &clients {
        assert_eq!(client.run("echo hi").await.told().0, "hi\n");
    }
    let mut beyond = Running(clients[0].channel().await);
    beyond.types(piece.clone()).await;
    assert!(is_closed(&mut beyond).await, "more than 32 MiB are in memory");
    let others = server.login_as("bob", &bobs).await;
    let mut other = Running(others.channel().await);
    other.types(piece).await;
    other.0.exec(true, "wc -c").await.expect("sent");
    other.0.eof().await.expect("sent");
    assert!(other.is_granted().await);
    assert_eq!(other.ended().await.told().0.trim(), MIB.to_string());
}

async fn is_closed(running: &mut Running) -> bool {
    loop {
        match timeout(PATIENCE, running.0.wait()).await {
            Ok(None | Some(ChannelMsg::Close)) => return true,
            Ok(Some(_)) => {}
            Err(_) => return false,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_gives_back_the_room_it_took() {
    // Room for one at a time.
    let server = TestServer::serving(|server| server.max_unread(8 << 20, 8 << 20)).await;
    for _ in 0..3 {
        let client = server.login().await;
        let mut running = client.start("sh -c 'echo $$; exec sleep 1000'").await;
        let pid = running.line().await;
        running.types(bytes(6 * MIB)).await;
        // So that all of it has arrived.
        assert_eq!(client.run("echo hi").await.told().0, "hi\n");
        drop((running, client));
        gone(&pid).await;
    }
    let client = server.login().await;
    let running = client.start(LATE).await;
    let all = bytes(6 * MIB);
    running.types(all.clone()).await;
    running.0.eof().await.expect("sent");
    std::fs::write(server.root().join("go"), "").expect("written");
    let ran = running.ended().await;
    assert!(ran.stdout == all && ran.exit.as_deref() == Some("0"), "{}", ran.stdout.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_bytes_flow_both_ways() {
    let server =
        TestServer::serving(|server| server.rekey(1 << 20, Duration::from_secs(3600))).await;
    let client = server.login().await;
    let Running(channel) = client.start("cat").await;
    let (mut reader, writer) = channel.split();
    let all = bytes(16 * MIB);
    let sent = all.clone();
    let sending = tokio::spawn(async move {
        writer.data_bytes(sent).await.expect("sent");
        writer.eof().await.expect("sent");
        writer
    });
    let (seen, _) = rest(&mut reader).await;
    assert!(seen == all, "{} of {} bytes", seen.len(), all.len());
    drop(sending.await);
    let exchanges = client.exchanges.load(Relaxed);
    assert!(exchanges > 10, "keys were agreed on {exchanges} times");
}

fn unread_directory() -> PathBuf {
    std::env::temp_dir().join(format!("sshtests-unread-{}", std::process::id()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_read_lies_in_its_own_directory_and_leaves_room_on_the_disk() {
    let server = TestServer::serving(|server| server.unread_directory(unread_directory())).await;
    let client = server.login().await;
    let running = client.start("sleep 1000").await;
    running.types(bytes(3 * MIB)).await;
    // So that all of it has arrived.
    assert_eq!(client.run("echo hi").await.told().0, "hi\n");
    let made = std::fs::metadata(unread_directory()).expect("it was made");
    assert_eq!(made.permissions().mode() & 0o777, 0o700);
    drop((running, client));
    // What lies in it has no name.
    std::fs::remove_dir(unread_directory()).expect("removed");

    let engine = |engine: EngineBuilder| engine.disk_floor(u64::MAX);
    let full = TestServer::with(Setup { engine, ..Setup::default() }).await;
    let client = full.login().await;
    let running = client.start("sh -c 'echo $$; exec sleep 1000'").await;
    let mut writer = running.0.make_writer();
    let sending = tokio::spawn(async move { writer.write_all(&bytes(3 * MIB)).await });
    let ran = running.ended().await;
    assert_eq!(ran.told().2, "255");
    sending.abort();
}
