//! Screens of sessions: their memory is bounded, of each caller and of all.

use std::time::Duration;

use splengine_core::auth::Access;
use splengine_core::quota::MemoryError;
use splengine_core::session::{
    Attach, Attachment, Closed, Notice, SessionPolicy, SessionState, Update,
};
use splengine_core::terminal::Size;
use splengine_core::{Engine, ErrorKind, LocalExecutor, SessionError, SessionRequest};
use tokio::time::timeout;

use crate::support::caller;

fn engine(root: &std::path::Path, max_screen_bytes: usize) -> Engine {
    let executor = LocalExecutor::new(root).expect("set up");
    Engine::builder(executor)
        .grace(Duration::from_millis(500))
        .sessions(SessionPolicy::new().max_screen_bytes(max_screen_bytes))
        .build()
        .expect("built")
}

fn quiet(size: Size) -> SessionRequest {
    SessionRequest::new().command("cat").size(size)
}

fn script(text: &str, size: Size) -> SessionRequest {
    SessionRequest::new().command("sh -c").arg(text).size(size)
}

async fn made(
    engine: &Engine,
    user: &str,
    request: SessionRequest,
) -> Result<String, SessionError> {
    let made = engine.sessions().create(&caller(user), request).await?;
    Ok(made.id.as_str().to_owned())
}

