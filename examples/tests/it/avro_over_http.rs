//! `POST /avro` on the port of the HTTP server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::conformance::text;
use crate::server::{ALICE, all_in_one};

fn answer(addr: &str, head: &str, announced: usize, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let head = format!(
        "POST /avro HTTP/1.1\r\n{head}\r\nContent-Type: avro/binary\r\nConnection: close\r\n\
         Content-Length: {announced}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// As to the server of Avro itself, whose own tests have each of the limits.
#[test]
fn a_protocol_beyond_the_limits_is_refused_in_words() {
    let server = all_in_one(&["--avro", "127.0.0.1:0"]);
    let nested = |depth: u8| {
        let depth = usize::from(depth);
        let (open, close) = (r#"{"type":"array","items":"#.repeat(depth), "}".repeat(depth));
        format!(
            r#"{{"protocol":"Other","namespace":"com.splectrum.rpc","types":[{{"name":"Command",
            "type":"record","fields":[{{"name":"command","type":"string"}},
            {{"name":"args","type":{{"type":"array","items":"string"}}}}]}}],"messages":{{
            "execute":{{"request":[{{"name":"command","type":"Command"}}],"response":"null"}},
            "run":{{"request":[{{"name":"further","type":{open}"int"{close}}}],"response":"null"}}}}}}"#
        )
    };
    for (depth, refusal) in [(50, None), (100, Some("more than 64 deep"))] {
        let protocol = nested(depth);
        // By its hash it would be taken for the one before.
        let mut message = vec![depth; 16];
        message.push(2);
        text(protocol.as_bytes(), &mut message);
        message.extend([0x5a; 16]);
        // Without metadata, twice.
        message.extend(b"\0\0\x0eexecute\x08echo\x02\x04hi\0");
        let framed = (message.len() as u32).to_be_bytes();
        let framed = [&framed[..], &message, &[0; 4]].concat();
        let alice = format!("Host: a\r\nAuthorization: Bearer {ALICE}");
        let told = answer(&server.addr, &alice, framed.len(), &framed);
        assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
        let words = "your protocol can't be read: ";
        assert_eq!(told.contains(words), refusal.is_some(), "{depth} deep: {told}");
        let expected = refusal.unwrap_or("\x06hi\n");
        assert!(told.contains(expected), "{depth} deep: {told}");
    }
}

#[test]
fn calls_are_taken_on_the_port_of_http_and_refused_by_their_heads() {
    let server = all_in_one(&["--avro", "127.0.0.1:0"]);
    // A handshake of whom nobody knows yet, without its protocol's text: it is asked for.
    let mut message = vec![0, 0, 0, 34];
    message.extend([0x5a; 16]);
    message.push(0);
    message.extend([0x5a; 16]);
    message.extend([0; 5]);
    let alice = format!("Host: a\r\nAuthorization: Bearer {ALICE}");
    let told = answer(&server.addr, &alice, message.len(), &message);
    assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("SPlectrumEngine"), "{told}");
    assert!(told.contains("\r\nx-content-type-options: nosniff\r\n"), "{told}");
    assert!(told.contains("\r\ncross-origin-resource-policy: same-origin\r\n"), "{told}");

    // Before a byte of the body comes.
    for (head, announced, status) in [
        ("Host: a\r\nAuthorization: Bearer wrong-and-rather-long", 1000, 401),
        ("Host: a", 1 << 20, 413),
        ("Host: a\r\nHost: a", 1000, 400),
        ("X: a", 1000, 400),
    ] {
        let told = answer(&server.addr, head, announced, b"");
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {told}");
    }
}
