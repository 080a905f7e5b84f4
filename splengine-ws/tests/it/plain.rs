use futures_util::SinkExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::support::{Came, script, server, server_with};

#[tokio::test]
async fn the_simplest_client_gets_a_terminal() {
    let server = server().await;
    let mut client = server.plain("").await;
    let Came::Frame(first) = client.next().await else { panic!("no frame") };
    assert_eq!(first["type"], "session");
    assert_eq!(
        (&first["cols"], &first["rows"], &first["access"]),
        (&80.into(), &24.into(), &"control".into())
    );
    assert!(first["sessionId"].as_str().expect("an id").starts_with("spl-alice-"));
    client.send(json!({"type": "future", "data": [1]})).await;
    client.send(json!({"type": "input", "data": "echo $((6*7))-\n"})).await;
    client.until("42-").await;
    client.binary(b"echo $((2*7))-\n".to_vec()).await;
    client.until("14-").await;
    client.send(json!({"type": "ping", "t": 5})).await;
    assert_eq!(client.frame("pong").await["t"], 5);
    client.send(json!({"type": "input", "data": "exit 3\n"})).await;
    let exit = client.frame("exit").await;
    assert_eq!((&exit["exitCode"], &exit["signal"]), (&3.into(), &json!(null)));
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn closing_the_socket_leaves_the_program_running() {
    let server = server().await;
    let mut client = server.plain("").await;
    let id = client.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
    client.send(json!({"type": "input", "data": "x=still; echo rea''dy\n"})).await;
    client.until("ready").await;
    drop(client);
    let mut viewer = server.plain(&format!("?session={id}&access=view")).await;
    assert_eq!(viewer.frame("session").await["access"], "view");
    let mut again = server.plain(&format!("?session={id}")).await;
    again.until("ready").await;
    again.send(json!({"type": "input", "data": "echo $x-here\n"})).await;
    viewer.until("still-here").await;
    viewer.send(json!({"type": "input", "data": "evil\n"})).await;
    assert_eq!(viewer.frame("error").await["code"], "read_only");
    loop {
        if again.frame("clients").await["count"] == 2 {
            break;
        }
    }
}

#[tokio::test]
async fn one_socket_moves_between_sessions() {
    let server = server().await;
    let mut client = server.plain("").await;
    let first = client.frame("session").await["sessionId"].clone();
    client.send(json!({"type": "new_session", "cols": 100, "rows": 40})).await;
    let second = client.frame("session").await;
    assert_eq!((&second["cols"], &second["rows"]), (&100.into(), &40.into()));
    assert_ne!(second["sessionId"], first);
    client.send(json!({"type": "attach", "sessionId": first})).await;
    assert_eq!(client.frame("session").await["sessionId"], first);
    client.send(json!({"type": "save_session", "name": "mine"})).await;
    let saved = client.frame("saved").await;
    assert_eq!(saved["name"], "mine");
    client.send(json!({"type": "load_session", "savedId": saved["savedId"]})).await;
    let loaded = loop {
        // There may be more of what was attached to: its size is settled a moment later.
        let frame = client.frame("session").await;
        if frame["sessionId"] != first {
            break frame;
        }
    };
    assert_eq!(loaded["restored"], true);
    client.send(json!({"type": "attach", "sessionId": "spl-alice-nonsense"})).await;
    assert_eq!(client.frame("error").await["code"], "no_session");
    client.send(json!({"type": "close_session"})).await;
    client.frame("exit").await;
    assert_eq!(client.closed().await, 1000);
    let both = async {
        while server.engine.sessions().list(&server.alice).len() != 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), both).await.expect("both are there");
}

#[tokio::test]
async fn no_frame_ends_inside_a_character() {
    let server = server().await;
    let mut client = server.plain("").await;
    client.send(script("for i in 1 2 3 4 5 6 7 8 9; do printf '\\342'; sleep 0.01; printf '\\202'; sleep 0.01; printf '\\254'; done; printf '\\377end'; read x")).await;
    let seen = client.until("end").await;
    assert!(seen.contains(&"€".repeat(9)), "{seen}");
    assert!(seen.contains("\u{fffd}end"), "{seen}");
}

