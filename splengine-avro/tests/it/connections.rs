use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use splengine_avro::AvroServerBuilder;
use splengine_core::auth::StaticTokens;
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Stdin};
use splengine_core::net::ConnectionLimits;
use splengine_core::{Engine, Execute, ExecuteError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::client::{Actor, TestServer, eventually, hash};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn whoever_says_too_little_is_sent_away() {
    // Enough for a handshake, whatever else this machine does.
    let limit = Duration::from_secs(3);
    let server =
        TestServer::open(|server| server.handshake_timeout(limit).frame_timeout(limit)).await;
    let begun = Instant::now();
    // Eleven bytes of twelve.
    let mut slow = server.connect().await;
    slow.stream.write_all(&[0; 11]).await.expect("sent");
    // A whole prefix, and no handshake.
    let mut halting = server.connect().await;
    halting.stream.write_all(b"\0\0\0\0\0\0\0\x01\0\0\0\x22\0").await.expect("sent");
    // A handshake, and half a message.
    let mut stuck = server.connect().await;
    stuck.shake_hands().await;
    stuck.stream.write_all(&[0, 0, 0, 1]).await.expect("sent");
    for client in [&mut slow, &mut halting, &mut stuck] {
        assert!(client.is_closed().await);
        assert!(begun.elapsed() >= limit);
    }
    // One that lies idle between messages is not.
    let mut idle = server.connect().await;
    idle.shake_hands().await;
    assert!(timeout(limit + 3 * SHORT, idle.is_closed()).await.is_err());
    idle.execute(1, "still").await;
    assert_eq!(idle.result().await.1.stdout, "still");
}

#[tokio::test]
async fn calls_beyond_the_bound_wait_for_their_turn() {
    let server = TestServer::on(|server| server.max_calls(2)).await;
    let mut client = server.connect().await;
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
    let server = TestServer::open(|server| server).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    let words: Vec<String> = (0..1000).map(|number| format!("word{number}")).collect();
    assert_eq!(client.execute_all(&words).await, words);
}

#[tokio::test]
async fn a_call_that_runs_at_the_end_is_answered_whatever_is_sent_meanwhile() {
    let engine = Engine::builder(Actor).build().expect("built");
    let linger = Duration::from_secs(60);
    let mut server = TestServer::with(
        engine.clone(),
        |server| server.frame_timeout(SHORT),
        |server| server.max_linger(linger),
    )
    .await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    client.execute(1, "wait").await;
    client.execute(2, "next").await;
    assert_eq!(client.result().await.0, 2);
    server.close();
    client.execute(3, "too late").await;
    assert!(timeout(3 * SHORT, client.is_closed()).await.is_err());
    engine.kill();
    let (serial, answer) = client.answer().await;
    assert!(serial == 1 && answer.windows(9).any(|part| part == b"cancelled"), "{answer:?}");
    assert!(client.is_closed().await);
    server.ended().await;
}

/// Its executor does not let a later call of the same piece go on before the client has read the
/// answers of those before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_go_out_while_later_calls_are_worked_at() {
    let (read, is_read) = std::sync::mpsc::channel();
    let engine = Engine::builder(Held(Mutex::new(is_read))).build().expect("built");
    let server = TestServer::open_to(engine, |server| server).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    let words: Vec<String> =
        (0..300).map(|_| "word".to_owned()).chain(["held".to_owned()]).collect();
    client.send_all(&words).await;
    assert_eq!(client.result().await.0, 0);
    read.send(()).expect("it is waited for");
    for serial in 1..=300 {
        assert_eq!(client.result().await.0, serial);
    }
}

struct Held(Mutex<Receiver<()>>);

impl Execute for Held {
    async fn execute(
        &self,
        command: Command,
        _: Stdin,
        output: Output,
        _: Cancel,
    ) -> Result<Exit, ExecuteError> {
        output.started();
        if command.argv[0] == "held" {
            let is_read = self.0.lock().expect("no panic").recv_timeout(Duration::from_secs(30));
            is_read.map_err(ExecuteError::internal)?;
        }
        Ok(Exit::new(ExitStatus::Code(0)))
    }
}

