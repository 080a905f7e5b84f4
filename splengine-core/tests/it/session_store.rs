//! What is kept of sessions: whether it can be written, and what can't be read.

use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use splengine_core::auth::Access;
use splengine_core::engine::PartState;
use splengine_core::ids::SessionId;
use splengine_core::session::{SessionPolicy, SessionState};
use splengine_core::{Caller, Engine, ErrorKind, LocalExecutor, SessionError, SessionRequest};
use tokio::time::Instant;

use crate::support::{caller, eventually};

fn engine(root: &Path) -> Engine {
    let executor = LocalExecutor::new(root).expect("set up");
    let policy = SessionPolicy::new().store(root.join("sessions"));
    let engine = Engine::builder(executor).grace(Duration::from_millis(500));
    engine.sessions(policy).build().expect("built")
}

async fn state(engine: &Engine) -> PartState {
    let readiness = engine.readiness().await;
    let (_, state) = readiness.parts().iter().find(|(part, _)| *part == "sessions").expect("on");
    assert_eq!(readiness.is_ready(), !matches!(state, PartState::Failing { .. }));
    *state
}

/// Until the state is one of those that are wanted.
async fn until(engine: &Engine, is: impl Fn(PartState) -> bool) -> PartState {
    let begun = Instant::now();
    loop {
        let state = state(engine).await;
        if is(state) {
            return state;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "still {state:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn sessions_are_not_ready_while_their_store_can_not_be_written() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = engine(root.path());
    assert_eq!(state(&engine).await, PartState::Ready);
    let in_the_way = root.path().join("sessions/.probe");
    assert!(!in_the_way.exists(), "nothing is left of a look");
    // Nobody starts a session: it is found out by itself, and so is the end of it.
    std::fs::create_dir(&in_the_way).expect("made");
    let failing = until(&engine, |state| state != PartState::Ready).await;
    let PartState::Failing { reason } = failing else { panic!("{failing:?}") };
    assert_eq!(reason, "what is kept of sessions can't be written");
    std::fs::remove_dir(&in_the_way).expect("removed");
    until(&engine, |state| state == PartState::Ready).await;
    std::fs::remove_dir_all(root.path().join("sessions")).expect("removed");
    until(&engine, |state| state != PartState::Ready).await;
}

/// What an engine below `root` would find of a session that one before it was killed with; its id.
async fn left(root: &Path, alice: &Caller) -> String {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let engine = engine(elsewhere.path());
    let request = SessionRequest::new().command("cat");
    let session = engine.sessions().create(alice, request).await.expect("starts");
    let id = session.id.to_string();
    let state = Path::new("sessions").join(&id).join("state");
    eventually("it is kept", || elsewhere.path().join(&state).exists()).await;
    let kept = std::fs::read(elsewhere.path().join(&state)).expect("reads");
    engine.kill();
    let state = root.join(state);
    std::fs::create_dir_all(state.parent().expect("a directory")).expect("made");
    std::fs::write(state, kept).expect("written");
    id
}

#[tokio::test]
async fn what_can_not_be_read_of_sessions_is_set_aside_and_told_of() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let sessions = root.path().join("sessions");
    let ids = [left(root.path(), &alice).await, left(root.path(), &alice).await];
    let [whole, broken] = &ids;
    let path = sessions.join(broken).join("state");
    let mut garbled = std::fs::read(&path).expect("reads");
    let last = garbled.len() - 1;
    garbled[last] ^= 1;
    std::fs::write(&path, &garbled).expect("written");
    let next = engine(root.path());
    let degraded = state(&next).await;
    let PartState::Degraded { reason } = degraded else { panic!("{degraded:?}") };
    assert!(reason.contains("can't be read") && !reason.contains("alice"), "{reason}");
    let known = next.sessions().get(&alice, whole).expect("is there");
    assert_eq!(known.state, SessionState::Lost);
    let missing = next.sessions().get(&alice, broken).expect_err("can't be read");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let aside = sessions.join("damaged").join(broken);
    assert_eq!(std::fs::read(aside.join("state")).expect("kept"), garbled);
    drop(next);
    // Until somebody takes it away.
    let next = engine(root.path());
    assert!(matches!(state(&next).await, PartState::Degraded { .. }));
    assert_eq!(std::fs::read(aside.join("state")).expect("kept"), garbled);
    drop(next);
    std::fs::remove_dir_all(&aside).expect("removed");
    assert_eq!(state(&engine(root.path())).await, PartState::Ready);
}

#[tokio::test]
async fn what_a_later_version_has_written_of_a_session_stays_where_it_is() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let id = left(root.path(), &alice).await;
    let path = root.path().join("sessions").join(&id).join("state");
    let kept = String::from_utf8_lossy(&std::fs::read(&path).expect("reads")).into_owned();
    let newer = kept.replacen("\"version\":1", "\"version\":9", 1);
    assert_ne!(kept, newer);
    std::fs::write(&path, &newer).expect("written");
    let next = engine(root.path());
    assert!(matches!(state(&next).await, PartState::Degraded { .. }));
    assert_eq!(std::fs::read_to_string(&path).expect("is there"), newer);
}

