//! What the servers that take requests of HTTP make of their `Authorization` headers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::server::*;

fn answer(addr: &str, head: &str, rest: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let head = format!("{head} HTTP/1.1\r\nHost: {addr}\r\n{rest}");
    stream.write_all(head.as_bytes()).expect("sent");
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    // Not until the connection is closed: a WebSocket stays open.
    loop {
        let count = stream.read(&mut piece).expect("an answer");
        assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..count]);
        if let Ok((head, body)) = split_answer(&answer) {
            return head + &String::from_utf8_lossy(&body);
        }
    }
}

/// Which of them a proxy in front has checked is not known.
#[test]
fn several_of_them_are_refused_by_all_in_the_same_words() {
    let all = all_in_one(&["--avro", "127.0.0.1:0"]);
    let ready: Value = serde_json::from_str(&all.server.ready).expect("JSON");
    let addr = |server: &str| ready[server].as_str().expect("an address").to_owned();
    let json = "Content-Type: application/json\r\nConnection: close\r\nContent-Length: 18";
    let json = format!("{json}\r\n");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let avro = "Content-Type: avro/binary\r\nConnection: close\r\nContent-Length: 4\r\n";
    let right = format!("Authorization: Bearer {ALICE}\r\n");
    for (server, head, headers, body) in [
        ("http", "POST /execute", &*json, r#"{"command":"true"}"#),
        ("ws", "GET /terminal", upgrade, ""),
        ("avro", "POST /avro", avro, "\0\0\0\0"),
        ("http", "POST /avro", avro, "\0\0\0\0"),
    ] {
        let ask = |authorization: &str| {
            answer(&addr(server), head, &format!("{headers}{authorization}\r\n{body}"))
        };
        let told = ask(&right);
        assert!(!told.contains("Authorization"), "{server} {head}: {told}");
        for second in ["Bearer another-and-rather-long", "Basic YTpi", &format!("Bearer {ALICE}")] {
            let told = ask(&format!("{right}authorization: {second}\r\n"));
            assert!(told.starts_with("HTTP/1.1 400 "), "{server} {head}: {told}");
            let words = "credentials must stand in one Authorization header, not several";
            assert!(told.contains(words), "{server} {head}: {told}");
            assert!(!told.to_ascii_lowercase().contains("www-authenticate"), "{told}");
        }
        let told = ask("Authorization: Bearer another-and-rather-long\r\n");
        assert!(told.starts_with("HTTP/1.1 401 "), "{server} {head}: {told}");
    }
}
