//! The memory of messages is shared between callers.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use splengine_avro::AvroServer;
use splengine_core::auth::{Secret, StaticTokens};
use splengine_core::{Caller, Engine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tower::Service as _;

use crate::client::{
    Actor, Client, TestServer, eventually, execute, execute_with, execute_with_junk, message,
    protocol_with_junk, with_token, within,
};

const KIB: usize = 1 << 10;
const ALICE: &str = "alices-very-long-token";
const BOB: &str = "bobs-very-long-token-too";
const CAROL: &str = "carols-very-long-token";

async fn server(engine: &Engine, max_frame: usize, buffered: usize) -> TestServer {
    patient_server(engine, max_frame, buffered, Duration::from_secs(4)).await
}

async fn patient_server(
    engine: &Engine,
    max_frame: usize,
    buffered: usize,
    frame_timeout: Duration,
) -> TestServer {
    let mut tokens = StaticTokens::new();
    for (name, token) in [("alice", ALICE), ("bob", BOB), ("carol", CAROL)] {
        let caller = Caller::new(name).expect("a name").with_all_scopes();
        tokens.insert(&Secret::new(token), caller).expect("long enough");
    }
    TestServer::open_to(engine.clone(), |server| {
        server
            .authenticate(tokens)
            .max_frame(max_frame)
            .max_buffered(buffered)
            .frame_timeout(frame_timeout)
    })
    .await
}

/// A call of so many bytes: of `word` when it is done at once, of `wait` when it lasts.
fn call(word: &str, length: usize, token: &str) -> Vec<u8> {
    with_token(&execute_with(word, vec!["x".repeat(length)]), token)
}

/// A client whose caller is known.
async fn known(server: &TestServer, token: &str) -> Client<TcpStream> {
    let mut client = server.connect().await;
    client.shake_hands().await;
    client.send(0, &call("word", 0, token)).await;
    client.result().await;
    client
}

async fn until_running(engine: &Engine, count: u64) {
    eventually("they run", || engine.stats().running == count).await;
}

/// Clients of one caller, with as much in two calls as that caller may have.
async fn two_that_wait(server: &TestServer, engine: &Engine) -> Vec<Client<TcpStream>> {
    let mut held = Vec::new();
    for number in 1..=2 {
        let mut client = known(server, ALICE).await;
        client.send(number, &call("wait", 700 * KIB, ALICE)).await;
        until_running(engine, number.into()).await;
        held.push(client);
    }
    held
}

#[tokio::test]
async fn what_one_caller_holds_leaves_memory_to_others() {
    let engine = Engine::builder(Actor).build().expect("built");
    let server = server(&engine, 16 << 20, 2048 * KIB).await;
    // A caller has half of it, and one message beyond; a message counts until its call is over.
    let held = two_that_wait(&server, &engine).await;
    let mut other = known(&server, BOB).await;
    other.send(1, &call("word", 500 * KIB, BOB)).await;
    assert_eq!(other.result().await.1.stdout, "word");

    let refusal = async |client: &mut Client<TcpStream>, serial| {
        let (answered, answer) = client.answer().await;
        assert_eq!(answered, serial);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let of_known = async {
        let mut late = known(&server, ALICE).await;
        late.send(7, &call("word", 700 * KIB, ALICE)).await;
        let told = refusal(&mut late, 7).await;
        assert!(told.contains("RESOURCE_EXHAUSTED: messages of yours"), "{told}");
        assert!(late.is_closed().await);
    };
    // Whose call is the first counts as soon as it is known whose it is.
    let of_new = async {
        let mut late = server.connect().await;
        late.shake_hands().await;
        late.send(8, &call("word", 450 * KIB, ALICE)).await;
        let told = refusal(&mut late, 8).await;
        assert!(told.contains("RESOURCE_EXHAUSTED: messages of yours"), "{told}");
        // That it was read whole, so that the connection goes on.
        late.send(9, &call("word", 1, ALICE)).await;
        assert_eq!(late.result().await.1.stdout, "word");
    };
    tokio::join!(of_known, of_new);

    // What all have used up is told as that.
    let mut others = Vec::new();
    for (number, who) in [(3, BOB), (4, CAROL)] {
        let mut other = known(&server, who).await;
        other.send(1, &call("wait", 700 * KIB, who)).await;
        until_running(&engine, number).await;
        others.push(other);
    }
    let mut third = known(&server, BOB).await;
    third.send(3, &call("word", 700 * KIB, BOB)).await;
    let told = refusal(&mut third, 3).await;
    assert!(told.contains("UNAVAILABLE: the server has no memory left"), "{told}");

    drop(held);
    until_running(&engine, 2).await;
    let mut again = known(&server, ALICE).await;
    again.send(1, &call("word", 700 * KIB, ALICE)).await;
    assert_eq!(again.result().await.1.stdout, "word");
}

/// What is of another schema than the server's takes more memory than its bytes while it is read.
#[tokio::test]
async fn what_values_of_another_schema_take_is_of_their_callers_share() {
    let engine = Engine::builder(Actor).build().expect("built");
    let server = server(&engine, 16 << 20, 2048 * KIB).await;
    let held = two_that_wait(&server, &engine).await;
    let asked = async |token| {
        let mut client = server.connect().await;
        client.shake_hands_as(&protocol_with_junk()).await;
        client.send(1, &with_token(&execute_with_junk(25), token)).await;
        String::from_utf8_lossy(&client.answer().await.1).into_owned()
    };
    let told = asked(ALICE).await;
    assert!(told.contains("RESOURCE_EXHAUSTED: messages of yours"), "{told}");
    let told = asked(BOB).await;
    assert!(told.contains("word"), "{told}");
    drop(held);
    until_running(&engine, 0).await;
    let told = asked(ALICE).await;
    assert!(told.contains("word"), "{told}");
}

/// Sends a call over HTTP.
async fn post(server: &TestServer, call: &[u8], token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr).await.expect("connects");
    let body = message(call);
    let head = format!(
        "POST /avro HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
         Content-Type: avro/binary\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&body).await.expect("sent");
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_one_caller_posts_leaves_memory_to_others() {
    const CALL: usize = 3000 * KIB;
    let engine = Engine::builder(Actor).build().expect("built");
    // A body takes no more than the largest.
    let server = server(&engine, 3200 * KIB, 8192 * KIB).await;
    let mut held = Vec::new();
    for count in 1..=2 {
        held.push(post(&server, &call("wait", CALL, ALICE), ALICE).await);
        until_running(&engine, count).await;
    }
    let late = async {
        let told = answer(post(&server, &call("word", CALL, ALICE), ALICE).await).await;
        assert!(told.starts_with("HTTP/1.1 429 "), "{told}");
        assert!(told.to_ascii_lowercase().contains("\r\nretry-after: 1\r\n"), "{told}");
    };
    let other = async {
        let told = answer(post(&server, &call("word", CALL, BOB), BOB).await).await;
        assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("word"), "{told}");
    };
    tokio::join!(late, other);
    // Another goes beyond all of it; for the next there is none.
    held.push(post(&server, &call("wait", CALL, BOB), BOB).await);
    until_running(&engine, 3).await;
    let told = answer(post(&server, &call("word", CALL, CAROL), CAROL).await).await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    drop(held);
    until_running(&engine, 0).await;
    let told = answer(post(&server, &call("word", CALL, ALICE), ALICE).await).await;
    assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("word"), "{told}");
}

