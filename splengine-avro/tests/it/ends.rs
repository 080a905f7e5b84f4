use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::client::{Door, HOLDING};

#[tokio::test]
async fn at_its_end_it_answers_what_it_was_asked() {
    let mut door = Door::open(|door| door).await;
    let mut client = door.connect().await;
    client.shake_hands().await;
    let deadline = b"\x02\x1espl-deadline-ms\x083000\0\x0eexecute\x08wait\0\0\0";
    client.send(1, deadline).await;
    client.execute(2, "quick").await;
    assert_eq!(client.result().await.0, 2);
    door.close();
    let (serial, answer) = client.answer().await;
    assert_eq!(serial, 1);
    assert!(answer.windows(8).any(|part| part == b"timedOut"), "its reason is in its metadata");
    assert!(client.is_closed().await);
    let addr = door.addr;
    door.ended().await;
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn whoever_does_not_finish_is_closed_after_a_while() {
    let mut door = Door::open(|door| door.max_linger(Duration::from_millis(100))).await;
    let mut client = door.connect().await;
    client.shake_hands().await;
    client.execute(1, "hold").await;
    while HOLDING.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    door.close();
    door.ended().await;
    assert!(client.is_closed().await);
}
