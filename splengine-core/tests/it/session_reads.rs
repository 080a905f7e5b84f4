//! What is read of saved sessions and recordings: how much at once, and of whom.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use splengine_core::auth::Access;
use splengine_core::quota::LargeWork;
use splengine_core::screen::Screen;
use splengine_core::session::{Attach, SavedInfo, ScreenShot, SessionPolicy, Update};
use splengine_core::terminal::Size;
use splengine_core::{Caller, Engine, ErrorKind, LocalExecutor, SessionError, SessionRequest};
use tokio::time::{Instant, timeout, timeout_at};

use crate::support::{caller, eventually};

fn engine(root: &Path, configure: impl FnOnce(SessionPolicy) -> SessionPolicy) -> Engine {
    let executor = LocalExecutor::new(root).expect("set up");
    let policy = SessionPolicy::new().store(root.join("sessions"));
    let engine = Engine::builder(executor).grace(Duration::from_millis(500));
    engine.sessions(configure(policy)).build().expect("built")
}

/// A session of `who` that has printed `words` by `script`.
async fn printed(engine: &Engine, who: &Caller, script: &str, words: &str) -> String {
    let request = SessionRequest::new().command("sh -c").arg(script);
    let session = engine.sessions().create(who, request).await.expect("starts");
    let id = session.id.to_string();
    for _ in 0..6000 {
        let screen = engine.sessions().screen(who, &id).await.expect("a screen");
        if screen.text().contains(words) {
            return id;
        }
        drop(screen);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{words:?} never came");
}

async fn saved(engine: &Engine, who: &Caller) -> SavedInfo {
    let id = printed(engine, who, "echo words; read x", "words").await;
    let saved = engine.sessions().save(who, &id, None).await.expect("saved");
    engine.sessions().end(who, &id).await.expect("ends");
    saved
}

async fn load(engine: &Engine, who: &Caller, saved: &SavedInfo) -> Result<String, SessionError> {
    let request = SessionRequest::new().command("cat").restore(saved.id.as_str());
    engine.sessions().create(who, request).await.map(|session| session.id.to_string())
}

fn file_of(root: &Path, saved: &SavedInfo) -> PathBuf {
    root.join("sessions/saved").join(saved.id.as_str())
}

fn own_limit(refused: &SessionError) -> bool {
    refused.kind() == ErrorKind::CallerLimit
        && refused.retry_after().is_some()
        && refused.to_string().contains("one caller may have at once; try again")
}

#[tokio::test]
async fn what_is_saved_is_told_and_removed_without_reading_its_screen() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let engine = engine(root.path(), |policy| policy);
    let sessions = engine.sessions();
    let one = saved(&engine, &alice).await;
    let path = file_of(root.path(), &one);
    // Whatever is read of it: not so much as its header is there.
    std::fs::write(&path, b"garbage").expect("written");
    let told = sessions.get_saved(&alice, &one.id).await.expect("is known");
    assert_eq!((&told.id, told.created, told.size), (&one.id, one.created, one.size));
    assert_eq!(sessions.list_saved(&alice).await.expect("listed").len(), 1);
    let refused = load(&engine, &alice, &one).await.expect_err("refused");
    assert!(matches!(refused, SessionError::Damaged(_)), "{refused:?}");
    sessions.remove_saved(&alice, &one.id).await.expect("removed");
    assert!(!path.exists());
    let missing = sessions.get_saved(&alice, &one.id).await.expect_err("is gone");
    assert!(matches!(missing, SessionError::NoSaved(_)), "{missing:?}");
    // One that somebody has removed by hand is gone, too.
    let other = saved(&engine, &alice).await;
    std::fs::remove_file(file_of(root.path(), &other)).expect("removed");
    let missing = sessions.get_saved(&alice, &other.id).await.expect_err("is gone");
    assert!(matches!(missing, SessionError::NoSaved(_)), "{missing:?}");
    assert!(sessions.list_saved(&alice).await.expect("listed").is_empty());
    engine.kill();
}

