//! `POST /avro` on the port of the HTTP server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

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
