//! Messages that take time to be read.

use std::time::Duration;

use splengine_core::batch::{BatchEventKind, BatchPolicy};
use splengine_core::quota::LargeWork;
use splengine_core::session::SessionPolicy;
use splengine_core::store::MemoryStore;
use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::TestServer;
use crate::sharing::is_shared;

/// A number, or the length of a text.
pub(crate) fn long(number: i64) -> Vec<u8> {
    let mut left = number.cast_unsigned() << 1;
    let mut bytes = Vec::new();
    while left >= 0x80 {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&long(text.len() as i64)[..], text.as_bytes()].concat()
}

/// A call without metadata.
pub(crate) fn call(message: &str, parameters: &[&[u8]]) -> Vec<u8> {
    [&[0], &text(message)[..], &parameters.concat()].concat()
}

/// Calls with many arguments, each with an error that is found once it was read, and what is told of that.
fn calls() -> Vec<(Vec<u8>, &'static str)> {
    let count = 100_000;
    let args = [&long(count)[..], &text("argument").repeat(count as usize), &[0]].concat();
    let (quote, none) = (text("'"), [0]);
    // One step, with what is the default of all other fields.
    let step = [&[2][..], &text("true"), &args, &[0; 21], &[0]].concat();
    let no_time = [2, 0];
    vec![
        (call("execute", &[&quote, &args, &none, &none]), "single quote"),
        (call("openSession", &[&[2], &quote, &args, &[0; 5]]), "single quote"),
        (call("submitBatch", &[&step, &[0; 7], &no_time]), "`timeout` must be"),
        (call("executeBatch", &[&[2], &text("true"), &args, &[0; 3], &[0; 7]]), "parallelism"),
    ]
}

fn engine() -> (tempfile::TempDir, Engine) {
    let root = tempfile::tempdir().expect("a directory");
    let policy = BatchPolicy::new(MemoryStore::new(), root.path().join("batches"));
    let engine = Engine::builder(LocalExecutor::new(root.path()).expect("set up"));
    let engine = engine.batches(policy).build().expect("fine");
    (root, engine)
}

#[tokio::test]
async fn while_a_large_message_is_read_others_are_served() {
    let (_root, engine) = engine();
    let server = TestServer::open_to(engine, |server| server).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    for (call, told) in calls() {
        let mut refused = async || {
            client.send(1, &call).await;
            let (_, answer) = client.answer().await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains(told), "{answer}");
        };
        // Whatever else this machine does.
        let mut tries = 0..20;
        while !is_shared(refused(), 4).await {
            assert!(tries.next().is_some(), "{told}");
        }
    }
}

#[tokio::test]
async fn while_a_large_record_is_written_others_are_served() {
    let (_root, engine) = engine();
    // Whom the server takes everybody for.
    let everybody = Caller::new("guest").expect("a name").with_all_scopes();
    let request = BatchRequest::new().step(Step::new("true").args(vec!["a"; 100_000]));
    let batches = engine.batches();
    let id = batches.submit(&everybody, request, None).await.expect("accepted").record.info.id;
    batches.wait_info(&everybody, &id).await.expect("runs");
    let server = TestServer::open_to(engine, |server| server).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    let get = call("getBatch", &[&text(id.as_str())]);
    let mut told = async || {
        client.send(1, &get).await;
        assert_eq!(client.answer().await.1[..2], [0, 0], "no error");
    };
    // Whatever else this machine does: to write it is a small part of all that is done.
    let mut tries = 0..100;
    while !is_shared(told(), 25).await {
        assert!(tries.next().is_some());
    }
}

