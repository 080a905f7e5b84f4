use std::time::{Duration, SystemTime};

use splengine_core::batch::{
    BatchEventKind, BatchFilter, BatchPolicy, BatchRecord, BatchState, FailFast, JobAction,
    JobEvent, RunIf, StepCheck, StepInfo, StepState,
};
use splengine_core::engine::{EngineBuilder, PartState};
use splengine_core::execute::Stream;
use splengine_core::quota::LargeWork;
use splengine_core::store::{Change, MemoryStore, RedbStore, Store, StoreFault};
use splengine_core::{
    BatchError, BatchJob, BatchRequest, Caller, Engine, ErrorKind, LocalExecutor, Reason, Request,
    Scope, SessionRequest, Step,
};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::store::TestStore;
use crate::support::{caller, eventually, sh};

struct Bench {
    engine: Engine,
    alice: Caller,
    root: TempDir,
    store: TestStore,
}

fn bench() -> Bench {
    bench_with(|policy| policy, |builder| builder)
}

fn bench_with(
    policy: impl FnOnce(BatchPolicy) -> BatchPolicy,
    builder: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Bench {
    let root = tempfile::tempdir().expect("a directory");
    let store = TestStore::default();
    let engine = engine(&root, &store, policy, builder);
    Bench { engine, alice: caller("alice"), root, store }
}

fn engine(
    root: &TempDir,
    store: &TestStore,
    policy: impl FnOnce(BatchPolicy) -> BatchPolicy,
    builder: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Engine {
    let outputs = root.path().join("runtime/batches");
    let batches = BatchPolicy::new(store.clone(), outputs);
    let executor = LocalExecutor::new(root.path()).expect("set up");
    builder(Engine::builder(executor).grace(Duration::from_millis(500)))
        .batches(policy(batches))
        .build()
        .expect("built")
}

fn step(id: &str, script: &str) -> Step {
    Step::new("sh -c").args([script]).id(id)
}

impl Bench {
    async fn submit(&self, request: BatchRequest) -> BatchRecord {
        let submitted = self.engine.batches().submit(&self.alice, request, None).await;
        submitted.expect("accepted").record
    }

    async fn refusal(&self, request: BatchRequest) -> BatchError {
        let submitted = self.engine.batches().submit(&self.alice, request, None).await;
        submitted.expect_err("refused")
    }

    /// The next engine, which uses the same store, and the record once that has brought it to its end.
    async fn over_in_the_next(&self, record: &BatchRecord) -> (Engine, BatchRecord) {
        let next = engine(&self.root, &self.store, |policy| policy, |builder| builder);
        assert_eq!(next.resume().await.batches, 1);
        let batches = next.batches();
        let over = batches.wait(&self.alice, &record.info.id);
        let record = tokio::time::timeout(Duration::from_secs(30), over).await;
        (next, record.expect("over in time").expect("over"))
    }

    async fn wait(&self, record: &BatchRecord) -> BatchRecord {
        let id = record.info.id.as_str();
        let batches = self.engine.batches();
        let over = batches.wait(&self.alice, id);
        let over = tokio::time::timeout(Duration::from_secs(30), over).await;
        over.expect("over in time").expect("over")
    }

    async fn run(&self, request: BatchRequest) -> BatchRecord {
        let record = self.submit(request).await;
        self.wait(&record).await
    }

    async fn output(&self, record: &BatchRecord, step: &str, stream: Stream) -> String {
        let id = record.info.id.as_str();
        let output = self.engine.batches().output(&self.alice, id, step, stream, None).await;
        let bytes = output.expect("a step").read(0, 1 << 20).await.expect("reads");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until something happens to a batch, or finds that it did.
    async fn happens(&self, record: &BatchRecord, is_it: impl Fn(&BatchEventKind) -> bool) {
        let id = record.info.id.as_str();
        let mut events = self.engine.batches().events(&self.alice, id, 0).await.expect("events");
        let find = async {
            while let Some(event) = events.next().await.expect("reads") {
                if is_it(&event.what) {
                    return;
                }
            }
            panic!("it never happened");
        };
        tokio::time::timeout(Duration::from_secs(30), find).await.expect("in time");
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.root.path().join(name)).unwrap_or_default()
    }

    fn write(&self, name: &str) {
        std::fs::write(self.root.path().join(name), "").expect("writes");
    }
}

fn states(record: &BatchRecord) -> Vec<StepState> {
    record.steps.iter().map(|step| step.state).collect()
}

#[tokio::test]
async fn steps_run_one_after_the_other_and_are_told_of() {
    let bench = bench();
    let request = BatchRequest::new()
        .name("three")
        .step(step("one", "echo one; echo err >&2; echo 1 >>order"))
        .step(Step::new("sh -c 'echo two; echo 2 >>order'"))
        .step(step("three", "cat; echo 3 >>order; exit 0").stdin("read").env("K", "V"));
    let record = bench.submit(request).await;
    assert_eq!((record.info.state, record.info.counts.total), (BatchState::Queued, 3));
    let record = bench.wait(&record).await;
    assert_eq!(record.info.state, BatchState::Succeeded);
    assert_eq!(record.info.name.as_deref(), Some("three"));
    assert_eq!((record.info.exit_code, record.info.counts.succeeded), (0, 3));
    assert!(record.info.started >= Some(record.info.created));
    assert!(record.info.ended >= record.info.started);
    let ids: Vec<&str> = record.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["one", "2", "three"]);
    assert_eq!(record.steps[2].depends_on, ["2"]);
    assert_eq!(record.steps[0].reason, Some(Reason::Exited));
    assert_eq!((record.steps[0].stdout_bytes, record.steps[0].stderr_bytes), (4, 4));
    assert_eq!(bench.file("order"), "1\n2\n3\n");
    assert_eq!(bench.output(&record, "one", Stream::Stdout).await, "one\n");
    assert_eq!(bench.output(&record, "one", Stream::Stderr).await, "err\n");
    assert_eq!(bench.output(&record, "three", Stream::Stdout).await, "read");

    let id = record.info.id.as_str();
    let mut events = bench.engine.batches().events(&bench.alice, id, 0).await.expect("events");
    let mut told = Vec::new();
    while let Some(event) = events.next().await.expect("reads") {
        assert_eq!(event.seq, told.len() as u64 + 1);
        told.push(match event.what {
            BatchEventKind::Started { step, attempt } => format!("{step} starts {attempt}"),
            BatchEventKind::Ended(step) => format!("{} {}", step.id, step.state.name()),
            BatchEventKind::Finished { state, .. } => state.name().to_owned(),
            other => format!("{other:?}"),
        });
    }
    let expected = [
        "Queued",
        "Begun",
        "one starts 1",
        "one succeeded",
        "2 starts 1",
        "2 succeeded",
        "three starts 1",
        "three succeeded",
        "succeeded",
    ];
    assert_eq!(told, expected);
    let mut rest = bench.engine.batches().events(&bench.alice, id, 7).await.expect("events");
    assert_eq!(rest.next().await.expect("reads").expect("an event").seq, 8);
}

#[tokio::test]
async fn results_are_gathered_up_to_their_bound() {
    let bench = bench();
    let request = BatchRequest::new()
        .step(step("much", "head -c 9437184 /dev/zero | tr '\\0' a; echo err >&2"))
        .step(step("gap", "echo 0123456789; exit 3").output_limit(4).independent())
        .step(step("more", "head -c 9437184 /dev/zero | tr '\\0' b").run_if(RunIf::Always))
        .step(step("full", "echo none; echo last >&2").run_if(RunIf::Always))
        .step(step("left-out", "echo never").after(["gap"]));
    let record = bench.submit(request.parallelism(1)).await;
    let record = bench.wait(&record).await;
    let batches = bench.engine.batches();
    let id = record.info.id.as_str();
    let results = batches.results(&bench.alice, id).await.expect("gathered");
    assert_eq!(results.info, record.info);
    let steps: Vec<&StepInfo> = results.steps.iter().map(|result| &result.step).collect();
    assert_eq!(steps, record.steps.iter().collect::<Vec<_>>());
    let [much, gap, more, full, left_out] = &results.steps[..] else { panic!("five steps") };
    assert!(much.stdout.len() == 9 << 20 && much.stdout.iter().all(|byte| *byte == b'a'));
    assert_eq!((&much.stderr[..], much.stdout_cut, much.stderr_cut), (&b"err\n"[..], false, false));
    let at = gap.step.stdout_gap.map(|gap| (gap.at, gap.bytes));
    assert_eq!((&gap.stdout[..], at), (&b"019\n"[..], Some((2, 7))));
    assert!(more.stdout.iter().all(|byte| *byte == b'b'));
    assert_eq!((more.stdout.len(), more.stdout_cut), ((7 << 20) - 4, true));
    // The room of the other stream is its own.
    assert_eq!((&full.stdout[..], full.stdout_cut), (&b""[..], true));
    assert_eq!((&full.stderr[..], full.stderr_cut), (&b"last\n"[..], false));
    assert_eq!((left_out.step.state, left_out.stdout_cut), (StepState::Skipped, false));
    let refused = batches.results(&caller("bob"), id).await;
    assert!(matches!(refused, Err(BatchError::NoBatch(_))), "{refused:?}");
}

#[tokio::test]
async fn what_fails_leaves_out_what_needs_it() {
    let bench = bench();
    let request = BatchRequest::new()
        .step(step("build", "exit 3"))
        .step(step("test", "echo never"))
        .step(step("mend", "echo mended").run_if(RunIf::Failure))
        .step(step("other", "exit 4").independent())
        .step(step("after", "echo went on").after(["mend"]))
        .step(step("clean", "echo cleaned").after(["test"]).run_if(RunIf::Always))
        .step(step("else", "echo elsewhere").after(Vec::<String>::new()));
    let record = bench.run(request).await;
    use StepState::{Failed, Skipped, Succeeded};
    assert_eq!(
        states(&record),
        [Failed, Skipped, Succeeded, Failed, Succeeded, Succeeded, Succeeded]
    );
    // That of `build` is mended.
    assert_eq!((record.info.state, record.info.exit_code), (BatchState::Failed, 4));
    assert_eq!(record.steps[1].problem.as_deref(), Some("a step before it failed"));
    assert_eq!(record.steps[0].exit_code, Some(3));
}

#[tokio::test]
async fn fail_fast_stops_as_much_as_it_is_told_to() {
    for (fail_fast, slow_state, output) in [
        (FailFast::Never, StepState::Succeeded, "done\n"),
        (FailFast::Soon, StepState::Succeeded, "done\n"),
        (FailFast::Now, StepState::Cancelled, ""),
    ] {
        let bench = bench();
        let none = Vec::<String>::new;
        let slow = if fail_fast == FailFast::Now {
            "echo >up; sleep 600; echo done"
        } else {
            "echo >up; while [ ! -e failed ]; do sleep 0.01; done; echo done"
        };
        let request = BatchRequest::new()
            .fail_fast(fail_fast)
            .parallelism(2)
            .step(step("slow", slow).after(none()))
            .step(step("bad", "while [ ! -e up ]; do sleep 0.01; done; exit 1").after(none()))
            .step(step("other", "echo ran").after(none()))
            .step(step("clean", "echo cleaned").after(["slow"]).run_if(RunIf::Always));
        let record = bench.submit(request).await;
        // The slow one gives its place away only when it is known that the other failed.
        let fails =
            |what: &BatchEventKind| matches!(what, BatchEventKind::Ended(step) if step.id == "bad");
        bench.happens(&record, fails).await;
        bench.write("failed");
        let record = bench.wait(&record).await;
        assert_eq!(record.info.state, BatchState::Failed, "{fail_fast:?}");
        assert_eq!(record.steps[0].state, slow_state, "{fail_fast:?}");
        assert_eq!(bench.output(&record, "slow", Stream::Stdout).await, output);
        let other =
            if fail_fast == FailFast::Never { StepState::Succeeded } else { StepState::Skipped };
        assert_eq!(record.steps[2].state, other, "{fail_fast:?}");
        assert_eq!(record.steps[3].state, StepState::Succeeded, "{fail_fast:?}");
    }
}

#[tokio::test]
async fn fail_fast_lets_nothing_begin_that_waits_for_a_place() {
    for (fail_fast, drains) in [
        (FailFast::Soon, false),
        (FailFast::Now, false),
        (FailFast::Soon, true),
        (FailFast::Now, true),
    ] {
        let bench = bench_with(|policy| policy, |builder| builder.max_running(1));
        // What it prints takes its time after its end.
        let bad = "while [ ! -e go ]; do sleep 0.01; done; head -c 3000000 /dev/zero; exit 3";
        let other = || Step::new("sh -c 'echo x >>ran'").independent();
        let request = BatchRequest::new()
            .fail_fast(fail_fast)
            .parallelism(4)
            .step(step("bad", bad))
            .step(other())
            .step(other())
            .step(other());
        let record = bench.submit(request).await;
        bench.happens(&record, |what| matches!(what, BatchEventKind::Started { .. })).await;
        let draining = drains.then(|| {
            let engine = bench.engine.clone();
            tokio::spawn(async move { engine.drain(Duration::from_secs(20)).await })
        });
        eventually("it drains", || !drains || !bench.engine.is_open()).await;
        bench.write("go");
        let record = bench.wait(&record).await;
        use StepState::{Failed, Skipped};
        let why = format!("{fail_fast:?} {drains}");
        assert_eq!(states(&record), [Failed, Skipped, Skipped, Skipped], "{why}");
        assert_eq!(record.steps[3].problem.as_deref(), Some("another step failed"));
        assert_eq!((record.info.exit_code, bench.file("ran").as_str()), (3, ""), "{why}");
        if let Some(draining) = draining {
            draining.await.expect("drained");
        }
    }
}

#[tokio::test]
async fn what_was_withdrawn_stays_that_in_the_next_engine() {
    let bench = bench_with(|policy| policy, |builder| builder.max_running(1));
    let script = "echo x >>cleans; while [ ! -e go ]; do sleep 0.01; done";
    let clean = step("clean", script).after(["bad"]).run_if(RunIf::Always);
    let other = || Step::new("sh -c 'echo x >>ran'").independent();
    let request = BatchRequest::new()
        .fail_fast(FailFast::Soon)
        .parallelism(3)
        .step(step("bad", "exit 3"))
        .step(other())
        .step(other())
        .step(clean.rerun_on_restart(true));
    let record = bench.submit(request).await;
    eventually("it cleans up", || bench.file("cleans") == "x\n").await;
    bench.engine.drain(Duration::ZERO).await;
    bench.write("go");
    let (_, record) = bench.over_in_the_next(&record).await;
    use StepState::{Failed, Skipped, Succeeded};
    assert_eq!(states(&record), [Failed, Skipped, Skipped, Succeeded]);
    assert_eq!((bench.file("ran").as_str(), bench.file("cleans").as_str()), ("", "x\nx\n"));
}

#[tokio::test]
async fn a_step_that_waits_for_a_place_to_be_run_again_keeps_its_result() {
    for cancels in [false, true] {
        let bench = bench_with(|policy| policy, |builder| builder.max_running(1));
        let flaky = step("flaky", "exit 7").independent().retries(3);
        let request = BatchRequest::new()
            .fail_fast(FailFast::Soon)
            .parallelism(2)
            .step(flaky.retry_delay(Duration::ZERO))
            .step(step("bad", "while [ ! -e go ]; do sleep 0.01; done; exit 3").independent());
        let record = bench.submit(request).await;
        bench.happens(&record, |what| matches!(what, BatchEventKind::Due { .. })).await;
        let record = if cancels {
            let id = record.info.id.as_str();
            bench.engine.batches().cancel(&bench.alice, id).await.expect("cancelled")
        } else {
            bench.write("go");
            bench.wait(&record).await
        };
        let bad = if cancels { StepState::Cancelled } else { StepState::Failed };
        assert_eq!(states(&record), [StepState::Failed, bad]);
        let flaky = &record.steps[0];
        assert_eq!((flaky.exit_code, flaky.attempt, record.info.exit_code), (Some(7), 1, 7));
    }
}

#[tokio::test]
async fn a_failing_step_is_run_again() {
    let bench = bench();
    let script = "echo x >>tries; [ $(wc -l <tries) -ge 3 ]";
    let delay = Duration::from_millis(20);
    let request = BatchRequest::new().step(step("flaky", script).retries(2).retry_delay(delay));
    let begun = std::time::SystemTime::now();
    let record = bench.run(request).await;
    assert_eq!(record.info.state, BatchState::Succeeded);
    assert_eq!((record.steps[0].attempt, record.info.exit_code), (3, 0));
    // 20 ms, then twice that.
    assert!(begun.elapsed().expect("forward") >= Duration::from_millis(60));

    let request = BatchRequest::new().step(step("bad", "echo x >>others; exit 9").retries(2));
    let record = bench.run(request).await;
    assert_eq!((record.steps[0].state, record.steps[0].attempt), (StepState::Failed, 3));
    assert_eq!((record.info.exit_code, bench.file("others").as_str()), (9, "x\nx\nx\n"));
}

#[tokio::test]
async fn what_waits_to_be_run_again_keeps_its_result() {
    let flaky = || {
        let delay = Duration::from_secs(600);
        step("flaky", "echo tried; exit 7").independent().retries(3).retry_delay(delay)
    };
    let fails =
        |what: &BatchEventKind| matches!(what, BatchEventKind::Ended(step) if step.id == "flaky");
    let is_kept = async |engine: &Engine, bench: &Bench, record: &BatchRecord| {
        let flaky = &record.steps[0];
        assert_eq!((flaky.state, flaky.exit_code, flaky.attempt), (StepState::Failed, Some(7), 1));
        assert_eq!((flaky.reason, flaky.stdout_bytes), (Some(Reason::Exited), 6));
        assert!(flaky.started.is_some() && flaky.ended.is_some());
        assert_eq!((record.info.exit_code, record.info.counts.retrying), (7, 0));
        let id = record.info.id.as_str();
        let output = engine.batches().output(&bench.alice, id, "flaky", Stream::Stdout, None).await;
        let bytes = output.expect("a step").read(0, 100).await.expect("reads");
        assert_eq!(&bytes[..], b"tried\n");
    };

    // In the engine that saw it fail, and in the next.
    for goes_on in [false, true] {
        let bench = bench();
        let record = bench.submit(BatchRequest::new().step(flaky()).step(Step::new("true"))).await;
        bench.happens(&record, fails).await;
        let engine = if goes_on {
            bench.engine.drain(Duration::ZERO).await;
            let next = engine(&bench.root, &bench.store, |policy| policy, |builder| builder);
            assert_eq!(next.resume().await.batches, 1);
            next
        } else {
            bench.engine.clone()
        };
        let id = record.info.id.as_str();
        let record = engine.batches().cancel(&bench.alice, id).await.expect("cancelled");
        assert_eq!(record.info.state, BatchState::Cancelled);
        assert_eq!(states(&record), [StepState::Failed, StepState::Skipped]);
        is_kept(&engine, &bench, &record).await;
    }

    for fail_fast in [FailFast::Soon, FailFast::Now] {
        let bench = bench();
        let request = BatchRequest::new()
            .fail_fast(fail_fast)
            .parallelism(2)
            .step(flaky())
            .step(step("bad", "while [ ! -e go ]; do sleep 0.01; done; exit 3").independent())
            .step(
                step("clean", "while [ ! -e end ]; do sleep 0.01; done")
                    .after(["flaky"])
                    .run_if(RunIf::Always)
                    .rerun_on_restart(true),
            );
        let record = bench.submit(request).await;
        bench.happens(&record, fails).await;
        bench.write("go");
        let cleans = |what: &BatchEventKind| matches!(what, BatchEventKind::Started { step, .. } if step == "clean");
        bench.happens(&record, cleans).await;
        // The next engine takes it for over as well.
        bench.engine.drain(Duration::ZERO).await;
        bench.write("end");
        let (next, record) = bench.over_in_the_next(&record).await;
        assert_eq!(record.info.state, BatchState::Failed);
        let expected = [StepState::Failed, StepState::Failed, StepState::Succeeded];
        assert_eq!(states(&record), expected, "{fail_fast:?}");
        assert_eq!(record.info.counts.failed, 2);
        is_kept(&next, &bench, &record).await;
    }
}

/// Has three steps, and ends when the first has.
struct Early([Step; 3]);

impl BatchJob for Early {
    fn steps(&self) -> &[Step] {
        &self.0
    }
    fn on_event(&mut self, event: JobEvent) -> Vec<JobAction> {
        match event {
            JobEvent::Begun => vec![JobAction::Start { step: 0 }],
            _ => vec![JobAction::Finish],
        }
    }
}

#[tokio::test]
async fn what_a_job_leaves_is_told_to_be_left_out() {
    let make = |_: &str| Ok::<_, String>(Early(["true", "true", "true"].map(Step::new)));
    let bench = bench_with(|policy| policy.kind("early", make), |builder| builder);
    let batches = bench.engine.batches();
    let submitted = batches.submit_job(&bench.alice, "early", "", None).await.expect("accepted");
    let record = bench.wait(&submitted.record).await;
    assert_eq!(record.info.state, BatchState::Succeeded);
    let left: Vec<Option<&str>> =
        record.steps[1..].iter().map(|step| step.problem.as_deref()).collect();
    assert_eq!(left, [Some("the batch ended without it"); 2]);
    assert_eq!((record.info.counts.skipped, record.info.counts.queued), (2, 0));
}

#[tokio::test]
async fn never_more_run_at_once_than_may() {
    let bench = bench();
    // The first one stays until another has seen it.
    let script = "mkdir up.$1; ls -d up.* | wc -l >>seen; \
                  while ! grep -q '[2-9]' seen; do sleep 0.01; done; sleep 0.02; rmdir up.$1";
    let steps = (0..12).map(|n| {
        let number = n.to_string();
        Step::new("sh -c").args([script, "sh", &number]).after(Vec::<String>::new())
    });
    let request = steps.fold(BatchRequest::new().parallelism(3), BatchRequest::step);
    let record = bench.run(request).await;
    assert_eq!(record.info.state, BatchState::Succeeded);
    let seen: Vec<u32> =
        bench.file("seen").lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert_eq!(seen.len(), 12);
    assert!(seen.iter().all(|count| *count <= 3), "{seen:?}");
    assert!(seen.iter().any(|count| *count > 1), "{seen:?}");
}

#[tokio::test]
async fn what_can_not_run_is_refused_before_anything_starts() {
    let bench = bench();
    let first = || BatchRequest::new().step(step("first", "echo >started"));
    for (request, kind, text) in [
        (BatchRequest::new(), ErrorKind::Malformed, "`steps` must hold"),
        (
            first().step(Step::new("nowhere-to-be-found").id("x").independent()),
            ErrorKind::Impossible,
            "step `x`: program `nowhere",
        ),
        (
            first().step(Step::new("true").id("x").workdir("nowhere").check(StepCheck::Early)),
            ErrorKind::Impossible,
            "step `x`: workdir `nowhere`",
        ),
        (
            first().step(Step::new("true").id("x").after(["y"])),
            ErrorKind::Impossible,
            "step `x`: `depends_on` names `y`",
        ),
        (
            first().step(Step::new("true").id("x").after(["x"])),
            ErrorKind::Impossible,
            "makes a circle: x -> x",
        ),
        (first().step(Step::new("true").id("first")), ErrorKind::Impossible, "step `first`: `id`"),
        (first().step(Step::new("ec'ho")), ErrorKind::Malformed, "step `2`: `command`"),
        (
            first().step(Step::new("true").timeout(Duration::ZERO)),
            ErrorKind::Malformed,
            "step `2`: `timeout`",
        ),
        (
            first().step(Step::new("true").retries(1001)),
            ErrorKind::Impossible,
            "step `2`: `retries`",
        ),
        (first().parallelism(0), ErrorKind::Malformed, "`parallelism` must be"),
        (first().session_id("spl-alice-nowhere"), ErrorKind::NotFound, "there is no session"),
    ] {
        let error = bench.refusal(request).await;
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert_eq!(bench.file("started"), "");
    let all = bench
        .engine
        .batches()
        .list(&bench.alice, &BatchFilter::new(), None, 10)
        .await
        .expect("a list");
    assert_eq!(all.batches, []);
    let nobody = Caller::new("bob").expect("a name").with(Scope::Sessions);
    let refused = bench.engine.batches().submit(&nobody, first(), None).await;
    assert_eq!(refused.expect_err("no right").kind(), ErrorKind::Forbidden);
}

#[tokio::test]
async fn a_cancelled_batch_ends_at_once() {
    let bench = bench();
    let request =
        BatchRequest::new().step(step("slow", "echo >up; sleep 600")).step(step("next", "true"));
    let record = bench.submit(request).await;
    eventually("it runs", || bench.root.path().join("up").exists()).await;
    let id = record.info.id.as_str();
    let record = bench.engine.batches().cancel(&bench.alice, id).await.expect("cancelled");
    assert_eq!(record.info.state, BatchState::Cancelled);
    assert_eq!(states(&record), [StepState::Cancelled, StepState::Skipped]);
    assert_eq!(record.steps[0].reason, Some(Reason::Cancelled));
    // And again, which changes nothing.
    let again = bench.engine.batches().cancel(&bench.alice, id).await.expect("no matter");
    assert_eq!(again, record);
}

#[tokio::test]
async fn a_record_is_of_one_moment() {
    let bench = bench();
    let script = "while [ ! -e go ]; do sleep 0.01; done";
    let record = bench.submit(BatchRequest::new().step(step("one", script))).await;
    bench.happens(&record, |what| matches!(what, BatchEventKind::Started { .. })).await;
    let (reads, goes) = bench.store.hold_scan(record.info.id.as_str());
    let (batches, alice) = (bench.engine.batches(), bench.alice.clone());
    let id = record.info.id.to_string();
    let read = tokio::spawn(async move { batches.get(&alice, &id).await });
    reads.await.expect("its steps are read");
    bench.write("go");
    let over = bench.wait(&record).await;
    goes.send(()).expect("it waits");
    assert_eq!(read.await.expect("no panic").expect("is there"), over);
    assert_eq!(states(&over), [StepState::Succeeded]);
}

#[tokio::test]
async fn a_record_of_a_busy_batch_agrees_with_itself() {
    let bench = bench();
    let step = || Step::new("true").after(Vec::<String>::new());
    let request = (0..40).map(|_| step()).fold(BatchRequest::new(), BatchRequest::step);
    let record = bench.submit(request.parallelism(8)).await;
    loop {
        let id = record.info.id.as_str();
        let now = bench.engine.batches().get(&bench.alice, id).await.expect("is there");
        let of = |state| now.steps.iter().filter(|step| step.state == state).count() as u64;
        let counts = now.info.counts;
        assert_eq!(counts.queued, of(StepState::Queued));
        assert_eq!(counts.running, of(StepState::Running));
        assert_eq!(counts.succeeded, of(StepState::Succeeded));
        if now.info.state.is_final() {
            assert_eq!(counts.succeeded, 40);
            break;
        }
    }
}

#[tokio::test]
async fn a_batch_that_waits_for_a_place_is_cancelled_whole() {
    let bench = bench_with(|policy| policy, |builder| builder.max_running(1));
    let holder = bench.engine.execute(&caller("bob"), sh("sleep 600")).await.expect("runs");
    let record = bench.submit(BatchRequest::new().step(step("a", "")).step(step("b", ""))).await;
    let id = record.info.id.as_str();
    let batches = bench.engine.batches();
    bench.happens(&record, |what| matches!(what, BatchEventKind::Begun)).await;
    let record = batches.cancel(&bench.alice, id).await.expect("cancelled");
    assert_eq!(record.info.state, BatchState::Cancelled);
    assert_eq!(states(&record), [StepState::Cancelled, StepState::Skipped]);
    assert_eq!(record.steps[1].problem.as_deref(), Some("the batch was cancelled"));
    let counts = record.info.counts;
    assert_eq!((counts.total, counts.queued, counts.over()), (2, 0, 2));
    bench
        .happens(
            &record,
            |what| matches!(what, BatchEventKind::Skipped { step, .. } if step == "b"),
        )
        .await;
    holder.stopper().kill();
    holder.capture().await;
}

#[tokio::test]
async fn the_same_key_makes_one_batch() {
    let bench = bench();
    let request = || BatchRequest::new().step(step("one", "echo x >>runs"));
    let batches = bench.engine.batches();
    let posts = (0..50).map(|_| {
        let (batches, alice) = (batches.clone(), bench.alice.clone());
        tokio::spawn(async move { batches.submit(&alice, request(), Some("key")).await })
    });
    let mut ids = std::collections::HashSet::new();
    let mut made = 0;
    for post in posts.collect::<Vec<_>>() {
        let submitted = post.await.expect("no panic").expect("accepted");
        made += u32::from(submitted.is_new);
        ids.insert(submitted.record.info.id);
    }
    assert_eq!((ids.len(), made), (1, 1));
    let id = ids.iter().next().expect("one").to_string();
    batches.wait(&bench.alice, &id).await.expect("over");
    assert_eq!(bench.file("runs"), "x\n");
    let other = BatchRequest::new().step(step("one", "echo other"));
    let refused = batches.submit(&bench.alice, other, Some("key")).await;
    assert!(matches!(refused, Err(BatchError::KeyReused)));
    // Another's key is another key.
    let bob = batches.submit(&caller("bob"), request(), Some("key")).await.expect("accepted");
    assert!(bob.is_new);
    for bad in ["", "with blank", "\u{e4}", &"x".repeat(256)] {
        let refused = batches.submit(&bench.alice, request(), Some(bad)).await;
        assert_eq!(refused.expect_err("refused").kind(), ErrorKind::Malformed);
    }
}

#[tokio::test]
async fn batches_are_their_callers_own() {
    let bench = bench();
    let record = bench.run(BatchRequest::new().step(Step::new("true"))).await;
    let (bob, id) = (caller("bob"), record.info.id.as_str());
    let batches = bench.engine.batches();
    assert!(matches!(batches.get(&bob, id).await, Err(BatchError::NoBatch(_))));
    assert!(matches!(batches.cancel(&bob, id).await, Err(BatchError::NoBatch(_))));
    assert!(matches!(batches.events(&bob, id, 0).await, Err(BatchError::NoBatch(_))));
    assert!(matches!(batches.rerun(&bob, id, false).await, Err(BatchError::NoBatch(_))));
    assert!(matches!(
        batches.output(&bob, id, "1", Stream::Stdout, None).await,
        Err(BatchError::NoBatch(_))
    ));
    assert_eq!(
        batches.list(&bob, &BatchFilter::new(), None, 10).await.expect("a list").batches,
        []
    );
}

#[tokio::test]
async fn lists_come_in_pages_and_by_state() {
    let bench = bench();
    let mut ids = Vec::new();
    for n in 0..7 {
        let command = if n % 3 == 0 { "false" } else { "true" };
        let record = bench.run(BatchRequest::new().step(Step::new(command))).await;
        ids.insert(0, record.info.id);
    }
    let batches = bench.engine.batches();
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = batches
            .list(&bench.alice, &BatchFilter::new(), cursor.as_deref(), 3)
            .await
            .expect("a page");
        assert!(page.batches.len() <= 3);
        found.extend(page.batches.into_iter().map(|batch| batch.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, ids);
    let failed = batches
        .list(&bench.alice, &BatchFilter::new().state(BatchState::Failed), None, 10)
        .await
        .expect("a page");
    let failed: Vec<_> = failed.batches.into_iter().map(|batch| batch.id).collect();
    assert_eq!(failed, [ids[0].clone(), ids[3].clone(), ids[6].clone()]);
    let running =
        batches.list(&bench.alice, &BatchFilter::new().state(BatchState::Running), None, 10).await;
    assert_eq!(running.expect("a page").batches, []);
    let error = batches.list(&bench.alice, &BatchFilter::new(), Some("nonsense"), 10).await;
    assert_eq!(error.expect_err("refused").kind(), ErrorKind::Malformed);
}

#[tokio::test]
async fn a_page_ends_before_its_labels_are_too_long() {
    let bench = bench();
    let batches = bench.engine.batches();
    let (mut ids, mut held) = (Vec::new(), None::<usize>);
    for _ in 0..50 {
        let request = (0..BatchRequest::MAX_LABELS).fold(BatchRequest::new(), |request, number| {
            request.label(format!("label-{number}"), "\u{1f600}".repeat(200))
        });
        let request = request.name("large").step(Step::new("true"));
        let submitted = batches.submit(&bench.alice, request, None).await.expect("accepted");
        held = held.or(Some(submitted.record.info.text_bytes()));
        ids.insert(0, submitted.record.info.id);
    }
    let held = held.expect("submitted");
    assert!((25_000..30_000).contains(&held), "{held}");
    let fit = LargeWork::MAX_PAGE_BYTES / held;
    let (mut found, mut cursor) = (Vec::new(), None::<String>);
    for count in [fit, 50 - fit] {
        let page = batches.list(&bench.alice, &BatchFilter::new(), cursor.as_deref(), 500).await;
        let page = page.expect("a page");
        assert_eq!(page.batches.len(), count);
        found.extend(page.batches.into_iter().map(|batch| batch.id));
        cursor = page.next;
    }
    assert_eq!((found, cursor), (ids, None));
}

#[tokio::test]
async fn what_failed_is_run_again() {
    let bench = bench();
    let request = BatchRequest::new()
        .step(step("one", "echo 1 >>runs"))
        .step(step("two", "echo 2 >>runs; [ -e mended ]"))
        .step(step("three", "echo 3 >>runs"));
    let record = bench.run(request).await;
    assert_eq!(record.info.state, BatchState::Failed);
    bench.write("mended");
    let batches = bench.engine.batches();
    let id = record.info.id.as_str();
    let again = batches.rerun(&bench.alice, id, true).await.expect("accepted").record;
    assert_eq!(again.info.rerun_of.as_ref(), Some(&record.info.id));
    let again = bench.wait(&again).await;
    assert_eq!(again.info.state, BatchState::Succeeded);
    let ids: Vec<&str> = again.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["two", "three"]);
    assert_eq!(bench.file("runs"), "1\n2\n2\n3\n");
    let error = batches.rerun(&bench.alice, &again.info.id, true).await;
    assert_eq!(error.expect_err("none failed").kind(), ErrorKind::Conflict);
    let all = batches.rerun(&bench.alice, id, false).await.expect("accepted").record;
    assert_eq!(bench.wait(&all).await.steps.len(), 3);
}

#[tokio::test]
async fn output_is_followed_while_it_comes() {
    let bench = bench();
    let script = "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two";
    let record = bench.submit(BatchRequest::new().step(step("slow", script))).await;
    let batches = bench.engine.batches();
    let id = record.info.id.as_str();
    let output =
        batches.output(&bench.alice, id, "slow", Stream::Stdout, None).await.expect("a step");
    assert!(output.grows(0).await.expect("reads"));
    assert_eq!(&output.read(0, 100).await.expect("reads")[..], b"one\n");
    bench.write("go");
    assert!(output.grows(4).await.expect("reads"));
    assert_eq!(&output.read(4, 100).await.expect("reads")[..], b"two\n");
    assert!(!output.grows(8).await.expect("reads"));
    let missing = batches.output(&bench.alice, id, "none", Stream::Stdout, None).await;
    assert!(matches!(missing, Err(BatchError::NoStep(_))));
}

#[tokio::test]
async fn output_is_followed_from_run_to_run() {
    let bench = bench();
    let script = "echo x >>tries; while [ ! -e go ]; do sleep 0.01; done; wc -l <tries; \
                  [ $(wc -l <tries) = 3 ]";
    let flaky = step("flaky", script).retries(5).retry_delay(Duration::from_millis(20));
    let record = bench.submit(BatchRequest::new().step(flaky)).await;
    let batches = bench.engine.batches();
    let id = record.info.id.as_str();
    let output = batches.output(&bench.alice, id, "flaky", Stream::Stdout, None).await;
    let mut run = Some(output.expect("a step"));
    bench.write("go");
    let mut runs = Vec::new();
    while let Some(output) = run {
        assert!(output.grows(0).await.expect("reads"));
        runs.push(output.read(0, 100).await.expect("reads"));
        assert!(!output.grows(2).await.expect("reads"));
        run = output.next_run().await.expect("reads");
    }
    assert_eq!(runs, ["1\n", "2\n", "3\n"]);
}

/// What earlier runs printed is kept, and each run's output is told apart.
#[tokio::test]
async fn each_run_of_a_step_has_output_of_its_own() {
    let bench = bench();
    let script = "echo x >>tries; echo run $(wc -l <tries); [ $(wc -l <tries) = 3 ]";
    let flaky = step("flaky", script).retries(5);
    let record = bench.run(BatchRequest::new().step(flaky)).await;
    let (batches, id) = (bench.engine.batches(), record.info.id.as_str());
    let of =
        async |attempt| batches.output(&bench.alice, id, "flaky", Stream::Stdout, attempt).await;
    let mut revisions = Vec::new();
    for attempt in 1..=3 {
        let output = of(Some(attempt)).await.expect("a run");
        assert_eq!(output.attempt(), attempt);
        assert_eq!(output.read(0, 100).await.expect("reads"), format!("run {attempt}\n"));
        assert!(output.is_over().await.expect("known"));
        let next = output.next_run().await.expect("known").map(|next| next.attempt());
        assert_eq!(next, (attempt < 3).then_some(attempt + 1));
        assert!(!revisions.contains(&output.revision()), "{}", output.revision());
        revisions.push(output.revision());
    }
    assert_eq!(of(None).await.expect("a run").attempt(), 3);
    for attempt in [0, 4] {
        let error = of(Some(attempt)).await.expect_err("no such run");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.to_string(),
            format!("step `flaky` has no attempt {attempt}; the last is 3")
        );
    }
}

#[tokio::test]
async fn who_follows_is_told_when_the_engine_shuts_down() {
    let bench = bench();
    let flaky = step("flaky", "exit 1").retries(1).retry_delay(Duration::from_secs(600));
    let record = bench.submit(BatchRequest::new().step(flaky)).await;
    bench.happens(&record, |what| matches!(what, BatchEventKind::Ended(_))).await;
    let batches = bench.engine.batches();
    let id = record.info.id.as_str();
    let output =
        batches.output(&bench.alice, id, "flaky", Stream::Stdout, None).await.expect("a step");
    let next = tokio::spawn(async move { output.next_run().await });
    bench.engine.drain(Duration::ZERO).await;
    let next = tokio::time::timeout(Duration::from_secs(30), next).await.expect("in time");
    assert!(next.expect("no panic").expect("reads").is_none());
}

/// A passing shortage is no failure of a step.
struct Short {
    left: std::sync::atomic::AtomicU32,
}

impl splengine_core::Execute for Short {
    async fn execute(
        &self,
        _: splengine_core::execute::Command,
        _: splengine_core::execute::Stdin,
        output: splengine_core::execute::Output,
        _: splengine_core::execute::Cancel,
    ) -> Result<splengine_core::execute::Exit, splengine_core::ExecuteError> {
        use std::sync::atomic::Ordering::SeqCst;
        if self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(splengine_core::ExecuteError::Exhausted {
                retry_after: Duration::from_secs(1),
                source: std::io::ErrorKind::OutOfMemory.into(),
            });
        }
        output.started();
        Ok(splengine_core::execute::Exit::new(splengine_core::execute::ExitStatus::Code(0)))
    }
}