/// The same, in memory that a session gives back whose last tasks may hold it for a moment.
async fn made_soon(engine: &Engine, user: &str, request: SessionRequest) -> String {
    let mut tries = 0..3000;
    loop {
        match made(engine, user, request.clone()).await {
            Ok(id) => return id,
            Err(refused) => assert!(tries.next().is_some(), "{refused}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ended(engine: &Engine, user: &str, id: &str) {
    let (sessions, user) = (engine.sessions(), caller(user));
    let mut client = sessions.attach(&user, id, Attach::new(Access::View)).expect("attaches");
    let exit = async { while !matches!(client.next().await.expect("more"), Update::Exit(_)) {} };
    timeout(PATIENCE, exit).await.expect("ends");
    let state = sessions.get(&user, id).expect("is there").state;
    assert_eq!(state, SessionState::Exited);
}

#[tokio::test]
async fn large_screens_are_refused_beyond_a_callers_part_and_small_ones_never() {
    let root = tempfile::tempdir().expect("a directory");
    // One of 1000 by 500 takes 20 MiB.
    let engine = engine(root.path(), 60 << 20);
    let first = made(&engine, "alice", quiet(Size::MAX)).await.expect("is within half");
    let refused = made(&engine, "alice", quiet(Size::MAX)).await.expect_err("is refused");
    assert_eq!(refused.kind(), ErrorKind::CallerLimit, "{refused}");
    let words = refused.to_string();
    assert!(words.contains("screens of your sessions may take 31457280 bytes"), "{words}");
    assert!(refused.retry_after().is_some());
    made(&engine, "bob", quiet(Size::MAX)).await.expect("as much is his");
    let refused = made(&engine, "carol", quiet(Size::MAX)).await.expect_err("is refused");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    let words = refused.to_string();
    assert!(words.contains("62914560 bytes of memory that this engine keeps"), "{words}");
    for user in ["alice", "carol"] {
        for _ in 0..3 {
            made(&engine, user, quiet(Size::clamped(200, 60))).await.expect("a small one");
        }
    }
    // What was refused has left nothing behind.
    assert_eq!(engine.sessions().list(&caller("carol")).len(), 3);
    engine.sessions().end(&caller("alice"), &first).await.expect("ends");
    made_soon(&engine, "carol", quiet(Size::MAX)).await;
}

#[tokio::test]
async fn a_terminal_keeps_its_size_where_there_is_no_memory_for_another() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = engine(root.path(), 60 << 20);
    let (sessions, alice) = (engine.sessions(), caller("alice"));
    let large = made(&engine, "alice", quiet(Size::MAX)).await.expect("is within half");
    let small = made(&engine, "alice", quiet(Size::default())).await.expect("a small one");
    let refused = sessions.resize(&alice, &small, Size::MAX).expect_err("is refused");
    assert_eq!(refused.kind(), ErrorKind::CallerLimit, "{refused}");
    let attach = Attach::new(Access::Control).window(Size::MAX);
    let mut client = sessions.attach(&alice, &small, attach).expect("attaches");
    let told = async {
        loop {
            match client.next().await.expect("more") {
                Update::Notice(Notice::SizeRefused { size, reason }) => break (size, reason),
                Update::Size(size) => panic!("it became {size:?}"),
                _ => {}
            }
        }
    };
    let (size, reason) = timeout(PATIENCE, told).await.expect("is told");
    assert_eq!(size, Size::MAX);
    assert!(reason.contains("screens of your sessions"), "{reason}");
    assert_eq!(sessions.get(&alice, &small).expect("is there").size, Size::default());
    sessions.end(&alice, &large).await.expect("ends");
    client.input_handle().resize(Size::MAX);
    let becomes = async { while client.next().await.expect("more") != Update::Size(Size::MAX) {} };
    timeout(PATIENCE, becomes).await.expect("there is memory now");
    // Nor has a size that is not shown any more memory.
    client.input_handle().resize(Size::default());
    let becomes =
        async { while client.next().await.expect("more") != Update::Size(Size::default()) {} };
    timeout(PATIENCE, becomes).await.expect("it is smaller again");
    sessions.screen(&alice, &small).await.expect("is drawn");
    made_soon(&engine, "alice", quiet(Size::MAX)).await;
}

/// Reads what [`LINES`] prints.
async fn printed(client: &mut Attachment) -> String {
    let mut output = String::new();
    let all = async {
        while !output.contains("line 1000") {
            if let Update::Output { data, .. } = client.next().await.expect("more") {
                output.push_str(std::str::from_utf8(&data).expect("ASCII"));
            }
        }
    };
    timeout(PATIENCE, all).await.expect("is printed");
    output
}

/// Prints 1000 numbered lines as wide as a screen of 400 columns.
const LINES: &str =
    r#"awk 'BEGIN { for (i = 1; i <= 1000; i++) printf "line %04d %389s\n", i, "x" }'"#;

#[tokio::test]
async fn lines_above_a_screen_go_where_there_is_no_memory_and_nothing_else() {
    let size = Size::clamped(400, 50);
    let mut kept = Vec::new();
    for max_screen_bytes in [128 << 20, 1 << 20] {
        let root = tempfile::tempdir().expect("a directory");
        let engine = engine(root.path(), max_screen_bytes);
        let id =
            made(&engine, "alice", script(&format!("{LINES}; cat"), size)).await.expect("runs");
        let (sessions, alice) = (engine.sessions(), caller("alice"));
        let mut client =
            sessions.attach(&alice, &id, Attach::new(Access::View).from_start()).expect("attaches");
        let output = printed(&mut client).await;
        // The log has all of it.
        assert!(output.starts_with("line 0001"), "{:?}", &output[..20]);
        let shot = sessions.screen(&alice, &id).await.expect("is drawn");
        let shown = shot.text().lines().filter(|line| line.starts_with("line ")).count();
        assert!(shown >= 49, "{shown}");
        let drawn = String::from_utf8_lossy(&shot.ansi()).matches("line ").count();
        kept.push(drawn - shown);
    }
    assert_eq!(kept[0], 300);
    assert!((1..100).contains(&kept[1]), "{kept:?}");
}

#[tokio::test]
async fn ended_sessions_make_place_for_others() {
    let root = tempfile::tempdir().expect("a directory");
    // Half of it is one screen, but not one beside another that is full.
    let engine = engine(root.path(), 44 << 20);
    let (sessions, alice) = (engine.sessions(), caller("alice"));
    let full = r"printf '\033[41m\033[2J\033[Hend'";
    let over = made(&engine, "alice", script(full, Size::MAX)).await.expect("runs");
    ended(&engine, "alice", &over).await;
    assert!(sessions.screen(&alice, &over).await.expect("is drawn").text().contains("end"));
    let next = made_soon(&engine, "alice", quiet(Size::MAX)).await;
    assert!(matches!(sessions.get(&alice, &over), Err(SessionError::NoSession(_))));
    // Where that would not help, it stays.
    let over = made(&engine, "alice", script("echo end", Size::default())).await.expect("runs");
    ended(&engine, "alice", &over).await;
    made(&engine, "alice", quiet(Size::MAX)).await.expect_err("is refused");
    assert!(sessions.get(&alice, &over).is_ok());
    sessions.end(&alice, &next).await.expect("ends");
}

#[tokio::test]
async fn the_screen_of_an_ended_session_takes_what_is_on_it() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = engine(root.path(), 44 << 20);
    let (sessions, alice) = (engine.sessions(), caller("alice"));
    // Nobody is told when it is counted as such: until then it goes where there is no memory.
    for _ in 0..100 {
        let over = made(&engine, "alice", script("echo end", Size::MAX)).await.expect("runs");
        ended(&engine, "alice", &over).await;
        let next = made_soon(&engine, "alice", quiet(Size::MAX)).await;
        let screen = sessions.screen(&alice, &over).await;
        sessions.end(&alice, &next).await.expect("ends");
        if let Ok(screen) = screen {
            assert_eq!(screen.text(), "end");
            return;
        }
    }
    panic!("it takes as much as if it were full");
}

#[tokio::test]
async fn ended_sessions_of_who_has_more_make_place_for_others_where_that_helps() {
    let root = tempfile::tempdir().expect("a directory");
    let alice = caller("alice");
    // A screen of the largest size takes 19 MiB, half of that when its session has ended. Nobody is
    // told when it is counted as such: until then it goes where there is no memory.
    let begun = async || {
        let engine = engine(root.path(), 99 << 20);
        let full = script(r"printf '\033[41m\033[2J\033[Hend'", Size::MAX);
        let over = made(&engine, "alice", full).await.expect("runs");
        ended(&engine, "alice", &over).await;
        for _ in 0..2 {
            made(&engine, "alice", quiet(Size::MAX)).await.expect("is within half");
        }
        let is_counted = engine.sessions().get(&alice, &over).is_ok();
        is_counted.then_some((engine, over))
    };
    let mut found = None;
    for _ in 0..100 {
        found = begun().await;
        if found.is_some() {
            break;
        }
    }
    let (engine, over) = found.expect("it takes half of what it took");
    let sessions = engine.sessions();
    made(&engine, "bob", quiet(Size::MAX)).await.expect("is within his part");
    // What runs is beyond her part already.
    let medium = Size::clamped(500, 250);
    let refused = made(&engine, "alice", quiet(medium)).await.expect_err("is refused");
    assert_eq!(refused.kind(), ErrorKind::CallerLimit, "{refused}");
    assert!(sessions.get(&alice, &over).is_ok(), "it is forgotten in vain");
    // What others have is in the way, and not what she has herself.
    made(&engine, "carol", quiet(medium)).await.expect("is within her part");
    let refused = made(&engine, "carol", quiet(Size::MAX)).await.expect_err("is refused");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(sessions.get(&alice, &over).is_ok(), "it is forgotten in vain");
    made_soon(&engine, "dora", quiet(Size::MAX)).await;
    assert!(matches!(sessions.get(&alice, &over), Err(SessionError::NoSession(_))));
}

#[tokio::test]
async fn lines_above_the_screen_of_an_ended_session_go_first() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = engine(root.path(), 8 << 20);
    let size = Size::clamped(400, 50);
    let (sessions, alice) = (engine.sessions(), caller("alice"));
    let over = made(&engine, "alice", script(LINES, size)).await.expect("runs");
    ended(&engine, "alice", &over).await;
    let lines = async |id: &str| {
        let shot = sessions.screen(&alice, id).await.expect("is drawn");
        String::from_utf8_lossy(&shot.ansi()).matches("line ").count()
    };
    assert_eq!(lines(&over).await, 349);
    // Nobody is told when the session that has ended is counted as such.
    for _ in 0..100 {
        let next = made(&engine, "alice", script(&format!("{LINES}; cat"), size)).await;
        let next = next.expect("runs");
        let mut client = sessions
            .attach(&alice, &next, Attach::new(Access::View).from_start())
            .expect("attaches");
        printed(&mut client).await;
        drop(client);
        let has_all = lines(&next).await == 349;
        sessions.end(&alice, &next).await.expect("ends");
        if has_all {
            assert_eq!(lines(&over).await, 49, "what was shown stays");
            return;
        }
    }
    panic!("the lines of the session that has ended stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn screens_that_nobody_reads_take_memory_of_the_owner_of_the_session() {
    /// Takes some 500 KiB to draw.
    const COLORED: &str = r#"awk 'BEGIN { for (i = 0; i < 60; i++) { for (j = 0; j < 200; j++)
        printf "\033[38;2;%d;%d;%d;48;2;%d;%d;%dmx", i, j, i * j % 256, j, i, i * j % 199; print "" }
        print "rea" "dy" }'; exec cat"#;
    let root = tempfile::tempdir().expect("a directory");
    // Snapshots take half as much, and of these one user's a half.
    let engine = engine(root.path(), 4 << 20);
    let sessions = engine.sessions();
    let mut ids = Vec::new();
    for (user, count) in [("alice", 6), ("bob", 1)] {
        for _ in 0..count {
            let id =
                made(&engine, user, script(COLORED, Size::clamped(200, 60))).await.expect("runs");
            let mut client = sessions
                .attach(&caller(user), &id, Attach::new(Access::View).from_start())
                .expect("attaches");
            let mut output = Vec::new();
            let all = async {
                while !output.ends_with(b"ready\r\n") {
                    if let Update::Output { data, .. } = client.next().await.expect("more") {
                        output.extend_from_slice(&data);
                    }
                }
            };
            timeout(PATIENCE, all).await.expect("is printed");
            ids.push((user, id));
        }
    }
    let told = async |user: &str, id: &str| {
        let attached = sessions.attach(&caller(user), id, Attach::new(Access::View));
        let mut client = attached.expect("attaches");
        let first = timeout(PATIENCE, client.next()).await.expect("in time").expect("an update");
        (client, first)
    };
    let mut held = Vec::new();
    let mut shortage = None;
    for (user, id) in ids.iter().filter(|(user, _)| *user == "alice") {
        match told(user, id).await {
            (client, Update::Snapshot { data, .. }) => {
                assert!(data.len() > 400 << 10, "{}", data.len());
                held.push((client, data));
            }
            (mut client, Update::Closed(Closed::Memory(error))) => {
                assert_eq!(client.next().await, None);
                shortage = Some((error, id));
                break;
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    let (error, last) = shortage.expect("there is an end of it");
    assert_eq!(error, MemoryError::CallerLimit);
    assert!((2..=4).contains(&held.len()), "{}", held.len());
    // Another client of the same session shares what is drawn.
    for _ in 0..20 {
        let (client, first) = told("alice", &ids[0].1).await;
        let Update::Snapshot { data, .. } = first else { panic!("{first:?}") };
        assert_eq!(data.as_ptr(), held[0].1.as_ptr());
        held.push((client, data));
    }
    let (user, id) = ids.last().expect("bob's");
    assert!(matches!(told(user, id).await.1, Update::Snapshot { .. }), "others have theirs");
    held.clear();
    let mut tries = 0..3000;
    while !matches!(told("alice", last).await.1, Update::Snapshot { .. }) {
        tries.next().expect("there is memory again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// For a machine that is busy with other things as well.
const PATIENCE: Duration = Duration::from_secs(60);
