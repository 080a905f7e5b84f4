//! Floods of small frames.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::sharing::is_shared;
use crate::support::server;

#[tokio::test]
async fn while_one_client_sends_many_small_frames_others_are_served() {
    let server = server().await;
    let mut client = server.v1().await;
    client.send(json!({"type": "new_session", "command": "cat"})).await;
    client.frame("session").await;
    // Each is masked with zeros. Pongs that nobody has asked for, and the parts of one message.
    let pongs = [0x8a, 0x80, 0, 0, 0, 0].repeat(60_000);
    let ping = br#"{"type":"ping"}"#;
    let last = [&[0x80, 0x80 | ping.len() as u8, 0, 0, 0, 0], &ping[..]].concat();
    let whole = [&[0x81], &last[1..]].concat();
    let parts = [0x00, 0x80, 0, 0, 0, 0].repeat(60_000);
    for flood in
        [[&pongs[..], &whole].concat(), [&[0x01, 0x80, 0, 0, 0, 0], &parts[..], &last].concat()]
    {
        let mut answered = async || {
            client.socket.get_mut().write_all(&flood).await.expect("sent");
            client.frame("pong").await;
        };
        // Whatever else this machine does.
        let mut tries = 0..20;
        while !is_shared(answered(), 4).await {
            assert!(tries.next().is_some(), "{:?}", &flood[..1]);
        }
    }
}
