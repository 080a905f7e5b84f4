//! Calls of one caller, however many connections they come on, and the memory of what they read.

use std::fs;
use std::time::Duration;

use splengine_core::batch::BatchPolicy;
use splengine_core::files::FilePolicy;
use splengine_core::store::MemoryStore;
use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::client::TestServer;
use crate::large_messages::{call, long, text};
use crate::shares::narrow;

const SHORT: Duration = Duration::from_millis(100);

fn engine() -> (TempDir, Engine) {
    let root = tempfile::tempdir().expect("a directory");
    let policy = BatchPolicy::new(MemoryStore::new(), root.path().join("batches"));
    let engine = Engine::builder(LocalExecutor::new(root.path()).expect("set up"));
    let engine = engine.batches(policy);
    let engine = engine.files(FilePolicy::new());
    (root, engine.build().expect("fine"))
}

/// Whom the server takes everybody for.
fn everybody() -> Caller {
    Caller::new("guest").expect("a name").with_all_scopes()
}

/// A call for what the step `s` has printed.
fn output(batch: &str, wait: i64) -> Vec<u8> {
    call("stepOutput", &[&text(batch), &text("s"), &[0], &long(0), &long(wait), &[0]])
}

#[tokio::test]
async fn a_caller_has_so_many_calls_worked_at_over_all_connections() {
    let (_root, engine) = engine();
    let silent = BatchRequest::new().step(Step::new("cat").id("s").open_stdin());
    let batches = engine.batches();
    let submitted = batches.submit(&everybody(), silent, None).await.expect("accepted");
    let waits = output(submitted.record.info.id.as_str(), 60_000);
    let server = TestServer::open_to(engine.clone(), |server| server).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.shake_hands().await;
    second.shake_hands().await;
    for serial in 1..=256 {
        first.send(serial, &waits).await;
    }
    // It needs no turn, and comes after them.
    let end = call("endSession", &[&text("none")]);
    first.send(300, &end).await;
    assert_eq!(first.answer().await.0, 300);

    let describe = call("describe", &[]);
    second.send(0, &describe).await;
    assert!(timeout(SHORT, second.stream.peek(&mut [0])).await.is_err());
    second.send(300, &end).await;
    assert_eq!(second.answer().await.0, 300);
    // So many wait that no more is read.
    for serial in 1..100 {
        second.send(serial, &describe).await;
    }
    second.send(301, &end).await;
    assert!(timeout(SHORT, second.stream.peek(&mut [0])).await.is_err());

    drop(first);
    let mut answered = Vec::new();
    for _ in 0..101 {
        let (serial, answer) = second.answer().await;
        assert!(serial == 301 || answer[..2] == [0, 0], "no error");
        answered.push(serial);
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..100).chain([301]).collect::<Vec<_>>());
    engine.kill();
}

#[tokio::test]
async fn what_is_read_for_answers_waits_for_memory() {
    // More than a socket takes in.
    const COUNT: u32 = 5;
    let (root, engine) = engine();
    let loud = BatchRequest::new().step(Step::new("head -c 1500000 /dev/zero").id("s"));
    let batches = engine.batches();
    let id = batches.submit(&everybody(), loud, None).await.expect("accepted").record.info.id;
    batches.wait_info(&everybody(), &id).await.expect("runs");
    fs::write(root.path().join("large"), vec![b'x'; 1 << 20]).expect("written");
    let of_file = call("readFile", &[&text("large"), &long(0), &long(1 << 20)]);
    for reads in [output(id.as_str(), 0), of_file] {
        // Of which a caller has half.
        let server = TestServer::open_to(engine.clone(), |server| {
            server.max_buffered(8 << 20).frame_timeout(Duration::from_secs(120))
        })
        .await;
        let mut second = server.connect().await;
        second.shake_hands().await;
        // Each of them keeps the memory of what is left of one answer, when its socket takes no more.
        let mut unread = Vec::new();
        for _ in 0..8 {
            unread.push(narrow(&server).await);
        }
        for client in &mut unread {
            for serial in 1..=COUNT {
                client.send(serial, &reads).await;
            }
        }
        let is_read = |answer: &[u8]| answer[..2] == [0, 0] && answer.len() > 1 << 20;
        // Until those that nobody reads take all of it.
        for round in 0.. {
            assert!(round < 1000, "they take no memory");
            second.send(0, &reads).await;
            if timeout(SHORT, second.stream.peek(&mut [0])).await.is_err() {
                break;
            }
            assert!(is_read(&second.answer().await.1), "it is refused");
        }
        // Each waits for memory that others hold.
        let mut reading = tokio::task::JoinSet::new();
        for mut client in unread {
            reading.spawn(async move {
                for _ in 0..COUNT {
                    assert!(is_read(&client.answer().await.1), "it is refused");
                }
            });
        }
        reading.join_all().await;
        assert!(is_read(&second.answer().await.1), "it is refused");
    }
}