#[tokio::test]
async fn a_shortage_takes_none_of_a_steps_retries() {
    let root = tempfile::tempdir().expect("a directory");
    let build = |left: u32| {
        let batches = BatchPolicy::new(MemoryStore::new(), root.path());
        Engine::builder(Short { left: left.into() }).batches(batches).build().expect("built")
    };
    let alice = caller("alice");
    let over = async |engine: &Engine, id: &str| {
        let over = engine.batches();
        let over = tokio::time::timeout(Duration::from_secs(30), over.wait(&alice, id)).await;
        over.expect("over in time").expect("its own")
    };
    let engine = build(3);
    let request = || BatchRequest::new().step(Step::new("any"));
    let record = engine.batches().submit(&alice, request(), None).await.expect("accepted");
    let record = over(&engine, record.record.info.id.as_str()).await;
    assert_eq!((record.info.state, record.steps[0].attempt), (BatchState::Succeeded, 1));

    // While it waits it can be cancelled.
    let engine = build(u32::MAX);
    let record = engine.batches().submit(&alice, request(), None).await.expect("accepted");
    let id = record.record.info.id.as_str();
    engine.batches().cancel(&alice, id).await.expect("its own");
    let record = over(&engine, id).await;
    assert_eq!(record.info.state, BatchState::Cancelled);
    assert_eq!(record.steps[0].state, StepState::Cancelled);
}

