//! How batches and their steps end: what is tolerated, cleaned up, run again, and removed.

use std::path::PathBuf;
use std::time::Duration;

use splengine_core::batch::{
    BatchEventKind, BatchFilter, BatchPolicy, BatchRecord, BatchState, FailFast, RetryOn, RunIf,
    StepCheck, StepState,
};
use splengine_core::execute::{
    Background, Cancel, Command, Exit, ExitStatus, Output, Stdin, Stream,
};
use splengine_core::store::MemoryStore;
use splengine_core::{
    BatchRequest, Caller, Engine, ErrorKind, Execute, ExecuteError, LocalExecutor, Reason, Step,
};
use tempfile::TempDir;

use crate::store::TestStore;
use crate::support::{caller, eventually};

struct Bench {
    engine: Engine,
    alice: Caller,
    root: TempDir,
    store: TestStore,
}

fn bench() -> Bench {
    let root = tempfile::tempdir().expect("a directory");
    let store = TestStore::default();
    Bench { engine: engine(&root, &store), alice: caller("alice"), root, store }
}

fn engine(root: &TempDir, store: &TestStore) -> Engine {
    let batches = BatchPolicy::new(store.clone(), root.path().join("outputs"));
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).grace(Duration::from_millis(500)).batches(batches);
    engine.build().expect("built")
}

fn step(id: &str, script: &str) -> Step {
    Step::new("sh -c").args([script]).id(id)
}

fn of(steps: impl IntoIterator<Item = Step>) -> BatchRequest {
    steps.into_iter().fold(BatchRequest::new(), BatchRequest::step)
}

fn states(record: &BatchRecord) -> Vec<StepState> {
    record.steps.iter().map(|step| step.state).collect()
}

async fn over(engine: &Engine, who: &Caller, id: &str) -> BatchRecord {
    let batches = engine.batches();
    let over = tokio::time::timeout(Duration::from_secs(60), batches.wait(who, id)).await;
    over.expect("over in time").expect("over")
}

impl Bench {
    async fn submit(&self, request: BatchRequest) -> BatchRecord {
        let submitted = self.engine.batches().submit(&self.alice, request, None).await;
        submitted.expect("accepted").record
    }

    async fn run(&self, request: BatchRequest) -> BatchRecord {
        let record = self.submit(request).await;
        over(&self.engine, &self.alice, record.info.id.as_str()).await
    }

    async fn refusal(&self, request: BatchRequest) -> String {
        let submitted = self.engine.batches().submit(&self.alice, request, None).await;
        submitted.expect_err("refused").to_string()
    }

    fn has(&self, name: &str) -> bool {
        self.root.path().join(name).exists()
    }

    fn write(&self, name: &str) {
        std::fs::write(self.root.path().join(name), "").expect("writes");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.root.path().join(name)).expect("removes");
    }
}

#[tokio::test]
async fn a_step_that_may_not_keep_anything_is_told_so() {
    let root = tempfile::tempdir().expect("a directory");
    let store = TestStore::default();
    let batches = BatchPolicy::new(store.clone(), root.path().join("outputs"));
    let executor =
        LocalExecutor::builder(root.path()).max_background_runs(0).build().expect("set up");
    let engine = Engine::builder(executor).batches(batches).build().expect("built");
    let bench = Bench { engine, alice: caller("alice"), root, store };
    let record = bench.run(of([step("keeps", "true").background(Background::Keep)])).await;
    assert_eq!(states(&record), [StepState::Failed]);
    let problem = record.steps[0].problem.as_deref().expect("it is told");
    assert!(problem.contains("background: keep"), "{problem}");
}

