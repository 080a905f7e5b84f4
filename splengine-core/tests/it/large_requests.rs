//! Requests that take time to be looked at.

use splengine_core::execute::SplitError;
use splengine_core::{Engine, ExecuteError, LocalExecutor, Request, SessionRequest};

use crate::support::{caller, measured};

/// Does `work`, and returns whether others were served meanwhile: whether no more than a quarter of it
/// went by without them.
async fn is_shared(work: impl Future<Output = ()>) -> bool {
    let (took, longest) = measured(work).await;
    longest < took / 4
}

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
        of_execute |= is_shared(execute()).await;
        of_create |= is_shared(create()).await;
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