#[tokio::test]
async fn secrets_and_silence_are_a_steps_too() {
    let bench = bench();
    let hides = step("hides", "echo $TOKEN; echo $TOKEN >&2").env("TOKEN", "hunter2").mask("TOKEN");
    let silent = step("silent", "echo up; sleep 600").idle_timeout(Duration::from_millis(200));
    let record = bench.run(BatchRequest::new().step(hides).step(silent)).await;
    for stream in [Stream::Stdout, Stream::Stderr] {
        assert_eq!(bench.output(&record, "hides", stream).await, "***\n");
    }
    assert_eq!(record.steps[0].stdout_bytes, 4);
    assert!(record.steps[0].cpu_time.is_some());
    assert_eq!(record.steps[1].reason, Some(Reason::TimedOut));
    let unknown = BatchRequest::new().step(step("unknown", "true").mask("TOKEN"));
    let batches = bench.engine.batches();
    let refused = batches.submit(&bench.alice, unknown, None).await.expect_err("refused");
    assert!(refused.to_string().contains("`mask`") && refused.to_string().contains("TOKEN"));
}

#[tokio::test]
async fn of_much_output_the_beginning_and_the_end_are_kept() {
    let bench = bench();
    let record =
        bench.run(BatchRequest::new().step(step("much", "seq 1 100000").output_limit(1000))).await;
    let step: &StepInfo = &record.steps[0];
    let gap = step.stdout_gap.map(|gap| (gap.at, gap.bytes));
    assert_eq!((step.stdout_bytes, gap), (588_895, Some((500, 588_895 - 999))));
    let output = bench.output(&record, "much", Stream::Stdout).await;
    assert!(output.starts_with("1\n2\n") && output.ends_with("\n100000\n"), "{output}");
    assert_eq!(output.len(), 999);
}

