//! Executors held to what an engine relies on.

use std::sync::Arc;

use splengine_core::Execute;
use splengine_core::execute::SharedExecutor;
use splengine_core::testing::TestCommand;
use splengine_core::testing::conformance::Suite;
use tokio::net::UnixListener;

use custom_executor::{Remote, work};

#[path = "../../custom_executor.rs"]
#[expect(dead_code, reason = "its `main` is for the example")]
mod custom_executor;

/// With a worker of its own, and what counts its runs.
fn remote() -> (Remote, Arc<()>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("worker");
    let runs = Arc::new(());
    let listener = UnixListener::bind(&socket).expect("bound");
    tokio::spawn(work(listener, Arc::clone(&runs)));
    (Remote(socket), runs, dir)
}

async fn conforms(executor: impl Execute, runs: &Arc<()>) {
    let suite = Suite::new(&executor)
        .prints(["count", "3"], "1\n2\n3\n")
        .exits(["count"], 127)
        .reads(["upper"], "Hello, World\n".repeat(1000), "HELLO, WORLD\n".repeat(1000))
        .floods(["count", "1000000000000"])
        .sleeps(["sleep", "86400"])
        .refuses(["rm"])
        // The test and the worker have one each.
        .is_running(|| Arc::strong_count(runs) > 2);
    suite.run().await.unwrap_or_else(|violation| panic!("{violation}"));
}

#[tokio::test]
async fn custom_executor_conforms() {
    let (remote, runs, _dir) = remote();
    conforms(remote, &runs).await;
}

#[tokio::test]
async fn decorated_custom_executor_conforms() {
    let (remote, runs, _dir) = remote();
    conforms(Arc::new(SharedExecutor::new(remote)), &runs).await;
}

#[tokio::test]
async fn custom_executor_takes_directory_and_variables() {
    let (remote, _, _dir) = remote();
    let ran = TestCommand::new(["env"]).workdir("/a/./b/").env("NAME", "value").run(&remote).await;
    assert!(ran.exit.is_ok(), "{:?}", ran.exit);
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    let [dir, session, name] = printed.lines().collect::<Vec<_>>()[..] else {
        panic!("{printed}");
    };
    assert_eq!((dir, name), ("PWD=/a/b", "NAME=value"));
    assert!(session.starts_with("SPL_SESSION_ID=spl-tester-"), "{session}");
}