/// A client whose operating system keeps little of what it does not read.
pub(crate) async fn narrow(server: &TestServer) -> Client<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let mut client = Client::new(socket.connect(server.addr).await.expect("connects"));
    client.shake_hands().await;
    client
}

#[tokio::test]
async fn answers_that_one_caller_does_not_read_leave_memory_to_others() {
    // More than the operating system keeps for the server.
    const WORD: usize = 7 << 20;
    let engine = Engine::builder(Actor).build().expect("built");
    let server = patient_server(&engine, 16 << 20, 16 << 20, Duration::from_secs(120)).await;
    let print = |length| execute_with("print", vec!["x".repeat(length)]);
    let call = |token| with_token(&print(WORD), token);
    let mut unread = Vec::new();
    // A caller has half of it, and goes beyond that with one.
    for serial in 1..=2_u32 {
        let mut client = narrow(&server).await;
        client.send(serial, &call(ALICE)).await;
        // It has begun to come, so that all of it is written.
        client.stream.peek(&mut [0]).await.expect("answered");
        unread.push(client);
    }
    let mut late = narrow(&server).await;
    late.send(3, &call(ALICE)).await;
    let (serial, refused) = late.answer().await;
    let told = String::from_utf8_lossy(&refused);
    let words = "INTERNAL: it was done, but answers of yours that are not read yet";
    assert!(serial == 3 && told.contains(words), "{}", &told[..told.len().min(200)]);
    // Less is left than one takes while it is made, and its text beside it.
    late.send(3, &with_token(&print(700 << 10), ALICE)).await;
    let (_, refused) = late.answer().await;
    assert!(String::from_utf8_lossy(&refused).contains(words));
    // The connection goes on, and so do others.
    late.send(4, &with_token(&execute("short"), ALICE)).await;
    assert_eq!(late.result().await.1.stdout, "short");
    let mut other = known(&server, BOB).await;
    other.send(1, &call(BOB)).await;
    assert_eq!(other.result().await.1.stdout.len(), WORD);
    // What is read is given back, also while the connection stays.
    for (serial, client) in (1..).zip(&mut unread) {
        let (answered, result) = client.result().await;
        assert_eq!((answered, result.stdout.len()), (serial, WORD));
    }
    late.send(5, &call(ALICE)).await;
    assert_eq!(late.result().await.1.stdout.len(), WORD);
}