#[tokio::test]
async fn bad_frames_are_told_apart() {
    let server = server_with(|policy| policy, |server| server.max_message(4200)).await;
    let mut client = server.plain("").await;
    for bad in
        ["nonsense", "[]", r#"{"type":"resize","cols":"x","rows":1}"#, r#"{"type":"attach"}"#]
    {
        client.socket.send(Message::text(bad)).await.expect("sent");
        assert_eq!(client.frame("error").await["code"], "invalid", "{bad}");
    }
    // It would be held for a client that reads nothing.
    client.send(json!({"type": "ping", "t": "x".repeat(230)})).await;
    client.frame("pong").await;
    client.send(json!({"type": "ping", "t": "x".repeat(240)})).await;
    assert_eq!(client.frame("error").await["code"], "invalid");
    client.send(json!({"type": "resize", "cols": 100_000, "rows": 0})).await;
    let size = client.frame("size").await;
    assert_eq!((&size["cols"], &size["rows"]), (&1000.into(), &1.into()));
    client.binary(vec![b'x'; 5000]).await;
    assert_eq!(client.closed().await, 4413);
}

#[tokio::test]
async fn limits_have_their_codes() {
    let server = server_with(
        |policy| {
            policy
                .max_sessions_per_caller(1)
                .idle_timeout(std::time::Duration::from_secs(8))
                .warning(std::time::Duration::from_secs(6))
        },
        |server| server,
    )
    .await;
    let mut client = server.plain("").await;
    client.frame("session").await;
    let mut second = server.plain("").await;
    assert_eq!(second.closed().await, 4429);
    let mut third = server.plain("?session=spl-alice-aaaaaaaaaaaaaaaaaaaaaaaaaa").await;
    assert_eq!(third.frame("error").await["code"], "no_session");
    assert_eq!(third.closed().await, 4404);
    loop {
        if client.frame("notice").await["kind"] == "idle_warning" {
            break;
        }
    }
    assert_eq!(client.closed().await, 4408);
}

/// Prints numbered lines, over 4 MB of them, once it is told to, and waits for its end.
const LARGE: &str = "read go; i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo \"line $i of many, and each of \
                     them is about as long as a line of a log is\"; done; echo the-end; read x";

/// The first line that is missing.
fn first_gap(seen: &str) -> Option<usize> {
    let mut next = 1;
    for line in seen.lines() {
        let number = line.split_once("line ").and_then(|(_, rest)| rest.split(' ').next());
        if number.and_then(|number| number.parse().ok()) == Some(next) {
            next += 1;
        }
    }
    (next <= 60_000).then_some(next)
}

#[tokio::test]
async fn a_client_that_is_alone_misses_nothing_of_a_large_output() {
    misses_nothing(512 << 10).await;
}

#[tokio::test]
async fn a_small_log_paces_a_program_sooner() {
    misses_nothing(128 << 10).await;
}

async fn misses_nothing(log_bytes: usize) {
    let server = server_with(|policy| policy.log_bytes(log_bytes), |server| server).await;
    let mut client = server.plain("").await;
    client.frame("session").await;
    client.send(script(LARGE)).await;
    // What is printed before a client is there is kept as far as the log goes.
    client.frame("session").await;
    client.send(json!({"type": "input", "data": "go\n"})).await;
    let mut seen = String::new();
    while !seen.contains("the-end") {
        // It reads by and by, and the program waits for it.
        if let Came::Frame(frame) = client.next().await {
            assert_ne!(frame["kind"], "resynced", "after {} bytes", seen.len());
            if frame["type"] == "output" {
                seen += frame["data"].as_str().expect("text");
            }
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(first_gap(&seen), None);
}

#[tokio::test]
async fn a_client_that_is_alone_and_reads_nothing_does_not_hold_the_program_for_ever() {
    // It is not taken for gone meanwhile.
    let ping = std::time::Duration::from_secs(120);
    let server =
        server_with(|policy| policy.log_bytes(512 << 10), |server| server.ping_every(ping)).await;
    let mut client = server.plain("").await;
    client.frame("session").await;
    // More than the sockets hold; then the program ends.
    client
        .send(script("echo re''ady; read go; head -c 16000000 /dev/zero | tr '\\0' x; exit 5"))
        .await;
    client.until("ready").await;
    client.send(json!({"type": "input", "data": "\n"})).await;
    let begun = tokio::time::Instant::now();
    let ended = async {
        while !server
            .engine
            .sessions()
            .list(&server.alice)
            .iter()
            .any(|session| session.exit.is_some())
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, ended).await.expect("ten seconds are the most that it waits");
    assert!(begun.elapsed() >= std::time::Duration::from_secs(9), "it was not waited for");
    // It comes back to the screen, and hears that it missed something.
    while client.frame("notice").await["kind"] != "resynced" {}
    assert_eq!(client.frame("exit").await["exitCode"], 5);
}

#[tokio::test]
async fn a_client_that_is_not_alone_slows_nobody() {
    // Whatever else this machine does.
    let mut tries = 0..3;
    loop {
        let (beside, alone) = beside_an_idle_one_and_alone().await;
        // It would have been waited for ten seconds, or again and again.
        if beside < alone * 3 + std::time::Duration::from_secs(5) {
            return;
        }
        assert!(tries.next().is_some(), "{beside:?}, alone {alone:?}");
    }
}

/// How long a large output takes.
async fn beside_an_idle_one_and_alone() -> (std::time::Duration, std::time::Duration) {
    let server = server_with(|policy| policy.log_bytes(128 << 10), |server| server).await;
    let mut idle = server.plain("").await;
    let id = idle.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
    idle.send(json!({"type": "input", "data": "stty -echo\n"})).await;
    let mut other = server.plain(&format!("?session={id}")).await;
    other.frame("session").await;
    // The first, which is in control, reads nothing more, and its socket is full at some time.
    let command = "head -c 16000000 /dev/zero | tr '\\0' x; echo; echo the-''end\n";
    let mut run = async || {
        let begun = tokio::time::Instant::now();
        other.send(json!({"type": "input", "data": command})).await;
        other.until("the-end").await;
        begun.elapsed()
    };
    let beside = run().await;
    drop(idle);
    let alone = run().await;
    (beside, alone)
}

#[tokio::test]
async fn a_terminal_that_a_program_left_behind_is_reset() {
    let server = server().await;
    let mut client = server.plain("").await;
    let id = client.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
    let leave = "printf '\\033[?1003h\\033[?1006h\\033[?1049h'; echo le''ft\n";
    client.send(json!({"type": "input", "data": leave})).await;
    client.until("left").await;
    let mut viewer = server.plain(&format!("?session={id}&access=view")).await;
    assert!(viewer.until("left").await.contains("\u{1b}[?1003h"));
    viewer.send(json!({"type": "reset"})).await;
    assert_eq!(viewer.frame("error").await["code"], "forbidden");
    client.send(json!({"type": "reset"})).await;
    client.until("\u{1b}[?1003l").await;
    viewer.until("\u{1b}[?1003l").await;
    let mut late = server.plain(&format!("?session={id}&access=view")).await;
    late.frame("session").await;
    let Came::Frame(screen) = late.next().await else { panic!("no frame") };
    let screen = screen["data"].as_str().expect("a screen");
    assert!(!screen.contains("\u{1b}[?1003h") && !screen.contains("\u{1b}[?1049h"), "{screen:?}");
}

#[tokio::test]
async fn a_program_is_told_the_colours_of_the_client_in_control() {
    let server = server().await;
    let mut client = server.plain("").await;
    let id = client.frame("session").await["sessionId"].as_str().expect("an id").to_owned();
    let ask = "stty raw -echo; printf '\\033]11;?\\033\\\\'; dd bs=1 count=25 2>/dev/null | \
               tr '\\033' '>'; stty sane; echo\n";
    let colors = |background: &str| json!({"type": "colors", "foreground": "#000000", "background": background});
    client.send(colors("#fcfcfd")).await;
    client.send(json!({"type": "input", "data": ask})).await;
    client.until(">]11;rgb:fcfc/fcfc/fdfd>").await;
    // One that only looks has no say, nor one that is not in control, until it is.
    let mut viewer = server.plain(&format!("?session={id}&access=view")).await;
    viewer.send(colors("#111111")).await;
    viewer.send(colors("black")).await;
    assert_eq!(viewer.frame("error").await["code"], "invalid", "the one before is done, too");
    let mut other = server.plain(&format!("?session={id}")).await;
    other.send(colors("#222222")).await;
    other.send(json!({"type": "input", "data": ask})).await;
    client.until(">]11;rgb:fcfc/fcfc/fdfd>").await;
    other.send(json!({"type": "control", "op": "take"})).await;
    other.send(json!({"type": "input", "data": ask})).await;
    client.until(">]11;rgb:2222/2222/2222>").await;
}

#[tokio::test]
async fn of_large_frames_only_what_is_known_takes_memory() {
    let server = server().await;
    let mut client = server.plain("").await;
    client.frame("session").await;
    // Parsed into values, it would be too deep, and take a hundred times as much as here.
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    for text in [
        format!(r#"{{"type":"future","data":{deep}}}"#),
        format!(r#"{{"type":"resize","cols":100,"rows":30,"data":{deep}}}"#),
    ] {
        client.socket.send(Message::text(text)).await.expect("sent");
    }
    loop {
        match client.next().await {
            Came::Frame(frame) if frame["type"] == "session" && frame["cols"] == 100 => break,
            Came::Frame(frame) => assert_ne!(frame["type"], "error", "{frame}"),
            other => panic!("{other:?}"),
        }
    }
    // A pong repeats what a ping holds, so that there is not much of it.
    client.send(json!({"type": "ping", "t": "x".repeat(256)})).await;
    assert_eq!(client.frame("error").await["code"], "invalid");
    client.send(json!({"type": "ping", "t": "x".repeat(200)})).await;
    assert_eq!(client.frame("pong").await["t"], "x".repeat(200));
}
