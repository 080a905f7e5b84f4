//! Recordings of sessions are written apart from the runtime's workers.

use std::time::Duration;

use splengine_core::auth::Access;
use splengine_core::session::{Attach, SessionPolicy, Update};
use splengine_core::{Engine, LocalExecutor, SessionRequest};
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
    let policy = SessionPolicy::new().store(root.path().join("sessions")).expect("writable");
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