#[tokio::test]
async fn a_saved_session_that_can_not_be_read_is_told_of() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let elsewhere = tempfile::tempdir().expect("a directory");
    let first = engine(elsewhere.path());
    let request = SessionRequest::new().command("cat");
    let session = first.sessions().create(&alice, request).await.expect("starts");
    let saved = first.sessions().save(&alice, &session.id, None).await.expect("saved");
    first.kill();
    let place = |root: &Path| root.join("sessions/saved").join(saved.id.as_str());
    let kept = std::fs::read(place(elsewhere.path())).expect("reads");
    let cut = &kept[..kept.len() - 1];
    for (content, is_whole) in [(&kept[..], true), (b"garbage", false), (cut, false)] {
        let root = tempfile::tempdir_in(root.path()).expect("a directory");
        std::fs::create_dir_all(root.path().join("sessions/saved")).expect("made");
        std::fs::write(place(root.path()), content).expect("written");
        let next = engine(root.path());
        assert_eq!(state(&next).await == PartState::Ready, is_whole);
        assert_eq!(matches!(state(&next).await, PartState::Degraded { .. }), !is_whole);
        assert_eq!(std::fs::read(place(root.path())).expect("is there"), content);
    }
}

/// However large it is, it is read when it is asked for and not when the engine starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_screen_of_a_saved_session_is_looked_at_when_it_is_loaded() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let first = engine(root.path());
    let request = SessionRequest::new().command("cat");
    let session = first.sessions().create(&alice, request).await.expect("starts");
    let saved = first.sessions().save(&alice, &session.id, None).await.expect("saved").id;
    first.kill();
    drop(first);
    let path = root.path().join("sessions/saved").join(saved.as_str());
    let mut content = std::fs::read(&path).expect("reads");
    *content.last_mut().expect("a screen") ^= 1;
    std::fs::write(&path, content).expect("written");
    let next = engine(root.path());
    assert!(matches!(state(&next).await, PartState::Ready));
    assert_eq!(next.sessions().list_saved(&alice).await.expect("listed").len(), 1);
    let request = SessionRequest::new().restore(saved.as_str());
    let refused = next.sessions().create(&alice, request).await.expect_err("refused");
    assert!(matches!(refused, SessionError::Damaged(_)), "{refused:?}");
}