#[tokio::test]
async fn what_a_step_makes_may_be_run_by_the_next() {
    let bench = bench();
    let request = of([
        step("build", "mkdir out; printf '#!/bin/sh\necho built' >out/tool; chmod +x out/tool"),
        Step::new("./out/tool").id("test"),
        Step::new("pwd").workdir("out").id("where"),
    ]);
    let record = bench.run(request).await;
    assert_eq!(record.info.state, BatchState::Succeeded, "{record:?}");
    let id = record.info.id.as_str();
    let batches = bench.engine.batches();
    let output = batches.output(&bench.alice, id, "test", Stream::Stdout, None);
    let output = output.await.expect("a step").read(0, 100).await.expect("reads");
    assert_eq!(output, "built\n");

    // What it did not make is told when the step starts, with the step's name.
    let record = bench.run(of([step("build", "true"), Step::new("./none").id("test")])).await;
    assert_eq!(states(&record), [StepState::Succeeded, StepState::Failed]);
    assert_eq!((record.steps[1].exit_code, record.info.exit_code), (Some(127), 127));
    let problem = record.steps[1].problem.as_deref();
    assert_eq!(problem, Some("step `test`: program `./none` was not found"));

    // Nothing can come before these, or nothing can make them.
    let first = || step("first", "echo >>started");
    for (request, text) in [
        (of([Step::new("./none").id("x")]), "step `x`: program `./none` was not found"),
        (of([first(), Step::new("./none").id("x").independent()]), "step `x`: program `./none`"),
        (of([first(), Step::new("./none").id("x").check(StepCheck::Early)]), "step `x`: program"),
        (of([first(), Step::new("true").id("x").workdir("..")]), "`x`: workdir `..` is outside"),
    ] {
        let refusal = bench.refusal(request).await;
        assert!(refusal.contains(text), "{refusal}");
    }
    assert!(!bench.has("started"));
    let late = Step::new("./none").check(StepCheck::Late);
    assert_eq!(bench.run(of([late])).await.info.state, BatchState::Failed);
}

#[tokio::test]
async fn what_cleans_up_is_run_when_a_batch_is_cancelled() {
    use StepState::{Cancelled, Skipped, Succeeded};
    let bench = bench();
    let request = || {
        of([
            step("work", "echo >up; sleep 600"),
            step("next", "echo >next"),
            step("teardown", "echo >down; while [ ! -e go ]; do sleep 0.01; done; echo >torn-down")
                .run_if(RunIf::Always),
            step("alarm", "echo >alarm").run_if(RunIf::Failure),
        ])
    };
    let batches = bench.engine.batches();
    let record = bench.submit(request()).await;
    eventually("it runs", || bench.has("up")).await;
    let id = record.info.id.as_str();
    let (cancelled, ()) = tokio::join!(batches.cancel(&bench.alice, id), async {
        eventually("it is torn down", || bench.has("down")).await;
        bench.write("go");
    });
    let record = cancelled.expect("cancelled");
    assert_eq!((record.info.state, record.info.exit_code), (BatchState::Cancelled, 130));
    assert_eq!(states(&record), [Cancelled, Skipped, Succeeded, Skipped]);
    assert!(bench.has("torn-down") && !bench.has("next") && !bench.has("alarm"));

    // A second cancellation ends what cleans up, too.
    ["up", "down", "go", "torn-down"].into_iter().for_each(|name| bench.remove(name));
    let record = bench.submit(request()).await;
    eventually("it runs", || bench.has("up")).await;
    let id = record.info.id.as_str();
    let (first, second) = tokio::join!(batches.cancel(&bench.alice, id), async {
        eventually("it is torn down", || bench.has("down")).await;
        batches.cancel(&bench.alice, id).await
    });
    assert_eq!(states(&first.expect("cancelled")), [Cancelled, Skipped, Cancelled, Skipped]);
    assert_eq!(second.expect("cancelled").info.state, BatchState::Cancelled);
    assert!(!bench.has("torn-down"));
}

/// What an engine before has begun to end is ended by the next as it would have been.
#[tokio::test]
async fn a_cancelled_batch_is_cleaned_up_by_the_next_engine() {
    use StepState::{Cancelled, Failed, Succeeded};
    let bench = bench();
    let teardown = step("teardown", "echo >>down; [ -e go ] && echo >torn-down || exec sleep 600");
    let request = of([
        step("lint", "exit 3").allow_failure(true),
        step("work", "echo >up; sleep 600"),
        teardown.run_if(RunIf::Always).rerun_on_restart(true),
    ]);
    let record = bench.submit(request).await;
    eventually("it runs", || bench.has("up")).await;
    let id = record.info.id.to_string();
    let cancelling = tokio::spawn({
        let (batches, alice, id) = (bench.engine.batches(), bench.alice.clone(), id.clone());
        async move { batches.cancel(&alice, &id).await }
    });
    eventually("it is torn down", || bench.has("down")).await;
    bench.engine.drain(Duration::from_millis(50)).await;
    assert!(cancelling.await.expect("no panic").is_err());
    bench.write("go");
    let next = engine(&bench.root, &bench.store);
    assert_eq!(next.resume().await.batches, 1);
    let record = over(&next, &bench.alice, &id).await;
    assert_eq!((record.info.state, record.info.exit_code), (BatchState::Cancelled, 130));
    assert_eq!(states(&record), [Failed, Cancelled, Succeeded]);
    assert!(bench.has("torn-down"));
}

