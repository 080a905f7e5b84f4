//! What servers refuse, and as what.

use crate::error::ErrorKind;
use crate::execute::Reason;
use crate::testing::conformance::server::check::Fail;
use crate::testing::conformance::server::opened::{Opened, SECRET_CAUSE, not_done};
use crate::testing::conformance::server::rules::{ended, refused};
use crate::testing::conformance::{ClientError, ServerClient, TestUser};

use TestUser::{Alice, Bob};

pub(super) async fn unauthenticated<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let kind = ErrorKind::Unauthenticated;
    let mut asked = 0;
    for user in [TestUser::Anonymous, TestUser::Unknown] {
        asked += nothing_is_done(it, user, kind).await?;
    }
    if asked == 0 { Err(Fail::Unsupported) } else { Ok(()) }
}

pub(super) async fn missing_scope<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    match nothing_is_done(it, TestUser::Unprivileged, ErrorKind::Forbidden).await? {
        0 => Err(Fail::Unsupported),
        _ => Ok(()),
    }
}

/// Asks for everything that there is, and gives how much that was.
async fn nothing_is_done<C: ServerClient>(
    it: &Opened<C>,
    user: TestUser,
    kind: ErrorKind,
) -> Result<usize, Fail> {
    let made = it.root.join("made");
    std::fs::write(it.root.join("there"), "secret")
        .map_err(|error| Fail::Violation(format!("the suite can't write a file: {error}")))?;
    let touch: &[&str] = &["touch", "made"];
    let client = &it.client;
    let calls = [
        ("a command", it.within(client.execute(user, touch, b"")).await.map(drop)),
        ("a terminal", it.within(client.terminal(user, "touch made; exit\n")).await.map(drop)),
        ("a batch", it.within(client.batch(user, &[touch])).await.map(drop)),
        ("a write of a file", it.within(client.write_file(user, "made", b"")).await),
        ("a read of a file", it.within(client.read_file(user, "there")).await.map(drop)),
    ];
    let mut asked = 0;
    for (what, result) in calls {
        if !matches!(result, Err(ClientError::Unsupported)) {
            refused(&format!("{what} of {}", user.name()), result, kind)?;
            asked += 1;
        }
    }
    if made.exists() {
        let problem = "had an effect though it was refused, expected none";
        return Fail::violation(format!("a request of {} {problem}", user.name()));
    }
    Ok(asked)
}

pub(super) async fn unknown_program<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let result = it.within(it.client.execute(Alice, &["no-such-program"], b"")).await;
    refused("`no-such-program`", result, ErrorKind::Impossible).map(drop)
}

pub(super) async fn engine_full<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    refused_while_one_runs(it, Bob, ErrorKind::Unavailable).await
}

pub(super) async fn caller_limit<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    refused_while_one_runs(it, Alice, ErrorKind::CallerLimit).await
}

/// One command of Alice runs; one more is refused, and hurts the first in nothing.
async fn refused_while_one_runs<C: ServerClient>(
    it: &Opened<C>,
    next: TestUser,
    kind: ErrorKind,
) -> Result<(), Fail> {
    let argv = ["sh", "-c", "touch begun; while [ ! -e go ]; do sleep 0.02; done; exit 7"];
    let mut first = Box::pin(it.within(it.client.execute(Alice, &argv, b"")));
    it.begun(&mut first, "begun").await?;
    let refuse = async {
        let result = it.within(it.client.execute(next, &["true"], b"")).await;
        refused("one command more than there may be", result, kind)
    };
    // The first one is read all the while.
    tokio::select! {
        biased;
        refusal = refuse => drop(refusal?),
        ended = &mut first => {
            let problem = "the first of two commands ended, and was expected to run on";
            return Fail::violation(format!("{problem}: {ended:?}"));
        }
    }
    std::fs::write(it.root.join("go"), "").map_err(|error| Fail::Violation(error.to_string()))?;
    let outcome = first.await.map_err(|error| not_done("the first command", Alice, &error))?;
    ended("the first command", &outcome, 7, Reason::Exited)
}

pub(super) async fn internal<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let result = it.within(it.client.execute(Alice, &["true"], b"")).await;
    let told = refused("a command that the executor fails to run", result, ErrorKind::Internal)?;
    match told.contains(SECRET_CAUSE) {
        true => Fail::violation(format!("the client is told {told:?}, expected no cause in it")),
        false => Ok(()),
    }
}
