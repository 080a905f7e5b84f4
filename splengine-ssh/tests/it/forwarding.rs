//! Connections that are forwarded.

use russh::ChannelOpenFailure::{self, AdministrativelyProhibited, ConnectFailed};
use russh::Error;

use crate::support::{Running, TestServer};

fn refusal<T>(opened: Result<T, Error>) -> ChannelOpenFailure {
    match opened {
        Err(Error::ChannelOpenFailure(reason)) => reason,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened"),
    }
}

/// What comes back through a forwarded connection to something that sends back what it gets.
async fn echoed(channel: russh::Channel<russh::client::Msg>) -> Vec<u8> {
    let mut running = Running(channel);
    running.types("to and fro").await;
    running.0.eof().await.expect("sent");
    let mut came = Vec::new();
    loop {
        match running.next().await {
            Some(russh::ChannelMsg::Data { data }) => came.extend_from_slice(&data),
            Some(russh::ChannelMsg::Close) | None => return came,
            Some(_) => {}
        }
    }
}

#[tokio::test]
async fn connections_are_forwarded_to_permitted_targets() {
    use tokio::io::{copy, split};
    let target = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = target.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = target.accept().await {
            let (mut from, mut to) = split(stream);
            let _ = copy(&mut from, &mut to).await;
        }
    });
    let place = tempfile::tempdir().expect("a directory");
    let socket = place.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&socket).expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (mut from, mut to) = split(stream);
            let _ = copy(&mut from, &mut to).await;
        }
    });
    let server = move |server: splengine_ssh::SshServerBuilder<splengine_ssh::Users>| {
        server.permit_open(["127.0.0.1:*"]).expect("a target")
    };
    let server = TestServer::serving(server).await;
    let socket = socket.to_str().expect("text");
    let open = async |client: &crate::support::Client, port: u16| {
        let opening =
            client.handle.channel_open_direct_tcpip("127.0.0.1", port.into(), "127.0.0.1", 1);
        opening.await
    };
    let client = server.login().await;
    assert_eq!(echoed(open(&client, port).await.expect("permitted")).await, b"to and fro");
    let elsewhere = client.handle.channel_open_direct_tcpip("localhost", port.into(), "a", 1);
    assert_eq!(refusal(elsewhere.await), AdministrativelyProhibited);
    let local = client.handle.channel_open_direct_streamlocal(socket);
    assert_eq!(refusal(local.await), AdministrativelyProhibited);
    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let nobody = free.local_addr().expect("bound").port();
    drop(free);
    assert_eq!(refusal(open(&client, nobody).await), ConnectFailed);
    for (options, is_permitted) in [
        ("restrict", false),
        ("no-port-forwarding", false),
        ("restrict,port-forwarding", true),
        ("view-only", false),
        ("permitopen=\"127.0.0.1:1\"", false),
        (&format!("permitopen=\"127.0.0.1:{port}\""), true),
    ] {
        let key = server.new_user("bob", options);
        let client = server.login_as("bob", &key).await;
        assert_eq!(open(&client, port).await.is_ok(), is_permitted, "{options}");
    }
    let key = server.new_user("bob", &format!("permitopen=\"{socket}\""));
    let client = server.login_as("bob", &key).await;
    let local = client.handle.channel_open_direct_streamlocal(socket).await.expect("permitted");
    assert_eq!(echoed(local).await, b"to and fro");
}
