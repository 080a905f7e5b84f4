//! Idempotency keys of batches that are submitted at once.

use std::task::Poll;
use std::time::Duration;

use splengine_core::batch::BatchPolicy;
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Stdin};
use splengine_core::store::MemoryStore;
use splengine_core::{BatchRequest, Engine, Execute, ExecuteError, Step};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::support::caller;

/// Runs nothing, and holds the check of `held` until it is let go.
struct Held {
    /// How many checks of `held` have begun.
    begun: watch::Sender<usize>,
    is_free: watch::Receiver<bool>,
}

impl Execute for Held {
    async fn execute(
        &self,
        _: Command,
        _: Stdin,
        output: Output,
        _: Cancel,
    ) -> Result<Exit, ExecuteError> {
        output.started();
        Ok(Exit::new(ExitStatus::Code(0)))
    }

    async fn check(&self, command: &Command) -> Result<(), ExecuteError> {
        if command.text_argv()?[0] == "held" {
            self.begun.send_modify(|count| *count += 1);
            let _ = self.is_free.clone().wait_for(|is_free| *is_free).await;
        }
        Ok(())
    }
}

struct Bench {
    engine: Engine,
    begun: watch::Receiver<usize>,
    free: watch::Sender<bool>,
    _outputs: TempDir,
}

fn bench() -> Bench {
    let outputs = tempfile::tempdir().expect("a directory");
    let (free, is_free) = watch::channel(false);
    let (begin, begun) = watch::channel(0);
    let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
    let executor = Held { begun: begin, is_free };
    let engine = Engine::builder(executor).batches(policy).build().expect("built");
    Bench { engine, begun, free, _outputs: outputs }
}

fn one(command: &str) -> BatchRequest {
    BatchRequest::new().step(Step::new(command))
}

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_batch_that_is_being_checked_holds_up_no_other_key() {
    let mut bench = bench();
    let alice = caller("alice");
    let batches = bench.engine.batches();
    let slow = tokio::spawn({
        let (batches, alice) = (batches.clone(), alice.clone());
        async move { batches.submit(&alice, one("held"), Some("slow")).await }
    });
    bench.begun.wait_for(|count| *count == 1).await.expect("it is checked");
    for (who, key) in [("alice", Some("other")), ("bob", Some("slow")), ("alice", None)] {
        let who = caller(who);
        let submitted = timeout(SOON, batches.submit(&who, one("true"), key)).await;
        let submitted = submitted.expect("not held up").expect("accepted");
        assert!(submitted.is_new, "{key:?}");
    }
    let over = batches.submit(&alice, one("true"), None).await.expect("accepted").record.info.id;
    batches.wait(&alice, &over).await.expect("over");
    let rerun = timeout(SOON, batches.rerun_once(&alice, &over, false, "again")).await;
    assert!(rerun.expect("not held up").expect("accepted").is_new);
    assert!(!slow.is_finished());
    bench.free.send_replace(true);
    assert!(slow.await.expect("no panic").expect("accepted").is_new);
}

#[tokio::test]
async fn the_same_key_twice_at_once_makes_one_batch() {
    let mut bench = bench();
    let alice = caller("alice");
    let batches = bench.engine.batches();
    let mut first = Box::pin(batches.submit(&alice, one("held"), Some("k")));
    let mut second = Box::pin(batches.submit(&alice, one("held"), Some("k")));
    let mut other = Box::pin(batches.submit(&alice, one("true"), Some("k")));
    tokio::select! {
        biased;
        _ = &mut first => panic!("it is held"),
        begun = bench.begun.wait_for(|count| *count == 1) => drop(begun),
    }
    std::future::poll_fn(|context| {
        assert!(second.as_mut().poll(context).is_pending(), "it waits for the first");
        assert!(other.as_mut().poll(context).is_pending(), "it waits for the first");
        Poll::Ready(())
    })
    .await;
    bench.free.send_replace(true);
    let first = first.await.expect("accepted");
    let second = second.await.expect("the same");
    assert_eq!((first.is_new, second.is_new), (true, false));
    assert_eq!(first.record.info.id, second.record.info.id);
    assert_eq!(*bench.begun.borrow(), 1, "the second is not even checked");
    assert!(matches!(other.await, Err(splengine_core::BatchError::KeyReused)));
}
