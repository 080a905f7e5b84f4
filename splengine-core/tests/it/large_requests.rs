//! Requests that take time to be looked at.

use splengine_core::batch::BatchPolicy;
use splengine_core::execute::SplitError;
use splengine_core::store::MemoryStore;
use splengine_core::{
    BatchRequest, Engine, ExecuteError, LocalExecutor, Request, SessionRequest, Step,
};

use crate::sharing::is_shared;
use crate::support::caller;

fn engine() -> (tempfile::TempDir, Engine) {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).build().expect("fine");
    (root, engine)
}

#[tokio::test]
async fn while_a_large_request_is_looked_at_others_are_served() {
    let (_root, engine) = engine();
    let (alice, sessions) = (caller("alice"), engine.sessions());
    // As much as may be, with an error at its end.
    let command = format!("true {} '", "word ".repeat(100_000));
    let execute = async || {
        let refused = engine.execute(&alice, Request::new(command.clone())).await;
        let error = refused.expect_err("a quote is not closed");
        assert!(matches!(error, ExecuteError::Split(SplitError::SingleQuote)), "{error:?}");
    };
    let create = async || {
        let refused = sessions.create(&alice, SessionRequest::new().command(command.clone())).await;
        refused.expect_err("a quote is not closed");
    };
    // Whatever else this machine does.
    let (mut of_execute, mut of_create) = (false, false);
    for _ in 0..20 {
        of_execute |= is_shared(execute(), 4).await;
        of_create |= is_shared(create(), 4).await;
    }
    assert!(of_execute && of_create, "{of_execute} {of_create}");
}

#[tokio::test]
async fn a_command_is_refused_by_its_length() {
    let (_root, engine) = engine();
    let alice = caller("alice");
    let command = "a".repeat(Request::MAX_COMMAND_BYTES + 1);
    let refused = engine.execute(&alice, Request::new(command)).await;
    let error = refused.expect_err("it is too long");
    assert!(matches!(error, ExecuteError::Split(SplitError::TooLong)), "{error:?}");
    assert!(error.to_string().contains("2097152 bytes"), "{error}");
}

#[tokio::test]
async fn while_a_large_batch_is_submitted_others_are_served() {
    let root = tempfile::tempdir().expect("a directory");
    let policy = BatchPolicy::new(MemoryStore::new(), root.path().join("batches"));
    let engine = Engine::builder(LocalExecutor::new(root.path()).expect("set up"));
    let engine = engine.batches(policy).build().expect("fine");
    let (alice, batches) = (caller("alice"), engine.batches());
    let args = vec!["argument"; 20_000];
    let step = || Step::new("true").args(args.clone());
    // Whatever else this machine does.
    for number in 0.. {
        let request = (0..4).fold(BatchRequest::new(), |all, _| all.step(step()));
        let (key, mut id) = (format!("key-{number}"), None);
        let submit = async {
            let submitted = batches.submit(&alice, request, Some(&key)).await.expect("accepted");
            let record = submitted.record;
            id = Some(record.info.id.clone());
            // Whoever is given it drops it where they like.
            tokio::task::spawn_blocking(move || drop(record));
        };
        let was_shared = is_shared(Box::pin(submit), 8).await;
        let id = id.expect("submitted");
        batches.cancel(&alice, &id).await.expect("it ends");
        if was_shared {
            return;
        }
        assert!(number < 20);
    }
}

#[tokio::test]
async fn while_a_batch_with_too_many_labels_is_refused_others_are_served() {
    let root = tempfile::tempdir().expect("a directory");
    let policy = BatchPolicy::new(MemoryStore::new(), root.path().join("batches"));
    let engine = Engine::builder(LocalExecutor::new(root.path()).expect("set up"));
    let engine = engine.batches(policy).build().expect("fine");
    let (alice, batches) = (caller("alice"), engine.batches());
    // Whatever else this machine does.
    for _ in 0..20 {
        let request = BatchRequest::new().step(Step::new("true"));
        let request =
            (0..200_000).fold(request, |all, label| all.label(label.to_string(), "value"));
        let refused = async {
            let refused = batches.submit(&alice, request, Some("key")).await;
            let error = refused.expect_err("they are too many");
            assert!(error.to_string().contains("maximum of 32"), "{error}");
        };
        if is_shared(Box::pin(refused), 3).await {
            return;
        }
    }
    panic!("nobody else was served");
}
