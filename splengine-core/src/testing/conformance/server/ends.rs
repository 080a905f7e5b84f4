//! How commands, connections and servers end.

use std::fs;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};

use crate::error::ErrorKind;
use crate::execute::Reason;
use crate::testing::conformance::server::check::Fail;
use crate::testing::conformance::server::opened::{Opened, connect, not_done};
use crate::testing::conformance::server::rules::{ended, refused};
use crate::testing::conformance::{ClientError, ServerClient, TestUser};

use TestUser::{Alice, Bob};

pub(super) async fn time_limit<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let outcome = it.run(Alice, &["sleep", "86400"], b"").await?;
    ended("sleep", &outcome, Reason::TimedOut.exit_code(), Reason::TimedOut)
}

pub(super) async fn client_leaves<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let script = "sleep 86400 & echo \"$$ $!\" > pids.part; mv pids.part pids; wait";
    let argv = ["sh", "-c", script];
    let mut call = Box::pin(it.within(it.client.execute(Alice, &argv, b"")));
    it.begun(&mut call, "pids").await?;
    let pids = fs::read_to_string(it.root.join("pids")).unwrap_or_default();
    drop(call);
    let expected = "the end of a command, and of all that it started, when its client has left";
    it.eventually(expected, || pids.split_whitespace().all(|pid| !is_alive(pid))).await?;
    it.eventually(expected, || it.engine.stats().running == 0).await
}

pub(super) async fn drain<C: ServerClient>(it: Opened<C>) -> Result<(), Fail> {
    let script = "touch begun; while [ ! -e go ]; do sleep 0.02; done; printf whole; exit 7";
    let argv = ["sh", "-c", script];
    let mut first = Box::pin(it.within(it.client.execute(Alice, &argv, b"")));
    it.begun(&mut first, "begun").await?;
    let engine = it.engine.clone();
    let draining = tokio::spawn(async move { engine.drain(Duration::from_hours(1)).await });
    let refuse = async {
        it.engine.closed().await;
        let result = it.within(it.client.execute(Bob, &["true"], b"")).await;
        refused("a command while the engine is drained", result, ErrorKind::Unavailable)
    };
    tokio::select! {
        biased;
        refusal = refuse => drop(refusal?),
        ended = &mut first => {
            let problem = "a command ended when a drain began, and was expected to run on";
            return Fail::violation(format!("{problem}: {ended:?}"));
        }
    }
    fs::write(it.root.join("go"), "").map_err(|error| Fail::Violation(error.to_string()))?;
    let outcome = first.await.map_err(|error| not_done("what ran", Alice, &error))?;
    ended("what ran when the drain began", &outcome, 7, Reason::Exited)?;
    if outcome.stdout != b"whole" {
        let printed = outcome.stdout.escape_ascii();
        return Fail::violation(format!("what ran printed \"{printed}\", expected \"whole\""));
    }
    if timeout(it.patience, draining).await.is_err() {
        return Fail::violation("the engine is not drained, though nothing runs any more");
    }
    let (addr, patience) = (it.addr.clone(), it.patience);
    it.close().await?;
    // A program that is just being started by another thread holds the socket for a moment, until it is the program.
    let refused = async {
        while connect(&addr).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(patience, refused).await {
        Ok(()) => Ok(()),
        Err(_) => Fail::violation("a server that is over still listens, expected its end"),
    }
}

pub(super) async fn cancelled<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let argv = ["sh", "-c", "touch begun; exec sleep 86400"];
    let mut call = Box::pin(it.within(it.client.execute(Alice, &argv, b"")));
    it.begun(&mut call, "begun").await?;
    let (outcome, ()) = tokio::join!(call, it.engine.drain(Duration::from_millis(10)));
    let outcome = outcome.map_err(|error| not_done("what a drain ended", Alice, &error))?;
    ended("sleep", &outcome, Reason::Cancelled.exit_code(), Reason::Cancelled)
}

pub(super) async fn connections<C: ServerClient>(it: &Opened<C>) -> Result<(), Fail> {
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS * 2 {
        let connected = timeout(it.patience, connect(&it.addr)).await;
        let Ok(Ok(stream)) = connected else {
            return Fail::violation("a connection was not accepted, and was expected to be");
        };
        silent.push(stream);
    }
    // Where the server has no commands, there is something else to ask for.
    let asked = it.within(it.client.execute(Alice, &["true"], b"")).await.map(drop);
    let asked = match asked {
        Err(ClientError::Unsupported) => {
            it.within(it.client.terminal(Alice, "exit\n")).await.map(drop)
        }
        asked => asked,
    };
    asked.map_err(|error| not_done("a request among silent connections", Alice, &error))?;
    for mut stream in silent {
        let closed = async {
            let mut buffer = [0; 1024];
            // A greeting may come first.
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        };
        if timeout(it.patience, closed).await.is_err() {
            return Fail::violation(format!(
                "a connection that shows nothing is open after {:?}, expected its end after the \
                 unauthenticated timeout of 1 s",
                it.patience
            ));
        }
    }
    Ok(())
}

/// Whether a process is there, and no zombie.
fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// Maximum number of connections in the check of them.
pub(super) const MAX_CONNECTIONS: usize = 8;
