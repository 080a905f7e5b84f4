//! Protocols of clients that nobody knows: what is beyond a limit is refused in words, and nobody
//! else is held up. Everything beyond a limit is a shape that is harmless in itself.

use std::net::SocketAddr;
use std::time::Duration;

use md5::{Digest as _, Md5};
use splengine_core::auth::{Secret, StaticTokens};
use splengine_core::{Caller, Scope};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::client::{
    Client, TestServer, execute, execute_with_junk, hash, protocol_with_junk, within,
};

/// A client's protocol: `execute` with a narrow command, `run` with the schema `further`, and `types`
/// beside those.
fn protocol(types: &str, further: &str) -> String {
    let comma = if types.is_empty() { "" } else { "," };
    format!(
        r#"{{"protocol":"Other","namespace":"com.splectrum.rpc","types":[{{"name":"Command",
        "type":"record","fields":[{{"name":"command","type":"string"}},
        {{"name":"args","type":{{"type":"array","items":"string"}}}}]}}{comma}{types}],
        "messages":{{"execute":{{"request":[{{"name":"command","type":"Command"}}],"response":"null"}},
        "run":{{"request":[{{"name":"further","type":{further}}}],"response":"null"}}}}}}"#
    )
}

/// `execute` of `echo` in that protocol.
const EXECUTE: &[u8] = b"\0\x0eexecute\x08echo\x02\x04hi\0";