#[tokio::test]
async fn a_failure_that_is_allowed_or_handled_fails_no_batch() {
    use StepState::{Failed, Skipped, Succeeded};
    let bench = bench();
    let request = of([
        step("lint", "exit 3").allow_failure(true),
        step("build", "echo >built"),
        step("alarm", "true").after(["lint"]).run_if(RunIf::Failure),
    ]);
    let record = bench.run(request.fail_fast(FailFast::Now)).await;
    assert_eq!((record.info.state, record.info.exit_code), (BatchState::Succeeded, 0));
    assert_eq!(states(&record), [Failed, Succeeded, Skipped]);
    assert!(bench.has("built"));

    let handled = |script: &str| {
        let mend = step("mend", script).run_if(RunIf::Failure);
        of([step("work", "exit 3"), mend, step("on", "true")])
    };
    let record = bench.run(handled("true")).await;
    assert_eq!((record.info.state, record.info.exit_code), (BatchState::Succeeded, 0));
    assert_eq!(states(&record), [Failed, Succeeded, Succeeded]);
    let record = bench.run(handled("exit 5")).await;
    assert_eq!((record.info.state, record.info.exit_code), (BatchState::Failed, 3));
    // One failure that counts is enough.
    let lint = step("lint", "exit 3").allow_failure(true);
    let record = bench.run(of([lint, step("test", "exit 4")])).await;
    assert_eq!((record.info.state, record.info.exit_code), (BatchState::Failed, 4));
}

#[tokio::test]
async fn only_failures_that_are_named_are_run_again() {
    let bench = bench();
    let on = || RetryOn::new().exit_codes([75]).reasons([Reason::TimedOut]);
    let attempts = async |script: &str, timeout| {
        let step = step("x", script).retries(2).retry_on(on()).timeout(timeout);
        bench.run(of([step])).await.steps[0].attempt
    };
    assert_eq!(attempts("exit 75", Duration::from_secs(60)).await, 3);
    assert_eq!(attempts("exit 1", Duration::from_secs(60)).await, 1);
    assert_eq!(attempts("sleep 600", Duration::from_millis(50)).await, 3);
    let cancelled = RetryOn::new().reasons([Reason::Cancelled]);
    for (step, text) in [
        (step("x", "true").retries(1).retry_on(RetryOn::new()), "must name an exit code"),
        (step("x", "true").retry_on(on()), "step `x`: `retry_on` needs `retries`"),
        (step("x", "true").retries(1).retry_on(cancelled), "can't hold"),
    ] {
        let refusal = bench.refusal(of([step])).await;
        assert!(refusal.contains(text), "{refusal}");
    }
}

#[tokio::test]
async fn a_batch_has_a_time_limit() {
    use StepState::{Failed, Skipped, Succeeded};
    let bench = bench();
    let request = of([
        step("work", "echo >up; sleep 600").retries(5),
        step("next", "true"),
        step("teardown", "echo >torn-down").run_if(RunIf::Always),
    ]);
    // It begins in time, whatever else this machine does.
    let mut limit = Duration::from_millis(200);
    let record = loop {
        let record = bench.run(request.clone().timeout(limit)).await;
        if bench.has("up") {
            break record;
        }
        limit *= 10;
        assert!(limit < Duration::from_secs(60), "it never begins");
    };
    assert_eq!((record.info.state, record.info.exit_code), (BatchState::Failed, 124));
    assert_eq!(states(&record), [Failed, Skipped, Succeeded]);
    assert_eq!(record.steps[0].reason, Some(Reason::TimedOut));
    assert_eq!(record.steps[1].problem.as_deref(), Some("the time of the batch was up"));
    assert!(bench.has("torn-down"));
    let duration = record.info.duration.expect("it was started");
    assert!(duration >= limit, "{duration:?}");
    let id = record.info.id.as_str();
    let mut events = bench.engine.batches().events(&bench.alice, id, 0).await.expect("events");
    let mut timed_out = 0;
    while let Some(event) = events.next().await.expect("reads") {
        timed_out += usize::from(event.what == BatchEventKind::TimedOut);
    }
    assert_eq!(timed_out, 1);
    let refusal = bench.refusal(of([step("x", "true")]).timeout(Duration::ZERO)).await;
    assert!(refusal.contains("`timeout` must be from 1"), "{refusal}");
}