#[tokio::test]
async fn a_session_gives_its_directory_and_variables() {
    let bench = bench();
    std::fs::create_dir(bench.root.path().join("below")).expect("makes");
    let request =
        SessionRequest::new().command("sh -c").arg("cd below; echo >ready; read x").env("K", "V");
    let sessions = bench.engine.sessions();
    let session = sessions.create(&bench.alice, request).await.expect("starts");
    eventually("it is there", || bench.root.path().join("below/ready").exists()).await;
    let request = BatchRequest::new()
        .session_id(&session.id)
        .step(step("one", "pwd; echo $K $SPL_SESSION_ID"));
    let record = bench.run(request).await;
    let output = bench.output(&record, "one", Stream::Stdout).await;
    assert!(output.ends_with(&format!("/below\nV {}\n", session.id)), "{output}");
}

#[tokio::test]
async fn a_sessions_variables_are_not_copied_without_bound() {
    let bench = bench();
    let request = SessionRequest::new().command("cat").env("LARGE", "x".repeat(100_000));
    let session = bench.engine.sessions().create(&bench.alice, request).await.expect("starts");
    let of = |count: usize| {
        let request = BatchRequest::new().session_id(session.id.as_str());
        (0..count).map(|_| Step::new("true")).fold(request, BatchRequest::step)
    };
    let refused = bench.engine.batches().submit(&bench.alice, of(200), None).await;
    let error = refused.expect_err("twenty megabytes");
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("the session's variables"), "{error}");
    assert_eq!(bench.run(of(2)).await.info.state, BatchState::Succeeded);
}