/// The same over HTTP, where the service is nested.
#[tokio::test]
async fn answers_over_http_count_until_they_are_dropped() {
    const WORD: usize = 300 << 10;
    let engine = Engine::builder(Actor).build().expect("built");
    let everyone = Caller::new("guest").expect("a name").with_all_scopes();
    let service = AvroServer::builder(engine)
        .authenticate(StaticTokens::new().allow_anonymous(everyone))
        .max_buffered(3 * WORD)
        .into_service();
    let ask = async || {
        let request = http::Request::post("http://a/avro")
            .header("host", "a")
            .header("content-type", "avro/binary")
            .body(Full::new(Bytes::from(message(&execute(&"x".repeat(WORD))))))
            .expect("a request");
        service.clone().call(request).await.expect("it never fails")
    };
    let (first, second) = (ask().await, ask().await);
    let is_refused = |body: &[u8]| {
        String::from_utf8_lossy(body).contains("INTERNAL: it was done, but answers of yours")
    };
    let third = ask().await.into_body().collect().await.expect("whole").to_bytes();
    assert!(is_refused(&third), "{:?}", third.slice(..third.len().min(100)));
    let mut body = first.into_body();
    let piece = body.frame().await.expect("a piece").expect("a piece");
    drop((body, second));
    // A piece of it may lie in hyper's buffers.
    let (fourth, fifth) = (ask().await, ask().await.into_body().collect().await);
    assert!(is_refused(&fifth.expect("whole").to_bytes()));
    drop((piece, fourth));
    assert!(!is_refused(&ask().await.into_body().collect().await.expect("whole").to_bytes()));
}

/// What is kept of an output is bounded by the engine; a line stands in the place of what is missing.
#[tokio::test]
async fn an_answer_tells_what_there_was_no_memory_for() {
    let engine = Engine::builder(Actor).max_captured_bytes(1 << 20).build().expect("built");
    let server = server(&engine, 16 << 20, 64 << 20).await;
    let mut client = known(&server, ALICE).await;
    let fits = "é".repeat(200 << 10);
    client.send(1, &with_token(&execute(&fits), ALICE)).await;
    assert_eq!(client.result().await.1.stdout, fits);
    for serial in 2..4 {
        client.send(serial, &with_token(&execute(&"x".repeat(1 << 20)), ALICE)).await;
        // Half of it is the caller's, beside the least that is kept.
        let kept = (512 << 10) + (16 << 10);
        let stdout = client.result().await.1.stdout;
        let gap = format!("\n--- {} bytes left out ---\n", (1 << 20) - kept);
        assert_eq!(stdout.len(), kept + gap.len());
        assert_eq!(stdout[kept / 2..].find(&gap), Some(0));
    }
}