#[tokio::test]
async fn what_depends_on_a_failure_is_run_again_with_it() {
    let bench = bench();
    let request = of([
        step("setup", "echo setup >>log"),
        step("test", "echo test >>log; [ -e mended ]"),
        step("teardown", "echo teardown >>log").run_if(RunIf::Always),
        step("alarm", "echo alarm >>log").after(["test"]).run_if(RunIf::Failure),
        step("deploy", "echo deploy >>log").after(["test"]),
    ]);
    let record = bench.run(request).await;
    bench.write("mended");
    bench.remove("log");
    let again = bench.engine.batches().rerun(&bench.alice, &record.info.id, true).await;
    let id = again.expect("accepted").record.info.id;
    let record = over(&bench.engine, &bench.alice, id.as_str()).await;
    let ids: Vec<&str> = record.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["test", "teardown", "alarm", "deploy"]);
    assert_eq!(record.info.state, BatchState::Succeeded);
    let log = std::fs::read_to_string(bench.root.path().join("log")).expect("reads");
    let mut log: Vec<&str> = log.lines().collect();
    log.sort_unstable();
    assert_eq!(log, ["deploy", "teardown", "test"]);
}

#[tokio::test]
async fn batches_are_found_by_what_they_are_labelled() {
    let bench = bench();
    let batches = bench.engine.batches();
    for (branch, script) in [("main", "true"), ("main", "false"), ("next", "true")] {
        let request = of([step("x", script)]).name(format!("build {branch}"));
        bench.run(request.label("branch", branch).label("kind", "ci")).await;
    }
    let count = async |filter: BatchFilter| {
        let list = batches.list(&bench.alice, &filter, None, 10).await.expect("a list");
        assert_eq!(list.next, None);
        list.batches.len()
    };
    let filter = BatchFilter::new;
    assert_eq!(count(filter().label("branch", "main")).await, 2);
    assert_eq!(count(filter().label("branch", "main").label("kind", "cd")).await, 0);
    assert_eq!(count(filter().name("build next")).await, 1);
    let failed = filter().state(BatchState::Failed);
    assert_eq!(count(failed.clone().label("branch", "main")).await, 1);
    assert_eq!(count(failed.state(BatchState::Succeeded)).await, 3);
    // Page by page, over those that are not meant.
    let main = filter().label("branch", "main");
    let page = batches.list(&bench.alice, &main, None, 1).await.expect("a page");
    assert_eq!(page.batches[0].labels["branch"], "main");
    let next = page.next.expect("more");
    let page = batches.list(&bench.alice, &main, Some(&next), 1).await.expect("a page");
    assert_eq!((page.batches.len(), page.next), (1, None));
    let refusal = bench.refusal(of([step("x", "true")]).label("a b", "")).await;
    assert!(refusal.contains("`labels` hold the name `a b`"), "{refusal}");
}

#[tokio::test]
async fn a_batch_that_is_over_is_removed_when_that_is_asked_for() {
    let bench = bench();
    let batches = bench.engine.batches();
    let record = bench.run(of([step("x", "echo printed; cat").stdin("secret")])).await;
    let kept = bench.run(of([step("x", "true")])).await;
    let id = record.info.id.as_str();
    let outputs = bench.root.path().join("outputs").join(id);
    assert!(outputs.exists());
    batches.purge(&bench.alice, id).await.expect("removed");
    assert!(!outputs.exists());
    assert_eq!(batches.get(&bench.alice, id).await.expect_err("gone").kind(), ErrorKind::NotFound);
    let all = batches.list(&bench.alice, &BatchFilter::new(), None, 10).await.expect("a list");
    assert_eq!(all.batches.iter().map(|info| &info.id).collect::<Vec<_>>(), [&kept.info.id]);
    let again = batches.purge(&bench.alice, id).await;
    assert_eq!(again.expect_err("gone").kind(), ErrorKind::NotFound);

    let running = bench.submit(of([step("x", "sleep 600")])).await;
    let id = running.info.id.as_str();
    let refused = batches.purge(&bench.alice, id).await;
    assert_eq!(refused.expect_err("it runs").kind(), ErrorKind::Conflict);
    let other = batches.purge(&caller("bob"), kept.info.id.as_str()).await;
    assert_eq!(other.expect_err("not his").kind(), ErrorKind::NotFound);
    batches.cancel(&bench.alice, id).await.expect("cancelled");
}