#[tokio::test]
async fn one_caller_does_not_starve_another() {
    let bench = bench_with(|policy| policy, |builder| builder.max_running(1));
    let many = (0..10_000).map(|_| Step::new("true"));
    let record = bench.submit(many.fold(BatchRequest::new(), BatchRequest::step)).await;
    let bob = caller("bob");
    let batches = bench.engine.batches();
    for _ in 0..10 {
        let one = BatchRequest::new().step(Step::new("true"));
        let one = batches.submit(&bob, one, None).await.expect("accepted").record.info.id;
        batches.wait(&bob, &one).await.expect("over");
        let run = bench.engine.execute(&bob, Request::new("true")).await.expect("runs");
        assert!(run.capture().await.end.success());
    }
    // Neither is the caller itself kept from single executions.
    let run = bench.engine.execute(&bench.alice, Request::new("true")).await.expect("runs");
    assert!(run.capture().await.end.success());
    let id = record.info.id.as_str();
    let now = batches.get(&bench.alice, id).await.expect("is there");
    assert_eq!(now.info.state, BatchState::Running);
    assert!(now.info.counts.queued > 5_000, "{:?}", now.info.counts);
    batches.cancel(&bench.alice, id).await.expect("cancelled");
}

#[tokio::test]
async fn only_so_much_is_accepted() {
    let bench = bench_with(
        |policy| policy.max_steps(5).max_open_steps_per_caller(8).max_open_steps(12),
        |builder| builder.max_running(1),
    );
    let steps = |count: usize| {
        let all =
            (0..count).map(|n| step(&format!("s{n}"), "while [ ! -e go ]; do sleep 0.01; done"));
        all.fold(BatchRequest::new(), BatchRequest::step)
    };
    let error = bench.refusal(steps(6)).await;
    assert_eq!(error.to_string(), "`steps` are over the maximum of 5");
    let first = bench.submit(steps(5)).await;
    assert!(matches!(bench.refusal(steps(5)).await, BatchError::CallerLimit { limit: 8 }));
    let batches = bench.engine.batches();
    batches.submit(&caller("bob"), steps(5), None).await.expect("accepted");
    let full = batches.submit(&caller("carol"), steps(5), None).await;
    assert_eq!(full.expect_err("full").kind(), ErrorKind::Unavailable);
    bench.write("go");
    bench.wait(&first).await;
    bench.submit(steps(5)).await;
}

