//! Floods of small frames.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::support::server;

/// The time of a processor that this thread has used.
fn processor_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(used).expect("not negative")
}

/// Does `work`, and returns whether others were served meanwhile: whether less than a quarter of it went
/// by without them, of which only the time of the processor counts: others may need that, too.
async fn is_shared(work: impl Future<Output = ()>) -> bool {
    let (begun, mut last, mut longest) = (Instant::now(), processor_time(), Duration::ZERO);
    let mut others = async || {
        loop {
            tokio::task::yield_now().await;
            let now = processor_time();
            longest = longest.max(now - last);
            last = now;
        }
    };
    tokio::select! {
        () = work => {}
        () = others() => {}
    }
    longest.max(processor_time() - last) < begun.elapsed() / 4
}

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
        while !is_shared(answered()).await {
            assert!(tries.next().is_some(), "{:?}", &flood[..1]);
        }
    }
}
