//! What is told of output that was left out.

use serde_json::json;

use crate::client::Response;
use crate::support::{batch_server, step, with};

/// So many bytes of `seq 1000 2000` are over a limit of 1000.
const MARK: &str = "--- 4005 bytes left out ---\n";

fn head(response: &Response) -> (u16, Option<&str>, Option<&str>) {
    (response.status, response.header("stdout-gap"), response.header("stderr-gap"))
}

/// The download of a step's output tells where a part is missing, as text in its place.
#[tokio::test]
async fn a_download_tells_what_was_left_out() {
    let server = batch_server().await;
    let long = step("long", "seq 1000 2000; seq 10 99 >&2");
    let path = server.output_of(with(long, json!({"outputLimit": 1000}))).await;
    let get = async |query: &str, headers: &str| {
        server.ask_with("GET", &format!("{path}{query}"), headers, None).await
    };
    let gap = Some("at=500, bytes=4005");

    let exact = get("", "").await;
    assert_eq!((head(&exact), exact.body.len()), ((200, gap, None), 1000));
    let text = get("", "Accept: text/plain\r\n").await;
    assert_eq!(head(&text), (200, gap, None));
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    let (before, after) = exact.text().split_at(500);
    let marked = format!("{before}{MARK}{after}");
    assert_eq!(text.text(), marked);
    assert_ne!(text.header("etag"), exact.header("etag"));
    assert_eq!(text.header("vary"), Some("accept"));
    // Parts are those of what is shown.
    for (from, until) in [(0, 10), (490, 505), (495, 530), (501, 503), (510, 600), (0, 1028)] {
        let range = format!("Range: bytes={from}-{}\r\nAccept: text/plain\r\n", until - 1);
        let part = get("", &range).await;
        assert_eq!((part.status, part.text()), (206, &marked[from..until]), "{from} {until}");
    }
    // Who follows it is told at the same place, wherever they begin.
    let text = "Accept: text/plain\r\n";
    assert_eq!(get("?follow=true", text).await.text(), marked);
    assert_eq!(get("?follow=true&offset=400", text).await.text(), &marked[400..]);
    assert_eq!(get("?follow=true&offset=500", text).await.text(), &marked[500..]);
    assert_eq!(get("?follow=true&offset=600", text).await.text(), &after[100..]);
    assert_eq!(get("?follow=true", "").await.text(), exact.text());

    let other = path.replace("/stdout", "/stderr");
    let whole = server.ask_with("GET", &other, text, None).await;
    assert_eq!((head(&whole), whole.body.len()), ((200, None, None), 270));
}

/// A gap that begins within a line is told on a line of its own; who follows is told as soon as what
/// lies behind it comes.
#[tokio::test]
async fn a_gap_has_a_line_of_its_own() {
    let server = batch_server().await;
    let script = "head -c 2000 /dev/zero | tr '\\0' x; while [ ! -e go ]; do sleep 0.01; done";
    let long = with(step("long", script), json!({"outputLimit": 1000}));
    let batch = server.submit(&json!({"steps": [long]})).await;
    let path = format!("{batch}/steps/long/stdout");
    let text = "Accept: text/plain\r\n";
    let follow = format!("{path}?follow=true");
    let followed = async { server.ask_with("GET", &follow, text, None).await };
    let goes_on = async {
        let first = server.ask_with("GET", &path, text, None).await;
        assert_eq!(first.header("stdout-gap"), None, "nothing is left out yet");
        std::fs::write(server.root.path().join("go"), "").expect("writes");
    };
    let (followed, ()) = tokio::join!(followed, goes_on);
    let x = "x".repeat(500);
    let expected = format!("{x}\n--- 1000 bytes left out ---\n{x}");
    assert_eq!(followed.text(), expected);
    assert_eq!(server.ask_with("GET", &path, text, None).await.text(), expected);
}