#[tokio::test]
async fn the_first_use_resumes_batches_if_nothing_else_has() {
    for first_use in ["wait", "events", "submit", "list", "info"] {
        let bench = bench();
        let once = "if [ ! -e go ]; then exec sleep 600; fi";
        let request = || BatchRequest::new().step(step("one", once).rerun_on_restart(true));
        let submitted = bench.engine.batches().submit(&bench.alice, request(), Some("key")).await;
        let record = submitted.expect("accepted").record;
        let runs = |event: &BatchEventKind| matches!(event, BatchEventKind::Started { .. });
        bench.happens(&record, runs).await;
        bench.engine.drain(Duration::ZERO).await;
        bench.write("go");

        let next = engine(&bench.root, &bench.store, |policy| policy, |builder| builder);
        let (batches, alice, id) = (next.batches(), &bench.alice, &record.info.id);
        let used = async {
            match first_use {
                "wait" => drop(batches.wait_info(alice, id).await.expect("over")),
                "events" => {
                    let mut events = batches.events(alice, id, 0).await.expect("events");
                    while events.next().await.expect("reads").is_some() {}
                    assert!(events.is_over());
                }
                "submit" => {
                    let same = batches.submit(alice, request(), Some("key")).await.expect("known");
                    assert_eq!((&same.record.info.id, same.is_new), (id, false));
                }
                "info" => drop(batches.info(alice, id).await.expect("there")),
                _ => {
                    batches.list(alice, &BatchFilter::new(), None, 10).await.expect("a list");
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), used).await.expect("in time");
        // Not resumed, it would stay open for ever.
        eventually(first_use, || next.batches().open_count() == 0).await;
        let over = batches.get(alice, id).await.expect("there").info;
        assert_eq!(over.state, BatchState::Succeeded, "{first_use}: {over:?}");
        // Told to later, it counts no batch twice.
        assert_eq!(next.resume().await.batches, 1);
    }
}

#[tokio::test]
async fn what_is_old_or_too_much_is_forgotten() {
    let bench = bench();
    let mut records = Vec::new();
    for n in 0..4 {
        records.push(bench.run(BatchRequest::new().step(step("one", &format!("echo {n}")))).await);
    }
    let outputs = bench.root.path().join("runtime/batches");
    let kept = || std::fs::read_dir(&outputs).expect("is there").count();
    assert_eq!(kept(), 4);
    // The next engine looks when it begins.
    bench.engine.drain(Duration::ZERO).await;
    let next = engine(&bench.root, &bench.store, |policy| policy.keep_count(2), |builder| builder);
    next.resume().await;
    eventually("the oldest are gone", || kept() == 2).await;
    let all =
        next.batches().list(&bench.alice, &BatchFilter::new(), None, 10).await.expect("a list");
    let ids: Vec<_> = all.batches.into_iter().map(|batch| batch.id).collect();
    assert_eq!(ids, [records[3].info.id.clone(), records[2].info.id.clone()]);
    let gone = next.batches().get(&bench.alice, records[0].info.id.as_str()).await;
    assert!(matches!(gone, Err(BatchError::NoBatch(_))));
}

#[tokio::test]
async fn what_is_older_or_larger_than_is_kept_is_forgotten() {
    type Configure = fn(BatchPolicy) -> BatchPolicy;
    let by_age: Configure = |policy| policy.keep_for(Duration::ZERO);
    let by_bytes: Configure = |policy| policy.keep_bytes(150_000);
    for (configure, kept) in [(by_age, 0), (by_bytes, 1)] {
        let bench = bench();
        for _ in 0..3 {
            bench.run(BatchRequest::new().step(step("much", "head -c 100000 /dev/zero"))).await;
        }
        bench.engine.drain(Duration::ZERO).await;
        // So that nothing ends within the millisecond in which it is looked at.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let next = engine(&bench.root, &bench.store, configure, |builder| builder);
        next.resume().await;
        let outputs = bench.root.path().join("runtime/batches");
        let count = || std::fs::read_dir(&outputs).expect("is there").count();
        eventually("the old are gone", || count() == kept).await;
        let all =
            next.batches().list(&bench.alice, &BatchFilter::new(), None, 10).await.expect("a list");
        assert_eq!(all.batches.len(), kept);
    }
}

#[tokio::test]
async fn a_damaged_batch_costs_no_other() {
    let bench = bench();
    let script = "while [ ! -e go ]; do sleep 0.01; done";
    let mut records = Vec::new();
    for name in ["first", "damaged", "last"] {
        let request =
            BatchRequest::new().name(name).step(step("one", script).rerun_on_restart(true));
        records.push(bench.submit(request).await);
    }
    bench.engine.drain(Duration::ZERO).await;
    let rows = bench.store.scan(&[0], &[255], false, 1000).expect("reads");
    let id = records[1].info.id.as_str().as_bytes();
    let of_damaged = rows.into_iter().filter(|(key, value)| {
        key.windows(id.len()).any(|part| part == id) && value.first() == Some(&b'{')
    });
    let spoilt: Vec<Change> = of_damaged.map(|(key, _)| Change::set(key, *b"{\"half")).collect();
    assert!(spoilt.len() >= 4, "{}", spoilt.len());
    bench.store.commit(&spoilt).expect("writes");
    bench.write("go");
    let next = engine(&bench.root, &bench.store, |policy| policy, |builder| builder);
    assert_eq!(next.resume().await.batches, 2);
    let batches = next.batches();
    for record in [&records[0], &records[2]] {
        let over = batches.wait(&bench.alice, &record.info.id).await.expect("over");
        assert_eq!(over.info.state, BatchState::Succeeded);
    }
    let refused = batches.get(&bench.alice, records[1].info.id.as_str()).await;
    assert!(matches!(refused, Err(BatchError::Damaged)), "{refused:?}");
    let listed = batches.list(&bench.alice, &BatchFilter::new(), None, 10).await.expect("a list");
    assert_eq!(listed.batches.len(), 2);
}

#[test]
fn a_damaged_store_is_told_of_and_left_alone() {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("batches.redb");
    let store = RedbStore::open(&file).expect("makes it");
    store.commit(&[Change::set(*b"key", *b"value")]).expect("writes");
    assert!(matches!(RedbStore::open(&file), Err(StoreFault::InUse { .. })));
    // Whoever has it may be about to let go.
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(store);
    });
    let again = RedbStore::open(&file).expect("opens it");
    leaving.join().expect("left");
    assert_eq!(again.get(b"key").expect("reads"), Some(b"value".to_vec()));
    drop(again);
    let mut bytes = std::fs::read(&file).expect("reads");
    bytes[..64].fill(0x55);
    std::fs::write(&file, &bytes).expect("writes");
    let error = RedbStore::open(&file).expect_err("damaged");
    assert!(matches!(error, StoreFault::Damaged(_)), "{error:?}");
    assert_eq!(std::fs::read(&file).expect("reads"), bytes);
}