/// A disk that hangs under one caller's load keeps the loads of that caller only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_of_one_caller_wait_for_each_other_and_for_a_bounded_time() {
    let (root, alice, bob) =
        (tempfile::tempdir().expect("a directory"), caller("alice"), caller("bob"));
    let engine = engine(root.path(), |policy| policy.read_timeout(Duration::from_secs(1)));
    let (stuck, whole) = (saved(&engine, &alice).await, saved(&engine, &alice).await);
    let bobs = saved(&engine, &bob).await;
    let path = file_of(root.path(), &stuck);
    std::fs::remove_file(&path).expect("removed");
    // Whoever opens it to read waits for a writer.
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("runs");
    assert!(made.success());
    let loading = {
        let (engine, alice, stuck) = (engine.clone(), alice.clone(), stuck.clone());
        tokio::spawn(async move { load(&engine, &alice, &stuck).await })
    };
    // For all of it together.
    let until = Instant::now() + Duration::from_secs(30);
    let refused = timeout_at(until, async {
        // Until the first has its turn, others may have theirs.
        loop {
            match load(&engine, &alice, &whole).await {
                Ok(id) => engine.sessions().end(&alice, &id).await.expect("ends"),
                Err(refused) => return refused,
            }
        }
    })
    .await;
    // Nor does it matter how many of alice's wait.
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (engine, alice, whole) = (engine.clone(), alice.clone(), whole.clone());
            tokio::spawn(async move { load(&engine, &alice, &whole).await })
        })
        .collect();
    let of_bob = timeout_at(until, load(&engine, &bob, &bobs)).await;
    let mut all = Vec::new();
    for waiting in waiting {
        all.push(timeout_at(until, waiting).await);
    }
    // Lets go whoever waits, so that the test ends.
    drop(std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("opens"));
    let refused = refused.expect("in time");
    assert!(own_limit(&refused), "{refused}");
    of_bob.expect("in time").expect("is loaded");
    for one in all {
        let refused = one.expect("in time").expect("no panic").expect_err("refused");
        assert!(own_limit(&refused), "{refused}");
    }
    let damaged =
        timeout(Duration::from_secs(30), loading).await.expect("in time").expect("no panic");
    assert!(damaged.is_err());
    load(&engine, &alice, &whole).await.expect("is loaded");
    engine.kill();
}

/// Screens that are drawn on request take memory of their caller's share until they are dropped.
#[tokio::test]
async fn screens_are_refused_where_their_caller_has_no_memory_left() {
    let (root, alice, bob) =
        (tempfile::tempdir().expect("a directory"), caller("alice"), caller("bob"));
    // A share of 1 MiB, and one that goes beyond it.
    let small = |policy: SessionPolicy| {
        policy.max_read_bytes(2 << 20).read_timeout(Duration::from_millis(300))
    };
    let engine = engine(root.path(), small);
    let script = "awk 'BEGIN { for (r = 0; r < 23; r++) { for (c = 0; c < 78; c++) \
                  printf \"\\033[38;2;%d;%d;%dmx\", c + 100, r + 100, (c + r) % 250; \
                  printf \"\\r\\n\" } print \"words\"; fflush() }'; read x";
    let id = printed(&engine, &alice, script, "words").await;
    let of_bob = printed(&engine, &bob, "echo words; read x", "words").await;
    let sessions = engine.sessions();
    let (sessions, id) = (&sessions, &id[..]);
    let long = Duration::from_secs(1000);
    let now = async || sessions.screen(&alice, id).await;
    let then = async || sessions.screen_at(&alice, id, long).await;
    let fill = async || {
        let mut held = Vec::<ScreenShot>::new();
        loop {
            match if held.len().is_multiple_of(2) { now().await } else { then().await } {
                Ok(shot) => held.push(shot),
                Err(refused) => return (held, refused),
            }
            assert!(held.len() < 1000, "nothing is refused");
        }
    };
    let (held, refused) = fill().await;
    assert!(own_limit(&refused), "{refused}");
    assert!(own_limit(&then().await.expect_err("refused")));
    assert!(held.iter().all(|shot| shot.text() == held[0].text()));
    // It is felt by nobody else.
    sessions.screen(&bob, &of_bob).await.expect("a screen");
    sessions.screen_at(&bob, &of_bob, long).await.expect("a screen");
    let count = held.len();
    drop(held);
    // Nor is anything lost by whoever gives up, wherever that is.
    for wait in 0..40 {
        let _ = timeout(Duration::from_micros(wait * 250), then()).await;
        let _ = timeout(Duration::from_micros(wait * 250), now()).await;
    }
    let mut tries = 0;
    while fill().await.0.len() != count {
        tries += 1;
        assert!(tries < 20, "some of the memory is lost");
    }
    engine.kill();
}

