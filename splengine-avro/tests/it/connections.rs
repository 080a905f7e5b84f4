use std::time::Duration;

use splengine_avro::AvroServerBuilder;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};

use crate::client::{Door, hash};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn whoever_says_too_little_is_sent_away() {
    let door = Door::open(|door| door.handshake_timeout(SHORT).frame_timeout(SHORT)).await;
    let begun = Instant::now();
    // Eleven bytes of twelve.
    let mut slow = door.connect().await;
    slow.stream.write_all(&[0; 11]).await.expect("sent");
    assert!(slow.is_closed().await);
    // A whole prefix, and no handshake.
    let mut halting = door.connect().await;
    halting.stream.write_all(b"\0\0\0\0\0\0\0\x01\0\0\0\x22\0").await.expect("sent");
    assert!(halting.is_closed().await);
    assert!(begun.elapsed() >= 2 * SHORT);
    // A handshake, and half a message.
    let mut stuck = door.connect().await;
    stuck.shake_hands().await;
    stuck.stream.write_all(&[0, 0, 0, 1]).await.expect("sent");
    assert!(stuck.is_closed().await);
    // One that lies idle between messages is not.
    let mut idle = door.connect().await;
    idle.shake_hands().await;
    assert!(timeout(3 * SHORT, idle.is_closed()).await.is_err());
    idle.execute(1, "still").await;
    assert_eq!(idle.result().await.1.stdout, "still");
}

#[tokio::test]
async fn calls_beyond_the_bound_wait_for_their_turn() {
    let door = Door::open(|door| door.max_calls(2)).await;
    let mut client = door.connect().await;
    client.shake_hands().await;
    for serial in 1..=50 {
        client.execute(serial, &format!("word{serial}")).await;
    }
    let mut answered = Vec::new();
    for _ in 0..50 {
        let (serial, result) = client.result().await;
        assert_eq!(result.stdout, format!("word{serial}"));
        answered.push(serial);
    }
    answered.sort_unstable();
    assert_eq!(answered, (1..=50).collect::<Vec<u32>>());
}

#[tokio::test]
async fn answers_that_fill_several_pieces_are_each_given_once() {
    let door = Door::open(|door| door).await;
    let mut client = door.connect().await;
    client.shake_hands().await;
    let words: Vec<String> = (0..1000).map(|number| format!("word{number}")).collect();
    assert_eq!(client.execute_all(&words).await, words);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let door = Door::open(|door| door.max_connections(1)).await;
    let mut first = door.connect().await;
    first.shake_hands().await;
    let mut second = door.connect().await;
    let waits = async {
        second.shake_hands().await;
    };
    let mut waits = std::pin::pin!(waits);
    assert!(timeout(SHORT, &mut waits).await.is_err());
    drop(first);
    waits.await;
}

#[tokio::test]
async fn a_large_claim_is_not_believed() {
    let door = Door::open(|door| AvroServerBuilder::max_frame(door, 1000)).await;
    let mut client = door.connect().await;
    client.shake_hands().await;
    client.stream.write_all(b"\0\0\0\x01\0\0\0\x01\0\0\x03\xe9").await.expect("sent");
    assert!(client.is_closed().await);
    let mut other = door.connect().await;
    other.shake_hands().await;
    let hash = hash();
    let again = [&hash[..], &[0], &hash[..], &[0, 0, 0]].concat();
    other.send(9, &again).await;
    assert_eq!(other.answer().await, (9, vec![0; 6]), "a handshake may come again");
}