/// One caller's shares and tickets have bounds of their own, and take nothing of another's.
#[tokio::test]
async fn shares_and_tickets_are_bounded_for_each_caller() {
    let (root, alice, bob) =
        (tempfile::tempdir().expect("a directory"), caller("alice"), caller("bob"));
    let engine = engine(root.path());
    let sessions = engine.sessions();
    let start = async |who: &Caller| {
        let request = SessionRequest::new().command("cat");
        sessions.create(who, request).await.expect("starts").id.to_string()
    };
    let bobs = start(&bob).await;
    let hour = Duration::from_secs(3600);
    let (bobs_share, bobs_ticket) =
        sessions.share(&bob, &bobs, Access::View, hour).expect("shared");
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(start(&alice).await);
    }
    let share = |session: &str| sessions.share(&alice, session, Access::View, hour);
    let limit = |refused: SessionError| match refused {
        SessionError::CallerLimit { what, limit } => (what, limit),
        other => panic!("{other:?}"),
    };
    for session in &all[..4] {
        for _ in 0..64 {
            let (_, ticket) = share(session).expect("shared");
            sessions.redeem(&ticket).expect("valid");
        }
        assert_eq!(limit(share(session).expect_err("refused")), ("shares of one session", 64));
    }
    assert_eq!(limit(share(&all[4]).expect_err("refused")), ("shares", 256));
    for _ in 0..256 {
        sessions.ticket(&alice).expect("given");
    }
    let refused = sessions.ticket(&alice).expect_err("refused");
    assert_eq!(limit(refused), ("tickets that are not used", 256));
    // None of it is felt by anybody else.
    assert_eq!(sessions.list_shares(&bob, &bobs).expect("listed")[0].id, bobs_share.id);
    sessions.redeem(&bobs_ticket).expect("valid");
    sessions.share(&bob, &bobs, Access::Control, hour).expect("shared");
    sessions.redeem(&sessions.ticket(&bob).expect("given")).expect("valid");
    engine.kill();
}

async fn session_of(engine: &Engine, who: &Caller) -> String {
    let request = SessionRequest::new().command("cat");
    engine.sessions().create(who, request).await.expect("starts").id.to_string()
}