#[tokio::test]
async fn a_list_waits_for_the_turn_of_its_caller() {
    let root = tempfile::tempdir().expect("a directory");
    let batches = BatchPolicy::new(MemoryStore::new(), root.path().join("batches"));
    let sessions = SessionPolicy::new().store(root.path().join("sessions"));
    let engine = Engine::builder(LocalExecutor::new(root.path()).expect("set up"))
        .batches(batches)
        .sessions(sessions);
    let engine = engine.build().expect("fine");
    let server = TestServer::open_to(engine.clone(), |server| server).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    // Whom the server takes everybody for.
    let everybody = Caller::new("guest").expect("a name").with_all_scopes();
    let work = engine.large_work();
    let permit = || work.permit(everybody.user(), LargeWork::MAX_PAGE_BYTES);
    // Of any state, 50 of them, from the first on, of any name and with any labels.
    let (of_batches, none): (&[u8], &[u8]) = (&[0, 100, 0, 0, 0], &[]);
    for (message, parameters) in
        [("listBatches", of_batches), ("listSessions", none), ("listSavedSessions", none)]
    {
        let held = permit().await.expect("their turn");
        client.send(1, &call(message, &[parameters])).await;
        let waits = timeout(Duration::from_millis(100), client.stream.peek(&mut [0])).await;
        assert!(waits.is_err(), "{message}");
        drop(held);
        assert_eq!(client.answer().await.1[..2], [0, 0], "{message}");
        let next = timeout(Duration::from_secs(60), permit()).await;
        next.expect("at once").expect("their turn");
    }
}

#[tokio::test]
async fn a_page_of_events_with_long_arguments_ends_early() {
    let (_root, engine) = engine();
    // Whom the server takes everybody for.
    let everybody = Caller::new("guest").expect("a name").with_all_scopes();
    // Each run is told with its 400 KB of arguments.
    let step = Step::new("false").args(vec!["a".repeat(100_000); 4]);
    let step = step.retries(5).retry_delay(Duration::from_millis(1));
    let batches = engine.batches();
    let submitted = batches.submit(&everybody, BatchRequest::new().step(step), None).await;
    let id = submitted.expect("accepted").record.info.id;
    let last = batches.wait_info(&everybody, &id).await.expect("ends").last_event;
    let server = TestServer::open_to(engine, |server| server).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    let (mut after, mut pages, mut all) = (0, 0, 0);
    loop {
        let wait = long(10_000);
        client.send(1, &call("batchEvents", &[&text(id.as_str()), &long(after), &wait])).await;
        let answer = client.answer().await.1;
        assert_eq!(answer[..2], [0, 0], "no error");
        // Three runs are more than 1 MiB; what follows the last three is a page of its own.
        assert!(answer.len() < 1_300_000, "{}", answer.len());
        let [.., next, over] = answer[..] else { panic!("a page ends with these") };
        (after, pages, all) = (i64::from(next) / 2, pages + 1, all + answer.len());
        if over == 1 {
            break;
        }
    }
    assert_eq!((after.cast_unsigned(), pages), (last, 3));
    assert!(all > 2_400_000, "{all}");
}

#[tokio::test]
async fn calls_that_wait_for_events_take_no_more_memory_than_a_caller_may_have() {
    let (_root, engine) = engine();
    // Whom the server takes everybody for.
    let everybody = Caller::new("guest").expect("a name").with_all_scopes();
    // Whoever waits knows its 400 KB of arguments.
    let args = ["read x"].map(str::to_owned).into_iter().chain(vec!["a".repeat(100_000); 4]);
    let request = BatchRequest::new().step(Step::new("sh -c").args(args).open_stdin());
    let batches = engine.batches();
    let id = batches.submit(&everybody, request, None).await.expect("accepted").record.info.id;
    let mut last = 0;
    let mut events = batches.events(&everybody, id.as_str(), 0).await.expect("is there");
    while let Some(event) = events.next().await.expect("is read") {
        last = i64::try_from(event.seq).expect("a few");
        if matches!(event.what, BatchEventKind::Started { .. }) {
            break;
        }
    }
    let server = TestServer::open_to(engine.clone(), |server| server.max_buffered(2 << 20)).await;
    let mut refused = JoinSet::new();
    // A caller has half of it, and one call may go beyond that.
    for _ in 0..5 {
        let mut client = server.connect().await;
        client.shake_hands().await;
        let wait = long(60_000);
        client.send(1, &call("batchEvents", &[&text(id.as_str()), &long(last), &wait])).await;
        refused.spawn(async move { client.answer().await.1 });
    }
    let answer = timeout(Duration::from_secs(30), refused.join_next()).await;
    let answer = answer.expect("at once").expect("one").expect("no panic");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("memory that one caller may have"), "{answer}");
    engine.kill();
}