fn record(name: &str, fields: impl IntoIterator<Item = String>) -> String {
    let field = |(place, schema)| format!(r#"{{"name":"f{place}","type":{schema}}}"#);
    let fields: Vec<String> = fields.into_iter().enumerate().map(field).collect();
    format!(r#"{{"type":"record","name":"{name}","fields":[{}]}}"#, fields.join(","))
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn chain(count: usize) -> String {
    let next =
        |place| if place + 1 == count { quoted("int") } else { quoted(&format!("T{}", place + 1)) };
    let records = (0..count).map(|place| record(&format!("T{place}"), [next(place)]));
    records.collect::<Vec<_>>().join(",")
}

fn circle(count: usize) -> String {
    let next = |place| format!(r#"["null","T{}"]"#, (place + 1) % count);
    let records = (0..count).map(|place| record(&format!("T{place}"), [next(place)]));
    records.collect::<Vec<_>>().join(",")
}

fn doubling(levels: usize) -> String {
    let below = |level: usize| vec![quoted(&format!("T{}", level + 1)); 2];
    let fields = |level| if level + 1 == levels { Vec::new() } else { below(level) };
    let records = (0..levels).map(|level| record(&format!("T{level}"), fields(level)));
    records.collect::<Vec<_>>().join(",")
}

fn nested(levels: usize) -> String {
    let (open, close) = (r#"{"type":"array","items":"#, "}");
    format!("{}\"int\"{}", open.repeat(levels), close.repeat(levels))
}

fn aliased(count: usize) -> String {
    let aliases: Vec<String> = (0..count).map(|alias| quoted(&format!("A{alias}"))).collect();
    format!(r#"{{"type":"fixed","name":"T0","size":1,"aliases":[{}]}}"#, aliases.join(","))
}

fn symbols(count: usize) -> String {
    let symbols: Vec<String> = (0..count).map(|symbol| quoted(&format!("s{symbol}"))).collect();
    format!(r#"{{"type":"enum","name":"T0","symbols":[{}]}}"#, symbols.join(","))
}

fn wide(count: usize) -> String {
    record("T0", vec![quoted("int"); count])
}

fn many(count: usize) -> String {
    let records = (0..count).map(|place| record(&format!("T{place}"), []));
    records.collect::<Vec<_>>().join(",")
}

/// Texts just within a limit, those beyond it, and what is said of the latter.
fn limits() -> Vec<(Option<String>, String, &'static str)> {
    let types = |types: String| protocol(&types, "\"T0\"");
    let unused = |types: String| protocol(&types, "\"int\"");
    let long = |length| format!("{}{}", protocol("", "\"int\""), " ".repeat(length));
    let rest = (256 << 10) - long(0).len();
    let name = |length| protocol(&record(&"n".repeat(length), []), "\"int\"");
    let space = "com.splectrum.rpc.".len();
    vec![
        (Some(types(chain(62))), types(chain(64)), "more than 64 deep"),
        (Some(types(circle(20))), types(circle(40)), "more than 64 deep"),
        (Some(protocol("", &nested(62))), protocol("", &nested(64)), "more than 64 deep"),
        (None, protocol("", &nested(200)), "recursion limit"),
        (Some(types(doubling(10))), types(doubling(60)), "take more than 4096"),
        (Some(types(aliased(64))), types(aliased(65)), "more than 64 aliases"),
        (Some(unused(wide(8000))), unused(wide(8192)), "more than 8192 fields"),
        (Some(unused(symbols(8000))), unused(symbols(8192)), "more than 8192 fields"),
        (Some(types(wide(4000))), types(wide(4096)), "take more than 4096"),
        (Some(unused(many(990))), unused(many(1000)), "more than 1000 types"),
        (Some(name(256 - space)), name(257 - space), "longer than 256 bytes"),
        (Some(long(rest)), long(rest + 1), "longer than 262144 bytes"),
        (
            None,
            unused(r#"{"type":"Command","name":"A"}"#.to_owned()),
            "no record, error, enum or fixed",
        ),
        (None, unused(record("Command", [])), "twice"),
        (None, unused(record("T0", [quoted("T1")])), "which it does not define"),
        (None, unused(r#"{"type":"record","name":"T0"}"#.to_owned()), "no array of `fields`"),
    ]
}

fn handshake(text: &str) -> Vec<u8> {
    let mut message = Md5::digest(text.as_bytes()).to_vec();
    message.push(2);
    let mut length = text.len() << 1;
    while length > 0x7f {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(text.as_bytes());
    message.extend_from_slice(&hash());
    message.push(0);
    message
}

/// In the specification's framing.
fn classic(message: &[u8]) -> Vec<u8> {
    let mut bytes = (message.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

async fn classic_answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    within("an answer", async {
        loop {
            match stream.read_u32().await.expect("a length") as usize {
                0 => return answer,
                length => {
                    let begin = answer.len();
                    answer.resize(begin + length, 0);
                    stream.read_exact(&mut answer[begin..]).await.expect("a buffer");
                }
            }
        }
    })
    .await
}

/// One request, by which the connection stays open, and its answer's body.
async fn post(stream: &mut TcpStream, message: &[u8]) -> Vec<u8> {
    let body = classic(message);
    let head = format!(
        "POST /avro HTTP/1.1\r\nHost: a\r\nContent-Type: avro/binary\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a head", stream.read_u8()).await.expect("a head"));
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    classic_answer(stream).await
}

fn check(answer: &[u8], refusal: Option<&str>) {
    // Our own protocol is known to these clients.
    assert_eq!(answer[..4], [0; 4], "the handshake's");
    check_call(&answer[4..], refusal);
}

fn check_call(answer: &[u8], refusal: Option<&str>) {
    let said = String::from_utf8_lossy(answer);
    match refusal {
        None => assert!(said.contains("echo"), "{said}"),
        Some(refusal) => {
            assert!(said.contains("your protocol can't be read: "), "{said}");
            assert!(said.contains(refusal), "{refusal}: {said}");
        }
    }
}

#[tokio::test]
async fn protocols_beyond_a_limit_are_refused_in_words() {
    let server = TestServer::open(|server| server).await;
    let mut http = TcpStream::connect(server.addr).await.expect("connects");
    for (within, beyond, refusal) in limits() {
        let texts = [(within, None), (Some(beyond), Some(refusal))];
        for (text, refusal) in texts {
            let Some(text) = text else { continue };
            // Each transport brings a text of its own, which no other has made known.
            let message = |protocol| {
                let text = text.replacen("Other", protocol, 1);
                [&handshake(&text)[..], EXECUTE].concat()
            };
            // The connection goes on: a ping, and the same call.
            let mut netty = server.connect().await;
            netty.send(1, &message("First")).await;
            check(&netty.answer().await.1, refusal);
            netty.send(2, &[0, 0]).await;
            assert_eq!(netty.answer().await, (2, vec![0, 0]));
            netty.send(3, EXECUTE).await;
            check_call(&netty.answer().await.1, refusal);
            let mut plain = TcpStream::connect(server.addr).await.expect("connects");
            plain.write_all(&classic(&message("Other"))).await.expect("sent");
            check(&classic_answer(&mut plain).await, refusal);
            plain.write_all(&classic(EXECUTE)).await.expect("sent");
            check_call(&classic_answer(&mut plain).await, refusal);
            check(&post(&mut http, &message("Third")).await, refusal);
        }
    }
}

/// Texts that take long to parse, each another.
fn heavy(number: usize) -> String {
    let fields: String = (0..3900).fold(String::new(), |fields, field| {
        format!(r#"{fields}{{"name":"f{field}","type":"int"}},"#)
    });
    let types = format!(
        r#"{{"type":"record","name":"T0","fields":[{fields}{{"name":"last{number}","type":"int"}}]}}"#
    );
    protocol(&types, "\"T0\"")
}

/// From another address, clients that each bring a protocol of its own.
async fn strangers(addr: SocketAddr, count: usize) -> JoinSet<()> {
    let mut strangers = JoinSet::new();
    for number in 0..count {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.2:0".parse().expect("an address")).expect("bound");
        let mut stranger = Client::new(socket.connect(addr).await.expect("connects"));
        strangers.spawn(async move {
            stranger.send(1, &[&handshake(&heavy(number))[..], EXECUTE].concat()).await;
            check(&stranger.answer().await.1, None);
        });
    }
    strangers
}

/// On one thread: whatever it does for one, all others wait for.
#[tokio::test]
async fn who_is_known_does_not_wait_for_the_protocols_of_others() {
    let server =
        TestServer::open(|server| server.handshake_timeout(Duration::from_secs(300))).await;
    let mut known = server.connect().await;
    known.shake_hands().await;
    let mut strangers = strangers(server.addr, 8).await;
    let (mut calls, mut answered) = (0, 0);
    while answered < 8 {
        known.execute(1, "word").await;
        assert_eq!(known.result().await.1.stdout, "word");
        calls += 1;
        while let Some(done) = strangers.try_join_next() {
            done.expect("answered");
            answered += 1;
        }
    }
    assert!(calls > 80, "only {calls} calls while 8 protocols were parsed");
}

#[tokio::test]
async fn a_new_protocol_waits_for_one_of_each_other_address() {
    let server =
        TestServer::open(|server| server.handshake_timeout(Duration::from_secs(300))).await;
    let mut strangers = strangers(server.addr, 20).await;
    strangers.join_next().await.expect("one of them").expect("answered");
    let mut new = server.connect().await;
    new.send(1, &[&handshake(&heavy(2000))[..], EXECUTE].concat()).await;
    check(&new.answer().await.1, None);
    let mut before = 1;
    while strangers.try_join_next().is_some() {
        before += 1;
    }
    assert!(before < 15, "{before} of another address were parsed before");
    while let Some(done) = strangers.join_next().await {
        done.expect("answered");
    }
}

#[tokio::test]
async fn what_a_client_without_credentials_brings_is_kept_by_the_cache_alone() {
    let user = Caller::new("guest").expect("a user name").with_all_scopes();
    let mut tokens = StaticTokens::new();
    tokens.insert(&Secret::new("secret-of-sixteen"), user).expect("a token");
    let server = TestServer::open(|server| server.authenticate(tokens)).await;
    let metadata = b"\x02\x22spl-authorization\x30Bearer secret-of-sixteen\0";
    let authenticated = [&metadata[..], &EXECUTE[1..]].concat();
    let mut known = server.connect().await;
    known.send(1, &[&handshake(&heavy(1000))[..], &authenticated].concat()).await;
    check(&known.answer().await.1, None);
    let mut stranger = server.connect().await;
    stranger.send(1, &[&handshake(&heavy(1001))[..], EXECUTE].concat()).await;
    let said = stranger.answer().await.1;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("UNAUTHENTICATED"), "{said:?}");
    // Still there.
    stranger.send(2, EXECUTE).await;
    let said = stranger.answer().await.1;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("UNAUTHENTICATED"), "{said:?}");
    for number in 0..12 {
        let mut other = server.connect().await;
        other.send(1, &[&handshake(&heavy(number))[..], EXECUTE].concat()).await;
        other.answer().await;
    }
    stranger.send(3, &authenticated).await;
    let said = String::from_utf8_lossy(&stranger.answer().await.1).into_owned();
    assert!(said.contains("no longer kept here"), "{said}");
    known.send(2, &authenticated).await;
    let said = String::from_utf8_lossy(&known.answer().await.1).into_owned();
    assert!(said.contains("echo"), "{said}");
    // It may bring it once more.
    stranger.send(4, &[&handshake(&heavy(1001))[..], &authenticated].concat()).await;
    check(&stranger.answer().await.1, None);
}

/// Records of many fields may take no bytes.
#[tokio::test]
async fn values_that_take_far_more_memory_than_their_bytes_are_refused() {
    let server = TestServer::open(|server| server).await;
    let mut client = server.connect().await;
    client.shake_hands_as(&protocol_with_junk()).await;
    for (count, told) in [(300, "word"), (600, "take too much memory for their size")] {
        client.send(1, &execute_with_junk(count)).await;
        let answer = client.answer().await.1;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains(told), "{answer}");
    }
}

#[tokio::test]
async fn nothing_is_read_of_a_call_whose_caller_lacks_the_right_to_it() {
    let watcher = Caller::new("watcher").expect("a name").with(Scope::Watch);
    let server = TestServer::open(|server| {
        server.authenticate(StaticTokens::new().allow_anonymous(watcher))
    })
    .await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    let calls = ["execute", "executeBatch", "executeBatchDetailed", "openSession", "run"];
    for name in calls.into_iter().chain(["submitBatch", "writeFile"]) {
        // What follows is nothing that they take.
        let length = (name.len() << 1) as u8;
        client.send(1, &[&[0, length], name.as_bytes(), &[0xff]].concat()).await;
        let answer = client.answer().await.1;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("lacks the scope"), "{name}: {answer}");
    }
    client.send(1, &execute("word")).await;
    assert!(String::from_utf8_lossy(&client.answer().await.1).contains("PERMISSION_DENIED"));
}
