//! What is kept of a command's output until its answer was written.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Connection;
use crate::support::{TestServer, server_with, sh, with};

const HEADERS: [&str; 2] =
    ["Authorization: Bearer alices-very-long-token", "Content-Type: application/json"];
/// So much a command prints, in characters that take six bytes in JSON.
const BYTES: usize = 1_000_000;

/// Each caller has one MiB.
async fn server() -> TestServer {
    server_with(|engine| engine.max_captured_bytes(2 << 20), |http| http).await
}

fn zeros() -> Value {
    sh(&format!("head -c {BYTES} /dev/zero"))
}

/// Asks until the output is kept whole, some 200 times.
async fn is_whole_again(server: &TestServer) {
    for _ in 0..200 {
        let answer = server.execute(&zeros()).await.json();
        if answer["stdoutTruncated"] == false {
            assert_eq!(answer["stdout"].as_str().map(str::len), Some(BYTES));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the memory is never given back");
}

#[tokio::test]
async fn an_answer_that_is_not_read_holds_memory_and_others_keep_less() {
    let server = server().await;
    let mut narrow = Connection::open_narrow(server.addr).await;
    narrow.post("/execute", &HEADERS, zeros().to_string().as_bytes()).await;
    let (status, headers) = narrow.head().await;
    assert_eq!(status, 200);
    assert!(headers.contains(&("transfer-encoding".into(), "chunked".into())), "{headers:?}");
    assert!(headers.contains(&("content-type".into(), "application/json".into())), "{headers:?}");

    let less = server.execute(&zeros()).await.json();
    let kept = less["stdout"].as_str().map_or(0, str::len);
    assert!((16 << 10..BYTES / 4).contains(&kept), "{kept}");
    assert_eq!(less["stdoutTruncated"], true);
    assert_eq!(less["stdoutBytes"], BYTES);
    assert_eq!(less["stdoutGap"], json!({"at": kept.div_ceil(2), "bytes": BYTES - kept}));
    assert_eq!(less["success"], true);

    let body = narrow.chunks().await;
    assert!(body.len() > 6 * BYTES);
    let first: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(first["stdout"].as_str(), Some(&*"\0".repeat(BYTES)));
    assert_eq!((&first["stdoutGap"], &first["stderr"]), (&Value::Null, &json!("")));
    is_whole_again(&server).await;

    // A client that goes away gives back what its answer holds.
    let mut narrow = Connection::open_narrow(server.addr).await;
    narrow.post("/execute", &HEADERS, zeros().to_string().as_bytes()).await;
    narrow.head().await;
    drop(narrow);
    is_whole_again(&server).await;
    // So does one that goes away while its command runs.
    let mut leaving = server.connect().await;
    let script = format!("head -c {BYTES} /dev/zero; : >printed; sleep 600");
    leaving.post("/execute", &HEADERS, sh(&script).to_string().as_bytes()).await;
    let printed = server.root.path().join("printed");
    crate::support::eventually("it has printed", || printed.exists()).await;
    drop(leaving);
    is_whole_again(&server).await;
}

#[tokio::test]
async fn long_answers_are_the_same_in_every_form() {
    let server = server().await;
    let script = "i=0; while [ $i -lt 20000 ]; do printf 'line \\342\\202\\254 %s\\n' $i; \
                  i=$((i+1)); done; printf '\\342\\202' >&2; exit 3";
    let expected: String = (0..20_000).map(|number| format!("line € {number}\n")).collect();
    let text = server.ask("POST", "/execute?failStatus=500", Some(&sh(script))).await;
    assert_eq!(text.status, 500);
    let text = text.json();
    assert_eq!(text["stdout"], expected);
    assert_eq!(text["stderr"], "\u{fffd}");
    assert_eq!(text["error"], "the command exited with code 3");
    let base64 =
        server.execute(&with(sh(script), json!({"outputEncoding": "base64"}))).await.json();
    use base64::Engine as _;
    let decoded = base64::prelude::BASE64_STANDARD.decode(base64["stdout"].as_str().expect("text"));
    assert_eq!(decoded.expect("Base64"), expected.as_bytes());
}

#[tokio::test]
async fn an_answer_under_a_key_is_kept_unless_it_is_too_large() {
    const KEY: &str = "Idempotency-Key: one\r\n";
    const OTHER: &str = "Idempotency-Key: two\r\n";
    let server = server_with(|engine| engine, |http| http).await;
    let long = sh("echo x >>ran; head -c 300000 /dev/zero");
    let first = server.ask_with("POST", "/execute", KEY, Some(&long)).await;
    assert_eq!(first.json()["stdout"].as_str().map(str::len), Some(300_000));
    let again = server.ask_with("POST", "/execute", KEY, Some(&long)).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.body, first.body);
    let longer = sh("echo x >>ran; head -c 2000000 /dev/zero");
    let first = server.ask_with("POST", "/execute", OTHER, Some(&longer)).await;
    assert_eq!(first.json()["stdout"].as_str().map(str::len), Some(2_000_000));
    let again = server.ask_with("POST", "/execute", OTHER, Some(&longer)).await;
    assert!(again.problem(409).contains("too large"), "{}", again.text());
    let ran = std::fs::read_to_string(server.root.path().join("ran")).expect("it ran");
    assert_eq!(ran.lines().count(), 2);
}
