//! Recordings of sessions are written apart from the runtime's workers.

use std::time::Duration;

use splengine_core::auth::Access;
use splengine_core::session::{Attach, SessionPolicy, Update};
use splengine_core::{Engine, ErrorKind, LocalExecutor, SessionError, SessionRequest};
use tokio::time::timeout;

use crate::support::caller;

/// Number of bytes that the calling thread has written to files, pipes and terminals.
fn written_by_this_thread() -> u64 {
    let counts = std::fs::read_to_string("/proc/thread-self/io").expect("Linux counts them");
    let count = counts.lines().find_map(|line| line.strip_prefix("wchar: "));
    count.expect("is counted").parse().expect("a number")
}

/// Where a disk is slow, whoever writes to it waits. The test's runtime has one worker: this thread.
#[tokio::test]
async fn no_worker_of_the_runtime_writes_recordings() {
    let (root, alice) = (tempfile::tempdir().expect("a directory"), caller("alice"));
    let policy = SessionPolicy::new().store(root.path().join("sessions"));
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).sessions(policy).build().expect("built");
    let sessions = engine.sessions();
    let before = written_by_this_thread();
    // Of more than 256 KiB there is a keyframe, too.
    let script = "yes 'some words that fill a line' | head -c 1000000; echo; echo over";
    let request = SessionRequest::new().command("sh -c").arg(script);
    let session = sessions.create(&alice, request).await.expect("starts");
    let id = session.id.as_str();
    let mut client = sessions.attach(&alice, id, Attach::new(Access::View)).expect("attaches");
    loop {
        let update = timeout(Duration::from_secs(60), client.next()).await.expect("in time");
        if let Some(Update::Exit(_)) = update {
            break;
        }
    }
    let recording = sessions.recording(&alice, id).await.expect("recorded");
    assert!(recording.length() > 1_000_000, "{}", recording.length());
    // What was printed last is in it.
    let end = recording.read(recording.length() - 1000, 1000).await.expect("is read");
    assert!(String::from_utf8_lossy(&end).contains("over"));
    let written = written_by_this_thread() - before;
    assert!(written < 100_000, "a worker has written {written} bytes");
    let keyframes = root.path().join("sessions").join(id).join("keyframes");
    assert!(std::fs::metadata(keyframes).expect("is there").len() > 1000);
}

/// Each takes a descriptor of the process for as long as its reader likes.
#[tokio::test]
async fn recordings_that_are_open_leave_some_to_other_callers() {
    let root = tempfile::tempdir().expect("a directory");
    let policy = SessionPolicy::new().store(root.path().join("sessions"));
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).sessions(policy).build().expect("built");
    let sessions = engine.sessions();
    let [alice, bob] = ["alice", "bob"].map(caller);
    let mut ids = Vec::new();
    for user in [&alice, &bob] {
        let request = SessionRequest::new().command("echo hello");
        let id = sessions.create(user, request).await.expect("starts").id;
        let mut client = sessions.attach(user, &id, Attach::new(Access::View)).expect("attaches");
        while client.next().await.is_some() {}
        ids.push(id);
    }
    let mut open = Vec::new();
    let refusal = loop {
        match sessions.recording(&alice, &ids[0]).await {
            Ok(recording) => open.push(recording),
            Err(refusal) => break refusal,
        }
        assert!(open.len() <= 256, "there is no bound");
    };
    assert!(matches!(refusal, SessionError::Busy(_)), "{refusal:?}");
    assert_eq!((open.len(), refusal.kind()), (128, ErrorKind::CallerLimit));
    sessions.recording(&bob, &ids[1]).await.expect("there is one for bob");
    // A copy of one is the same.
    let copy = open[0].clone();
    open.remove(0);
    sessions.recording(&alice, &ids[0]).await.expect_err("the copy is open");
    drop(copy);
    sessions.recording(&alice, &ids[0]).await.expect("one was closed");
}