#[tokio::test]
async fn a_record_tells_what_its_steps_are_given() {
    let bench = bench();
    std::fs::create_dir(bench.root.path().join("sub")).expect("made");
    let step = step("x", "true").workdir("sub").env("SECRET", "s3cret").env("A", "b");
    let record = bench.run(of([step]).label("a", "b")).await;
    let told = &record.steps[0];
    assert_eq!(told.args, ["true"]);
    assert_eq!(told.workdir.as_deref(), Some("sub"));
    assert_eq!(told.env, ["A", "SECRET"]);
    assert!(!format!("{record:?}").contains("s3cret"));
    let info = bench.engine.batches().info(&bench.alice, &record.info.id).await;
    assert_eq!(info.expect("a batch"), record.info);
}

/// Takes an hour for everything, by the clock that tests can hold.
struct Slow;

impl Execute for Slow {
    async fn execute(
        &self,
        _: Command,
        _: Stdin,
        output: Output,
        _: Cancel,
    ) -> Result<Exit, ExecuteError> {
        output.started();
        tokio::time::sleep(HOUR).await;
        Ok(Exit::new(ExitStatus::Code(0)))
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// The clock of the wall stands still meanwhile, as good as.
#[tokio::test(start_paused = true)]
async fn durations_are_told_by_a_clock_that_does_not_jump() {
    let root = tempfile::tempdir().expect("a directory");
    let batches = BatchPolicy::new(MemoryStore::new(), root.path());
    let engine = Engine::builder(Slow).batches(batches).build().expect("built");
    let (alice, batches) = (caller("alice"), engine.batches());
    let request = of([step("1", ""), step("2", "")]);
    let submitted = batches.submit(&alice, request, None).await.expect("accepted");
    let record = batches.wait(&alice, &submitted.record.info.id).await.expect("over");
    assert_eq!(record.info.state, BatchState::Succeeded);
    assert!(record.info.duration.is_some_and(|duration| duration >= 2 * HOUR), "{record:?}");
    assert!(record.steps.iter().all(|step| step.duration.is_some_and(|one| one >= HOUR)));
}

/// A file that whoever opens it to write waits for, as for a disk that takes nothing, until this is dropped.
struct Stuck(PathBuf);

impl Stuck {
    fn at(path: PathBuf) -> Self {
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("runs");
        assert!(made.success());
        Self(path)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&self.0));
    }
}

#[tokio::test]
async fn the_end_of_an_engine_waits_for_a_disk_that_takes_nothing_for_a_bounded_time() {
    let bench = bench();
    let script = "while [ ! -e go ]; do sleep 0.01; done; echo word; echo >up";
    let record = bench.submit(of([step("one", script)])).await;
    let id = record.info.id.as_str();
    let outputs = bench.root.path().join("outputs").join(id);
    std::fs::create_dir_all(&outputs).expect("made");
    let stuck = Stuck::at(outputs.join("1-1.stdout"));
    std::fs::write(bench.root.path().join("go"), "").expect("written");
    eventually("it has printed", || bench.root.path().join("up").exists()).await;
    // It has 10 s to take what was printed, and as much to take the end.
    let drained = bench.engine.drain(Duration::ZERO);
    let drained = tokio::time::timeout(Duration::from_secs(60), drained).await;
    drained.expect("drained in time");
    drop(stuck);
    for _ in 0..3000 {
        let record = bench.engine.batches().get(&bench.alice, id).await.expect("is there");
        if let Some(problem) = &record.steps[0].problem {
            assert!(problem.contains("before the engine ended"), "{problem}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("its end is not written down");
}

#[tokio::test]
async fn a_cancelled_step_ends_while_the_disk_takes_nothing() {
    let bench = bench();
    let script = "trap 'echo >ended; exit 1' TERM; while [ ! -e go ]; do sleep 0.01; done; \
                  echo word; echo >up; while :; do sleep 0.01; done";
    let record = bench.submit(of([step("one", script)])).await;
    let id = record.info.id;
    let outputs = bench.root.path().join("outputs").join(id.as_str());
    std::fs::create_dir_all(&outputs).expect("made");
    let stuck = Stuck::at(outputs.join("1-1.stdout"));
    std::fs::write(bench.root.path().join("go"), "").expect("written");
    eventually("it has printed", || bench.root.path().join("up").exists()).await;
    let cancelling = tokio::spawn({
        let (batches, alice) = (bench.engine.batches(), bench.alice.clone());
        async move { batches.cancel(&alice, &id).await }
    });
    eventually("it is ended", || bench.root.path().join("ended").exists()).await;
    drop(stuck);
    let record = cancelling.await.expect("no panic").expect("known");
    assert_eq!(record.info.state, BatchState::Cancelled);
}
