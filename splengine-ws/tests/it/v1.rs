use serde_json::json;

use crate::support::{Came, script, server};

#[tokio::test]
async fn a_dropped_connection_goes_on_where_it_was() {
    let server = server().await;
    let mut client = server.v1().await;
    // Less than is kept of it: while nobody is attached, nobody holds it up.
    client.send(script("stty -opost -echo; read go; seq 1 120000; echo done; read x")).await;
    let session = client.frame("session").await;
    let (id, epoch, name) =
        (session["sessionId"].clone(), session["epoch"].clone(), session["client"].clone());
    let mut base = None;
    let mut seen = Vec::new();
    client.input("\n").await;
    let mut frames = 0;
    while !seen.ends_with(b"done\n") {
        match client.next().await {
            Came::Snapshot { offset, .. } => {
                assert!(base.is_none(), "it kept up");
                base = Some(offset);
                client.ack(offset).await;
            }
            Came::Output { offset, data } => {
                let base = base.expect("a screen first");
                assert_eq!(offset, base + seen.len() as u64, "a hole or a repeat");
                seen.extend(data);
                client.ack(base + seen.len() as u64).await;
                frames += 1;
                if frames % 5 == 0 {
                    drop(client);
                    client = server.v1().await;
                    let offset = base + seen.len() as u64;
                    client.send(json!({"type": "attach", "sessionId": id, "epoch": epoch, "offset": offset, "client": name})).await;
                    let again = client.frame("session").await;
                    assert_eq!(again["client"], name);
                    assert_eq!(client.frame("input_ack").await["number"], 1);
                    client.ack(offset).await;
                }
            }
            Came::Frame(_) => {}
            Came::Closed(code) => panic!("closed with {code}"),
        }
    }
    let expected: String = (1..=120_000).map(|n| format!("{n}\n")).collect::<String>() + "done\n";
    assert!(seen.ends_with(expected.as_bytes()));
}

#[tokio::test]
async fn input_sent_again_is_typed_once() {
    let server = server().await;
    let mut client = server.v1().await;
    client.send(script("stty raw -echo; echo ready; head -c 6 | od -An -c; read x")).await;
    let session = client.frame("session").await;
    client.until("ready").await;
    client.input("abc").await;
    while client.frame("input_ack").await["number"] != 3 {}
    drop(client);
    let mut client = server.v1().await;
    client
        .send(json!({"type": "attach", "sessionId": session["sessionId"], "epoch": session["epoch"], "offset": 0}))
        .await;
    client.frame("session").await;
    client.input_at(0, "abcdef").await;
    let seen = client.until("f").await;
    assert!(seen.contains("a   b   c   d   e   f"), "{seen}");
    client.input_at(100, "x").await;
    client.frame("error").await;
    assert_eq!(client.closed().await, 4400);
}

#[tokio::test]
async fn control_is_taken_released_and_granted() {
    let server = server().await;
    let mut one = server.v1().await;
    one.send(json!({"type": "new_session", "command": "cat", "cols": 90, "rows": 30})).await;
    let session = one.frame("session").await;
    assert_eq!((&session["cols"], &session["rows"]), (&90.into(), &30.into()));
    assert_eq!(one.frame("control").await["you"], true);
    let mut two = server.v1().await;
    two.send(json!({"type": "attach", "sessionId": session["sessionId"], "cols": 60, "rows": 20}))
        .await;
    let second = two.frame("session").await;
    assert_eq!((&second["cols"], &second["access"]), (&90.into(), &"control".into()));
    let presence = two.frame("presence").await;
    assert_eq!(presence["clients"].as_array().map(Vec::len), Some(2));
    assert_eq!(two.frame("control").await["holder"], session["client"]);
    two.send(json!({"type": "control", "op": "take"})).await;
    assert_eq!(one.frame("control").await["holder"], second["client"]);
    let size = one.frame("size").await;
    assert_eq!((&size["cols"], &size["rows"]), (&60.into(), &20.into()));
    two.send(json!({"type": "control", "op": "grant", "to": session["client"]})).await;
    assert_eq!(one.frame("control").await["you"], true);
    one.send(json!({"type": "control", "op": "release"})).await;
    assert_eq!(one.frame("control").await["holder"], json!(null));
    one.send(json!({"type": "control", "op": "grant", "to": "nobody"})).await;
    assert_eq!(one.frame("error").await["code"], "forbidden");
}

#[tokio::test]
async fn broken_frames_end_the_connection() {
    let server = server().await;
    for bad in [vec![], vec![0x77; 20], vec![0x11, 0, 0], vec![0x12; 3]] {
        let mut client = server.v1().await;
        client.send(json!({"type": "new_session", "command": "cat"})).await;
        client.frame("session").await;
        client.binary(bad).await;
        client.frame("error").await;
        assert_eq!(client.closed().await, 4400);
    }
}

#[tokio::test]
async fn titles_are_told() {
    let server = server().await;
    let mut client = server.v1().await;
    client.send(script("printf '\\033]2;my title\\007'; read x")).await;
    while client.frame("title").await["title"] != "my title" {}
}
