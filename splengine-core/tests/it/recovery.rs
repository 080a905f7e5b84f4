//! Executors that find their runs again, behind whatever pointers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use splengine_core::batch::{BatchPolicy, RunIf};
use splengine_core::execute::{
    Cancel, Command, Exit, ExitStatus, LimitKind, Output, Recover, SharedExecutor, Stdin, Stream,
};
use splengine_core::{BatchRequest, Engine, Execute, ExecuteError, Request, Step};

use crate::store::TestStore;
use crate::support::{caller, eventually};

/// What an executor was told, of which a test keeps a copy.
#[derive(Default)]
struct Told {
    next: AtomicU32,
    run: Mutex<Vec<Option<String>>>,
    swept: Mutex<Vec<String>>,
}

/// Runs nothing that ends by itself.
#[derive(Clone, Default)]
struct Cluster(Arc<Told>);

impl Execute for Cluster {
    async fn execute(
        &self,
        command: Command,
        _: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        self.0.run.lock().expect("no panic").push(command.mark.clone());
        output.started();
        let _ = output.write(Stream::Stdout, "up".into()).await;
        cancel.stop_requested().await;
        Ok(Exit::new(ExitStatus::Code(0)).stopped())
    }

    async fn check(&self, command: &Command) -> Result<(), ExecuteError> {
        match command.text_argv()?[0] {
            "missing" => Err(ExecuteError::ProgramNotFound("missing".to_owned())),
            _ => Ok(()),
        }
    }

    fn recovery(&self) -> Option<&impl Recover> {
        Some(self)
    }

    fn enforces(&self, limit: LimitKind) -> bool {
        limit == LimitKind::Memory
    }
}

impl Recover for Cluster {
    fn mark(&self) -> String {
        format!("job-{}", self.0.next.fetch_add(1, Ordering::SeqCst))
    }

    async fn sweep(&self, marks: Vec<String>) {
        self.0.swept.lock().expect("no panic").extend(marks);
    }
}

/// Never asked to recover anything.
struct Forgetful(Cluster);

impl Execute for Forgetful {
    async fn execute(
        &self,
        command: Command,
        stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        self.0.execute(command, stdin, output, cancel).await
    }
}

fn engine(executor: impl Execute, store: &TestStore, outputs: &std::path::Path) -> Engine {
    let batches = BatchPolicy::new(store.clone(), outputs);
    let engine = Engine::builder(executor).max_running(2).shell_commands(true).batches(batches);
    engine.build().expect("built")
}

/// A step that runs in an engine that was killed, and the next engine.
async fn recover<E: Execute>(wrap: impl Fn(Cluster) -> E) -> (Arc<Told>, Arc<Told>) {
    let outputs = tempfile::tempdir().expect("a directory");
    let (store, alice) = (TestStore::default(), caller("alice"));
    let (before, after) = (Cluster::default(), Cluster::default());
    let first = engine(wrap(before.clone()), &store, outputs.path());
    let request = BatchRequest::new().step(Step::new("work"));
    first.batches().submit(&alice, request, None).await.expect("accepted");
    eventually("it runs", || !before.0.run.lock().expect("no panic").is_empty()).await;

    let next = engine(wrap(after.clone()), &store, outputs.path());
    assert_eq!(next.resume().await.batches, 1);
    // The step is lost; nothing was run again.
    assert!(after.0.run.lock().expect("no panic").is_empty());
    (before.0, after.0)
}

#[tokio::test]
async fn what_an_engine_left_running_is_swept_by_its_mark() {
    let told = [
        recover(|cluster| cluster).await,
        recover(Arc::new).await,
        recover(Box::new).await,
        recover(SharedExecutor::new).await,
        recover(|cluster| Arc::new(SharedExecutor::new(Box::new(cluster)))).await,
    ];
    for (before, after) in told {
        assert_eq!(*before.run.lock().expect("no panic"), [Some("job-0".to_owned())]);
        assert_eq!(*after.swept.lock().expect("no panic"), ["job-0"]);
    }
}

#[tokio::test]
async fn a_step_that_needs_the_shell_runs_after_a_crash() {
    let outputs = tempfile::tempdir().expect("a directory");
    let (store, alice) = (TestStore::default(), caller("alice"));
    let (before, after) = (Cluster::default(), Cluster::default());
    let first = engine(before.clone(), &store, outputs.path());
    let shell = Step::new("echo hello | tr a-z A-Z").use_shell(true).run_if(RunIf::Always);
    let request = BatchRequest::new().step(Step::new("work")).step(shell);
    first.batches().submit(&alice, request, None).await.expect("accepted");
    eventually("it runs", || !before.0.run.lock().expect("no panic").is_empty()).await;

    let next = engine(after.clone(), &store, outputs.path());
    assert_eq!(next.resume().await.batches, 1);
    eventually("the shell runs", || !after.0.run.lock().expect("no panic").is_empty()).await;
}

#[tokio::test]
async fn an_executor_without_recovery_has_no_marks() {
    let told = [recover(Forgetful).await, recover(|it| SharedExecutor::new(Forgetful(it))).await];
    for (before, after) in told {
        assert_eq!(*before.run.lock().expect("no panic"), [None]);
        assert!(after.swept.lock().expect("no panic").is_empty());
    }
}

#[tokio::test]
async fn pointers_forward_all_that_an_executor_says() {
    async fn is_forwarded(executor: impl Execute) {
        let engine = Engine::builder(executor).max_running(1).build().expect("built");
        let alice = caller("alice");
        assert!(engine.enforces(LimitKind::Memory) && !engine.enforces(LimitKind::CpuTime));
        assert!(!engine.has_sessions());
        let _holding = engine.execute(&alice, Request::new("work")).await.expect("runs");
        let refused = engine.execute(&alice, Request::new("missing")).await;
        assert!(matches!(refused, Err(ExecuteError::ProgramNotFound(_))), "it is checked");
    }
    is_forwarded(Cluster::default()).await;
    is_forwarded(Arc::new(Cluster::default())).await;
    is_forwarded(Box::new(Cluster::default())).await;
    is_forwarded(SharedExecutor::new(Cluster::default())).await;
}
