use std::panic::AssertUnwindSafe;
use std::time::Duration;

use splengine_core::engine::EngineBuilder;
use splengine_core::local::CgroupMode;
use splengine_core::{Caller, Captured, Engine, Event, LocalExecutor, Request, Run};
use tempfile::TempDir;

/// An engine whose root is an empty directory of its own.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) root: TempDir,
}

/// Every way to contain a tree that this host allows: always the sweep, and cgroups where they can
/// be written.
pub(crate) fn modes() -> Vec<CgroupMode> {
    vec![CgroupMode::Off, CgroupMode::Auto]
}

pub(crate) fn bench() -> Bench {
    bench_with(CgroupMode::Auto, |builder| builder)
}

pub(crate) fn bench_with(
    cgroup: CgroupMode,
    configure: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Bench {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::builder(root.path()).cgroup(cgroup).build().expect("set up");
    let builder = Engine::builder(executor).grace(Duration::from_millis(500));
    Bench { engine: configure(builder).build().expect("built"), root }
}

pub(crate) fn caller(name: &str) -> Caller {
    Caller::new(name).expect("a user name").with_all_scopes()
}

/// `sh -c script`.
pub(crate) fn sh(script: &str) -> Request {
    Request::new("sh -c").arg(script)
}

impl Bench {
    pub(crate) async fn start(&self, request: Request) -> Run {
        self.engine.execute(&caller("alice"), request).await.expect("starts")
    }

    pub(crate) async fn run(&self, request: Request) -> Captured {
        self.start(request).await.capture().await
    }

    pub(crate) async fn refusal(&self, request: Request) -> splengine_core::ExecuteError {
        self.engine.execute(&caller("alice"), request).await.expect_err("refused")
    }
}

/// Reads a run's standard output until `needle` is there, and gives all that was read.
pub(crate) async fn read_until(run: &mut Run, needle: &str) -> String {
    let mut text = String::new();
    while !text.contains(needle) {
        match run.next().await {
            Some(Event::Output { data, .. }) => text.push_str(&String::from_utf8_lossy(&data)),
            other => panic!("{needle:?} never came; {text:?}, then {other:?}"),
        }
    }
    text
}

/// Whether a process is there and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// Runs `test` on a runtime of its own with two workers, and fails after `limit` also where these are
/// held up, so that none of its timers fire.
pub(crate) fn on_workers<T: Future<Output = ()>>(
    limit: Duration,
    test: impl FnOnce() -> T + Send + 'static,
) {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
        let test = AssertUnwindSafe(|| runtime.block_on(test()));
        if let Err(panic) = std::panic::catch_unwind(test) {
            // Before the end of the runtime, which a worker may hold up.
            let _ = tell.send(Err(panic));
            return;
        }
        drop(runtime);
        let _ = tell.send(Ok(()));
    });
    match told.recv_timeout(limit) {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => panic!("not over after {limit:?}: the workers of the runtime are held up"),
    }
}

/// Waits for a condition that nothing announces, for a minute at most.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}
