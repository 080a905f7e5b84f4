//! Messages that take time to be read.

use std::time::Duration;

use splengine_core::batch::BatchPolicy;
use splengine_core::store::MemoryStore;
use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
use tokio::time::Instant;

use crate::client::TestServer;

/// Does `work`, and returns whether others were served meanwhile: whether less than one `part` of it went
/// by without them.
async fn is_shared(work: impl Future<Output = ()>, part: u32) -> bool {
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut others = async || {
        loop {
            tokio::task::yield_now().await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
    };
    tokio::select! {
        () = work => {}
        () = others() => {}
    }
    longest.max(last.elapsed()) < begun.elapsed() / part
}

/// A number, or the length of a text.
fn long(number: i64) -> Vec<u8> {
    let mut left = number.cast_unsigned() << 1;
    let mut bytes = Vec::new();
    while left >= 0x80 {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&long(text.len() as i64)[..], text.as_bytes()].concat()
}

/// A call without metadata.
fn call(message: &str, parameters: &[&[u8]]) -> Vec<u8> {
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
    let engine = engine.batches(policy.expect("writable")).build().expect("fine");
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
    let everybody = Caller::with_all_scopes("guest".parse().expect("a name"));
    let request = BatchRequest::new().step(Step::new("true").args(vec!["a"; 100_000]));
    let batches = engine.batches();
    let id = batches.submit(&everybody, request, None).await.expect("accepted").record.info.id;
    batches.wait_info(&everybody, id.as_str()).await.expect("runs");
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