#[tokio::test]
async fn who_says_no_more_is_answered_all_the_same() {
    let engine = Engine::builder(Actor).build().expect("built");
    let server = TestServer::open_to(engine.clone(), |server| server).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    client.send_all(&["one", "wait", "three"].map(str::to_owned)).await;
    client.stream.shutdown().await.expect("sent");
    for serial in [0, 2] {
        assert_eq!(client.result().await.0, serial);
    }
    // What takes longer is not waited for: that they are gone looks the same.
    assert!(client.is_closed().await);
    eventually("its run is over", || engine.stats().running == 0).await;
}

#[tokio::test]
async fn who_leaves_behind_much_that_was_not_read_is_noticed() {
    let engine = Engine::builder(Actor).build().expect("built");
    let server =
        TestServer::with(engine.clone(), |server| server, |server| server.max_calls(1)).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    client.execute(0, "wait").await;
    client.send_all(&vec!["waits for its turn".to_owned(); 5000]).await;
    drop(client);
    let gone = async {
        while engine.stats().ended.iter().map(|(_, count)| count).sum::<u64>() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), gone).await.expect("in time");
}

/// Reading what others wrote takes more than its bytes.
#[tokio::test]
async fn nothing_is_read_of_a_call_before_it_is_known_whose_it_is() {
    let nobody = || StaticTokens::new();
    let server = TestServer::open(|server| server.authenticate(nobody())).await;
    let mut client = server.connect().await;
    let text = r#"{"protocol": "Other", "namespace": "com.splectrum.rpc", "types": [
        {"type": "record", "name": "Command", "fields": [
            {"name": "command", "type": "string"}, {"name": "more", "type": "string"}]}],
        "messages": {"execute": {"request": [{"name": "command", "type": "Command"}],
            "response": "null"}}}"#;
    client.shake_hands_as(text).await;
    client.send(1, b"\0\x0eexecute\xff").await;
    let (_, answer) = client.answer().await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("UNAUTHENTICATED"), "{text}");
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let server = TestServer::on(|server| server.max_connections(1)).await;
    let mut first = server.connect().await;
    first.shake_hands().await;
    first.execute(1, "known").await;
    first.result().await;
    let mut second = server.connect().await;
    let waits = async {
        second.shake_hands().await;
    };
    let mut waits = std::pin::pin!(waits);
    assert!(timeout(SHORT, &mut waits).await.is_err());
    drop(first);
    waits.await;
}

#[tokio::test]
async fn who_lies_idle_and_is_not_known_makes_room_for_others() {
    let server = TestServer::on(|server| server.max_connections(6)).await;
    let mut known = server.connect().await;
    known.shake_hands().await;
    known.execute(1, "first").await;
    known.result().await;
    // Idle ones, of which some did not even say what they speak.
    let mut idle = Vec::new();
    for number in 0..12 {
        let mut client = server.connect().await;
        if number % 3 > 0 {
            client.shake_hands().await;
        }
        idle.push(client);
        let mut late = server.connect().await;
        late.shake_hands().await;
        late.execute(number, "late").await;
        assert_eq!(late.result().await.0, number);
    }
    assert!(idle[0].is_closed().await);
    known.execute(2, "still here").await;
    assert_eq!(known.result().await.1.stdout, "still");
}

#[tokio::test]
async fn large_messages_wait_for_each_others_room() {
    let largest = 300 << 10;
    let server = TestServer::open(|server| server.max_frame(largest).max_buffered(0)).await;
    let word = "x".repeat(200 << 10);
    // Beyond what each has anyway there is room for one at a time.
    let mut first = server.connect().await;
    first.shake_hands().await;
    let (begin, rest) = frame_of(1, &word);
    first.stream.write_all(&begin).await.expect("sent");
    let mut second = server.connect().await;
    second.shake_hands().await;
    let mut tries = 0..100;
    let waiting = loop {
        let serial = tries.next().expect("it waits once the first has been read as far as it came");
        second.execute(serial, &word).await;
        // An answer that has begun comes whole, however long that takes.
        if timeout(SHORT, second.stream.peek(&mut [0])).await.is_err() {
            break serial;
        }
        assert_eq!(second.result().await.0, serial);
    };
    let mut small = server.connect().await;
    small.shake_hands().await;
    small.execute(7, "small").await;
    assert_eq!(small.result().await.0, 7, "what is small needs none of it");
    first.stream.write_all(&rest).await.expect("sent");
    for (client, serial) in [(&mut first, 1), (&mut second, waiting)] {
        let (answered, result) = client.result().await;
        assert_eq!((answered, result.stdout.len()), (serial, word.len()));
    }
}