/// What is saved of others may be large, or on a disk that hangs: it is not opened.
#[tokio::test]
async fn saving_and_listing_open_no_files_of_others() {
    let (root, alice, bob) =
        (tempfile::tempdir().expect("a directory"), caller("alice"), caller("bob"));
    let engine = engine(root.path());
    let sessions = engine.sessions();
    let (alices, bobs) = (session_of(&engine, &alice).await, session_of(&engine, &bob).await);
    let saved = sessions.save(&alice, &alices, None).await.expect("saved");
    let path = root.path().join("sessions/saved").join(saved.id.as_str());
    std::fs::remove_file(&path).expect("removed");
    // Whoever opens it to read waits for a writer.
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("runs");
    assert!(made.success());
    // Lets go whoever waits, so that the test ends, also where that is the thread of its runtime.
    let (is_over, over) = std::sync::mpsc::channel::<()>();
    let opened = path.clone();
    let guard = std::thread::spawn(move || {
        let is_over = over.recv_timeout(Duration::from_secs(60)).is_ok();
        let writer = std::fs::OpenOptions::new().read(true).write(true).open(&opened);
        if !is_over {
            // Nobody else waits.
            std::fs::remove_file(&opened).expect("removed");
        }
        drop(writer.expect("opens"));
        is_over
    });
    {
        let kept = sessions.save(&bob, &bobs, None).await.expect("saved");
        let listed = sessions.list_saved(&bob).await.expect("listed");
        assert_eq!(listed.iter().map(|one| &one.id).collect::<Vec<_>>(), [&kept.id]);
        let refused = sessions.get_saved(&bob, &saved.id).await.expect_err("is alice's");
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        let refused = sessions.remove_saved(&bob, &saved.id).await.expect_err("is alice's");
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        sessions.remove_saved(&bob, &kept.id).await.expect("removed");
        assert!(sessions.list_saved(&bob).await.expect("listed").is_empty());
    }
    let _ = is_over.send(());
    assert!(guard.join().expect("no panic"), "somebody waited for alice's file");
    assert_eq!(sessions.list_saved(&alice).await.expect("listed").len(), 1);
    engine.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saves_at_once_come_to_the_bound_and_no_further() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let first = engine(root.path());
    let id = session_of(&first, &alice).await;
    let save = |engine: &Engine| {
        let (sessions, alice, id) = (engine.sessions(), alice.clone(), id.clone());
        tokio::spawn(async move { sessions.save(&alice, &id, None).await })
    };
    let saves: Vec<_> = (0..280).map(|_| save(&first)).collect();
    let mut saved = Vec::new();
    for save in saves {
        match save.await.expect("no panic") {
            Ok(one) => saved.push(one.id),
            Err(SessionError::CallerLimit { what: "saved sessions", limit: 256 }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(saved.len(), 256);
    let on_disk = || std::fs::read_dir(root.path().join("sessions/saved")).expect("reads").count();
    assert_eq!(on_disk(), 256);
    let sessions = first.sessions();
    assert_eq!(sessions.list_saved(&alice).await.expect("listed").len(), 256);
    sessions.remove_saved(&alice, saved[0].as_str()).await.expect("removed");
    save(&first).await.expect("no panic").expect("has room");
    assert_eq!(on_disk(), 256);
    drop(sessions);
    first.kill();
    drop(first);
    // The next engine knows them, too.
    let next = engine(root.path());
    let id = session_of(&next, &alice).await;
    assert_eq!(next.sessions().list_saved(&alice).await.expect("listed").len(), 256);
    let refused = next.sessions().save(&alice, &id, None).await.expect_err("refused");
    assert!(matches!(refused, SessionError::CallerLimit { .. }), "{refused:?}");
    next.kill();
}

/// Leaves a copy of the lost session `id`, of which something was heard so many milliseconds later.
fn copy_lost(root: &Path, id: &str, later: u64) -> String {
    let sessions = root.join("sessions");
    let state = std::fs::read(sessions.join(id).join("state")).expect("reads");
    let [header, record, screen] = state
        .splitn(3, |byte| *byte == b'\n')
        .collect::<Vec<_>>()
        .try_into()
        .expect("a header, a record and a screen");
    let copy = SessionId::new(&"alice".parse().expect("a name"));
    let mut header: serde_json::Value = serde_json::from_slice(header).expect("JSON");
    let mut record: serde_json::Value = serde_json::from_slice(record).expect("JSON");
    record["sessionId"] = copy.as_str().into();
    record["lastActivity"] = (record["lastActivity"].as_u64().expect("a time") + later).into();
    let body = [record.to_string().as_bytes(), b"\n", screen].concat();
    header["length"] = body.len().into();
    let digest = Sha256::digest(&body);
    header["sha256"] = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    let whole = [header.to_string().as_bytes(), b"\n", &body].concat();
    std::fs::create_dir(sessions.join(copy.as_str())).expect("made");
    std::fs::write(sessions.join(copy.as_str()).join("state"), whole).expect("written");
    copy.to_string()
}

#[tokio::test]
async fn one_callers_lost_sessions_push_out_none_of_others() {
    let root = tempfile::tempdir().expect("a directory");
    let (alice, bob) = (caller("alice"), caller("bob"));
    // Before all of alice's.
    let bobs = [left(root.path(), &bob).await, left(root.path(), &bob).await];
    let mut alices = vec![left(root.path(), &alice).await];
    for number in 1..280 {
        alices.push(copy_lost(root.path(), &alices[0], number));
    }
    let path = |id: &String| root.path().join("sessions").join(id);
    let engine = engine(root.path());
    let sessions = engine.sessions();
    // Until it is known which of them are gone on with, all are there.
    assert_eq!(sessions.list(&alice).len(), 280);
    engine.resume().await;
    assert_eq!(sessions.list(&bob).len(), 2);
    assert_eq!(sessions.list(&alice).len(), 254);
    let (gone, kept) = alices.split_at(280 - 254);
    for id in gone {
        assert!(sessions.get(&alice, id).is_err(), "the oldest go");
    }
    eventually("their files are removed", || !gone.iter().any(|id| path(id).exists())).await;
    assert!(kept.iter().chain(&bobs).all(|id| path(id).exists()));
    drop((sessions, engine));
}

#[tokio::test]
async fn lost_sessions_beyond_the_bound_go_for_the_first_that_is_started() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let oldest = left(root.path(), &alice).await;
    for number in 1..=256 {
        copy_lost(root.path(), &oldest, number);
    }
    let engine = engine(root.path());
    let known = engine.sessions().get(&alice, &oldest).expect("is there");
    assert_eq!(known.state, SessionState::Lost);
    session_of(&engine, &alice).await;
    assert_eq!(engine.sessions().list(&alice).len(), 256 + 1);
    let path = root.path().join("sessions").join(&oldest);
    eventually("its files are removed", || !path.exists()).await;
    engine.kill();
}