#[tokio::test]
async fn batches_are_not_ready_while_their_store_fails() {
    let bench = bench();
    let batches = async || {
        let readiness = bench.engine.readiness().await;
        let (_, state) = readiness.parts().iter().find(|(part, _)| *part == "batches").expect("on");
        assert_eq!(readiness.is_ready(), *state == PartState::Ready);
        *state
    };
    assert_eq!(batches().await, PartState::Ready);
    bench.store.fill(true);
    // A write that fails tells of it.
    let record = async || {
        let request = BatchRequest::new().step(Step::new("true"));
        bench.engine.batches().submit(&bench.alice, request, None).await
    };
    let _ = record().await.expect_err("refused");
    let begun = Instant::now();
    let reason = loop {
        match batches().await {
            PartState::Failing { reason } => break reason,
            state => assert!(begun.elapsed() < Duration::from_secs(30), "still {state:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(reason.contains("no room left"), "{reason}");
    // Nobody submits anything: it is found out by itself that it can be written again.
    bench.store.fill(false);
    while batches().await != PartState::Ready {
        assert!(begun.elapsed() < Duration::from_secs(30), "it fails for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(record().await.is_ok());
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let bench = bench();
    let script = "echo >up; while [ ! -e go ]; do sleep 0.01; done";
    let request = BatchRequest::new().step(step("one", script)).step(step("two", "echo >second"));
    let record = bench.submit(request).await;
    eventually("it runs", || bench.root.path().join("up").exists()).await;
    bench.store.fill(true);
    let refused = bench.refusal(BatchRequest::new().step(Step::new("true"))).await;
    assert_eq!(
        (refused.kind(), refused.to_string().as_str()),
        (ErrorKind::NoRoom, "there is no room left on the disk")
    );
    bench.write("go");
    // What can't be written has not happened: the second step is not started.
    let id = record.info.id.as_str();
    let run = bench.engine.execute(&bench.alice, sh("sleep 0.3")).await.expect("runs");
    run.capture().await;
    let now = bench.engine.batches().get(&bench.alice, id).await.expect("is there");
    assert_eq!(states(&now), [StepState::Running, StepState::Queued]);
    assert!(!bench.root.path().join("second").exists());
    bench.store.fill(false);
    assert_eq!(bench.wait(&record).await.info.state, BatchState::Succeeded);
}

#[tokio::test]
async fn a_drained_batch_goes_on_in_the_next_engine() {
    let bench = bench();
    let request = BatchRequest::new()
        .step(step("one", "echo 1 >>runs; echo >up; while [ ! -e go ]; do sleep 0.01; done"))
        .step(step("two", "echo 2 >>runs; sleep 600").rerun_on_restart(true).after(["one"]))
        .step(step("three", "echo 3 >>runs"));
    let record = bench.submit(request).await;
    eventually("it runs", || bench.root.path().join("up").exists()).await;
    let draining = {
        let engine = bench.engine.clone();
        tokio::spawn(async move { engine.drain(Duration::from_secs(20)).await })
    };
    eventually("it drains", || !bench.engine.is_open()).await;
    bench.write("go");
    draining.await.expect("drained");
    // The first step was given its time; the second was not begun.
    let now = bench.engine.batches().get(&bench.alice, &record.info.id).await;
    let now = now.expect("is there");
    assert_eq!(states(&now), [StepState::Succeeded, StepState::Queued, StepState::Queued]);

    let next = engine(&bench.root, &bench.store, |policy| policy, |builder| builder);
    assert_eq!(next.resume().await.batches, 1);
    eventually("the second runs", || bench.file("runs") == "1\n2\n").await;
    // This one is not given its time: it is stopped, lost, and by its own wish run again.
    next.drain(Duration::ZERO).await;
    let now = next.batches().get(&bench.alice, &record.info.id).await.expect("is there");
    let lost = &now.steps[1];
    assert_eq!((lost.reason, lost.exit_code), (Some(Reason::Lost), Some(125)));
    assert_eq!(lost.signal, None);
    let script = bench.root.path().join("sleep");
    std::fs::write(script, "").expect("writes");
    let last = engine(&bench.root, &bench.store, |policy| policy, |builder| builder);
    assert_eq!(last.resume().await.batches, 1);
    eventually("it runs again", || bench.file("runs") == "1\n2\n2\n").await;
    let id = record.info.id.as_str();
    let record = last.batches().get(&bench.alice, id).await.expect("is there");
    assert_eq!((record.steps[1].state, record.steps[1].attempt), (StepState::Running, 2));
    let record = last.batches().cancel(&bench.alice, id).await.expect("cancelled");
    assert_eq!(record.info.state, BatchState::Cancelled);
    let mut events = last.batches().events(&bench.alice, id, 0).await.expect("events");
    let mut seqs = Vec::new();
    while let Some(event) = events.next().await.expect("reads") {
        seqs.push(event.seq);
    }
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
    assert_eq!(record.info.last_event, seqs.len() as u64);
    assert!(record.info.created <= SystemTime::now());
}

#[tokio::test]
async fn without_a_policy_there_are_none() {
    let bench = crate::support::bench();
    assert!(!bench.engine.has_batches());
    let request = BatchRequest::new().step(Step::new("true"));
    let refused = bench.engine.batches().submit(&caller("alice"), request, None).await;
    assert!(matches!(refused, Err(BatchError::NoStore)));
}