/// But for its last byte, and that.
fn frame_of(serial: u32, word: &str) -> (Vec<u8>, Vec<u8>) {
    let mut frame = crate::client::frame(serial, &crate::client::execute(word));
    let rest = frame.split_off(frame.len() - 1);
    (frame, rest)
}

#[tokio::test]
async fn a_large_claim_is_not_believed() {
    let server = TestServer::open(|server| AvroServerBuilder::max_frame(server, 1000)).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    client.stream.write_all(b"\0\0\0\x01\0\0\0\x01\0\0\x03\xe9").await.expect("sent");
    assert!(client.is_closed().await);
    let mut other = server.connect().await;
    other.shake_hands().await;
    let hash = hash();
    let again = [&hash[..], &[0], &hash[..], &[0, 0, 0]].concat();
    other.send(9, &again).await;
    assert_eq!(other.answer().await, (9, vec![0; 6]), "a handshake may come again");
}

/// Over HTTP/2, by hand: it asks for one thing, and answers nothing.
#[tokio::test]
async fn an_http_2_connection_without_requests_is_closed() {
    let limits = ConnectionLimits::new().write_timeout(SHORT).unauthenticated_write_timeout(SHORT);
    let server = TestServer::with(
        Engine::builder(Actor).build().expect("built"),
        |server| server.frame_timeout(Duration::from_secs(1)),
        |server| server.connection_limits(limits),
    )
    .await;
    let mut client = server.connect().await;
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let headers = b"\x82\x86\x04\x05/none\x41\x04test";
    request.extend([0, 0, headers.len() as u8, 1, 5, 0, 0, 0, 1]);
    request.extend(headers);
    client.stream.write_all(&request).await.expect("sent");
    let mut all = Vec::new();
    let (mut reading, mut writing) = client.stream.split();
    // They are no requests, so that they keep no connection.
    let pings = async {
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        while writing.write_all(&ping).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    // Long before pings that nobody answers end it.
    let closed = timeout(Duration::from_secs(30), async {
        tokio::select! {
            read = reading.read_to_end(&mut all) => drop(read),
            () = pings => {}
        }
    });
    closed.await.expect("closed in time");
    assert!(all.windows(15).any(|part| part == b"there is /avro "), "it was answered");
}

/// It reads everything, but gives its answers no room, or one byte: then the rest of a short one lies
/// in the buffers of HTTP/2.
#[tokio::test]
async fn an_http_2_connection_that_takes_no_answers_is_cut() {
    let limits = ConnectionLimits::new().unauthenticated_write_timeout(Duration::from_secs(2));
    let server = TestServer::on(|server| server.connection_limits(limits)).await;
    for (window, path) in [(0, "/avro/protocol"), (1, "/none")] {
        let mut client = server.connect().await;
        let mut requests = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0".to_vec();
        requests.extend([0, 4, 0, 0, 0, window]);
        let path = [&[4, path.len() as u8], path.as_bytes()].concat();
        let headers = [b"\x82\x86", &path[..], b"\x41\x04test"].concat();
        for number in 0..20 {
            requests.extend([0, 0, headers.len() as u8, 1, 5, 0, 0, 0, 2 * number + 1]);
            requests.extend(&headers);
        }
        client.stream.write_all(&requests).await.expect("sent");
        let mut all = Vec::new();
        let closed = timeout(Duration::from_secs(25), client.stream.read_to_end(&mut all)).await;
        drop(closed.expect("closed in time"));
        let (mut heads, mut rest) = (0, &all[..]);
        while let [a, b, c, kind, _, _, _, _, _, more @ ..] = rest {
            let length = usize::from_be_bytes([0, 0, 0, 0, 0, *a, *b, *c]);
            assert!(*kind != 0 || length <= window.into(), "more than there is room for");
            heads += usize::from(*kind == 1);
            rest = more.get(length..).unwrap_or_default();
        }
        assert_eq!(heads, 8, "as many as may wait for the client, with a window of {window}");
    }
}