/// One that takes much is not kept a second time for the life of the session.
#[tokio::test]
async fn a_large_screen_is_loaded_and_recorded_in_pieces() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let engine = engine(root.path(), |policy| policy.max_read_bytes(64 << 20));
    let sessions = engine.sessions();
    let script = "awk 'BEGIN { for (r = 0; r < 60; r++) { for (c = 0; c < 999; c++) \
                  printf \"\\033[38;2;%d;%d;%dmx\", c % 250, r, (c + r) % 250; printf \"\\r\\n\" } \
                  print \"words\"; fflush() }'; read x";
    let request = SessionRequest::new().command("sh -c").arg(script);
    let large = Size::clamped(1000, 500);
    let session = sessions.create(&alice, request.size(large)).await.expect("starts");
    let id = session.id.to_string();
    let screen = loop {
        let screen = sessions.screen(&alice, &id).await.expect("a screen");
        if screen.text().contains("words") {
            break screen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let one = sessions.save(&alice, &id, None).await.expect("saved");
    let length = std::fs::metadata(file_of(root.path(), &one)).expect("is there").len();
    assert!(length > 512 << 10, "{length}");
    let loaded = load(&engine, &alice, &one).await.expect("is loaded");
    // Who attaches from the start gets the screen as it is.
    let attach = Attach::new(Access::View).from_start();
    let mut attachment = sessions.attach(&alice, &loaded, attach).expect("attaches");
    let first = timeout(Duration::from_secs(60), attachment.next()).await.expect("in time");
    let Some(Update::Snapshot { size, data, .. }) = first else { panic!("{first:?}") };
    assert_eq!(size, large);
    let mut drawn = Screen::new(large.cols(), large.rows(), 300);
    drawn.feed(&data);
    assert!(drawn.text().starts_with(screen.text()) && drawn.text().contains("[restored]"));
    // Its recording begins with it, in events that players take.
    let recorded = || async {
        let long = Duration::from_secs(1000);
        sessions.screen_at(&alice, &loaded, long).await.expect("recorded").text().to_owned()
    };
    assert!(recorded().await.starts_with(screen.text()));
    let file = sessions.recording(&alice, &loaded).await.expect("recorded");
    let length = usize::try_from(file.length()).expect("fits");
    let mut text = Vec::new();
    while text.len() < length {
        text.extend(file.read(text.len() as u64, 1 << 20).await.expect("is read"));
    }
    let longest = text.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
    assert!(longest.is_some_and(|longest| longest < 512 << 10), "{longest:?}");
    engine.kill();
}

/// Seeking goes by the keyframes, which are passed and not read.
#[tokio::test]
async fn a_keyframe_that_is_not_needed_is_not_read() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let engine = engine(root.path(), |policy| policy);
    let script =
        "seq -f '%060g' 40000; echo words; read x; seq -f '%060g' 40000; echo last; read x";
    let id = printed(&engine, &alice, script, "words").await;
    let sessions = engine.sessions();
    let path = root.path().join("sessions").join(&id).join("keyframes");
    let count = || {
        let text = std::fs::read_to_string(&path).expect("reads");
        text.lines().filter(|line| line.ends_with("\"}")).count()
    };
    eventually("keyframes", || count() >= 4).await;
    let long = Duration::from_secs(1000);
    let whole = sessions.screen_at(&alice, &id, long).await.expect("a screen");
    assert!(whole.text().contains("words"));
    // Of all but the last nothing is left that could be read, by lines or as text.
    let text = std::fs::read_to_string(&path).expect("reads");
    let (text, rest) = text.split_at(text.rfind('\n').expect("a line") + 1);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let last = lines.len() - 1;
    for line in &mut lines[..last] {
        let begin = line.find("\"screen\":\"").expect("a screen") + "\"screen\":\"".len();
        let end = line.len() - "\"}".len();
        line.replace_range(begin..end, &"\"\n!!".repeat(end - begin)[..end - begin]);
    }
    let frame: serde_json::Value = serde_json::from_str(&lines[last]).expect("JSON");
    std::fs::write(&path, lines.join("\n") + "\n" + rest).expect("written");
    // Nor is the screen the same without it.
    let path = path.with_file_name("recording.cast");
    let text = std::fs::read_to_string(&path).expect("reads");
    let begin = text.find('\n').expect("a header") + 1;
    let end = usize::try_from(frame["offset"].as_u64().expect("a number")).expect("fits");
    let cast = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
    cast.write_all_at(&vec![b'x'; end - begin], begin as u64).expect("written");
    let again = sessions.screen_at(&alice, &id, long).await.expect("a screen");
    assert_eq!(again.text(), whole.text());
    engine.kill();
}

/// Others wait for a turn to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_to_work_on_much_has_no_turn_to_read() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let engine = engine(root.path(), |policy| policy.read_timeout(Duration::from_secs(1)));
    let one = saved(&engine, &alice).await;
    let permit = engine.large_work().permit(alice.user(), LargeWork::MIN_BYTES).await;
    let permit = permit.expect("nobody else works");
    let request = SessionRequest::new().command("cat").arg("x".repeat(LargeWork::MIN_BYTES));
    let request = request.restore(one.id.as_str());
    let mut waiting = {
        let (engine, alice) = (engine.clone(), alice.clone());
        tokio::spawn(async move { engine.sessions().create(&alice, request).await })
    };
    assert!(timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "has no permit");
    load(&engine, &alice, &one).await.expect("has a turn to read");
    drop(permit);
    let loaded = timeout(Duration::from_secs(60), waiting).await.expect("in time");
    loaded.expect("no panic").expect("is loaded");
    engine.kill();
}

#[tokio::test]
async fn times_may_be_longer_than_the_clock_has() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let engine = engine(root.path(), |policy| {
        policy.read_timeout(Duration::MAX).save_timeout(Duration::MAX)
    });
    let one = saved(&engine, &alice).await;
    let id = load(&engine, &alice, &one).await.expect("is loaded");
    engine.sessions().end(&alice, &id).await.expect("ends");
    engine.drain(Duration::MAX).await;
}
