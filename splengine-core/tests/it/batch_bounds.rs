//! What is kept of batches: of whom, how much, and for how long.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use splengine_core::batch::{
    BatchFilter, BatchPolicy, BatchRecord, BatchState, JobAction, JobEvent, RetryOn,
};
use splengine_core::engine::{BuildError, EngineBuilder};
use splengine_core::execute::Stream;
use splengine_core::store::{Change, MemoryStore, RedbStore, SalvagedStore, Store, StoreFault};
use splengine_core::{
    BatchError, BatchJob, BatchRequest, Caller, Engine, ErrorKind, Field, LocalExecutor, Reason,
    Request, Step,
};
use tempfile::TempDir;

use crate::sharing::is_shared;
use crate::store::TestStore;
use crate::support::{caller, eventually};

struct Bench {
    engine: Engine,
    root: TempDir,
    store: TestStore,
}

fn bench(policy: impl FnOnce(BatchPolicy) -> BatchPolicy) -> Bench {
    bench_with(policy, |builder| builder)
}

fn bench_with(
    policy: impl FnOnce(BatchPolicy) -> BatchPolicy,
    builder: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Bench {
    let root = tempfile::tempdir().expect("a directory");
    let store = TestStore::default();
    let engine = engine(&root, &store, policy, builder);
    Bench { engine, root, store }
}

fn engine(
    root: &TempDir,
    store: &TestStore,
    policy: impl FnOnce(BatchPolicy) -> BatchPolicy,
    builder: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Engine {
    let batches = BatchPolicy::new(store.clone(), root.path().join("outputs"));
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = builder(Engine::builder(executor).grace(Duration::from_millis(500)));
    engine.batches(policy(batches)).build().expect("built")
}

fn sh(script: &str) -> Step {
    Step::new("sh -c").args([script])
}

fn one(step: Step) -> BatchRequest {
    BatchRequest::new().step(step)
}

async fn run(engine: &Engine, who: &Caller, request: BatchRequest) -> BatchRecord {
    let submitted = engine.batches().submit(who, request, None).await.expect("accepted");
    over(engine, who, submitted.record.info.id.as_str()).await
}

async fn over(engine: &Engine, who: &Caller, id: &str) -> BatchRecord {
    let batches = engine.batches();
    let over = tokio::time::timeout(Duration::from_secs(60), batches.wait(who, id)).await;
    over.expect("over in time").expect("over")
}

async fn count(engine: &Engine, who: &Caller) -> usize {
    engine.batches().list(who, &BatchFilter::new(), None, 500).await.expect("a list").batches.len()
}

/// Until a number of batches is what it is to be.
async fn until(engine: &Engine, who: &Caller, wanted: usize) {
    for _ in 0..3000 {
        if count(engine, who).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} batches, not {wanted}", count(engine, who).await);
}

impl Bench {
    fn inputs_of(&self, record: &BatchRecord) -> PathBuf {
        self.root.path().join("outputs").join(record.info.id.as_str()).join("inputs")
    }

    /// Whether the store or a file of outputs holds this text.
    fn holds(&self, text: &str) -> bool {
        let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        let rows = self.store.scan(&[0], &[255], false, 10_000).expect("reads");
        rows.iter().any(|(key, value)| holds(key) || holds(value))
    }
}

#[tokio::test]
async fn one_callers_batches_make_room_for_no_others() {
    let bench = bench(|policy| policy.keep_count(7).keep_count_per_caller(5));
    let (alice, bob) = (caller("alice"), caller("bob"));
    let batches = bench.engine.batches();
    for key in ["first", "second"] {
        let submitted = batches.submit(&alice, one(sh("true")), Some(key)).await.expect("accepted");
        over(&bench.engine, &alice, submitted.record.info.id.as_str()).await;
    }
    for _ in 0..12 {
        run(&bench.engine, &bob, one(sh("true"))).await;
    }
    until(&bench.engine, &bob, 5).await;
    assert_eq!(count(&bench.engine, &alice).await, 2);
    let again = batches.submit(&alice, one(sh("true")), Some("first")).await.expect("is there");
    assert!(!again.is_new);
    // A third caller's: it is bob who has the most.
    let carol = caller("carol");
    for _ in 0..2 {
        run(&bench.engine, &carol, one(sh("true"))).await;
    }
    until(&bench.engine, &bob, 3).await;
    assert_eq!(count(&bench.engine, &alice).await, 2);
    assert_eq!(count(&bench.engine, &carol).await, 2);
}

/// Where there is room for all, each caller has a bound of their own.
#[tokio::test]
async fn of_one_caller_only_so_much_is_kept() {
    let (alice, bob) = (caller("alice"), caller("bob"));
    let by_count = bench(|policy| policy.keep_count(100).keep_count_per_caller(2));
    let by_size = bench(|policy| policy.keep_bytes(1 << 20).keep_bytes_per_caller(25_000));
    for bench in [by_count, by_size] {
        let print = || one(sh("head -c 9000 /dev/zero"));
        for _ in 0..2 {
            run(&bench.engine, &bob, print()).await;
        }
        for _ in 0..5 {
            run(&bench.engine, &alice, print()).await;
        }
        until(&bench.engine, &alice, 2).await;
        assert_eq!(count(&bench.engine, &bob).await, 2);
    }
}

#[tokio::test]
async fn a_key_is_known_for_longer_than_its_batch() {
    let bench = bench(|policy| policy.keep_count_per_caller(0));
    let alice = caller("alice");
    let batches = bench.engine.batches();
    let submit = || batches.submit(&alice, one(sh("echo >>runs")), Some("key"));
    let record = submit().await.expect("accepted").record;
    eventually("it ran", || bench.root.path().join("runs").exists()).await;
    until(&bench.engine, &alice, 0).await;
    let refused = submit().await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert!(refused.to_string().contains("idempotency key"), "{refused}");
    let other = batches.submit(&alice, one(sh("false")), Some("key")).await;
    assert!(matches!(other, Err(BatchError::KeyReused)), "{other:?}");
    // Others have keys of their own.
    let bob = caller("bob");
    assert!(batches.submit(&bob, one(sh("true")), Some("key")).await.expect("accepted").is_new);
    bench.engine.drain(Duration::from_secs(20)).await;
    let runs = std::fs::read_to_string(bench.root.path().join("runs")).expect("reads");
    assert_eq!(runs, "\n", "{record:?}");

    // Some time later it is anybody's again.
    let short = |policy: BatchPolicy| policy.keep_count_per_caller(0).keep_keys_for(Duration::ZERO);
    let next = engine(&bench.root, &bench.store, short, |builder| builder);
    next.resume().await;
    let batches = next.batches();
    for _ in 0..3000 {
        match batches.submit(&alice, one(sh("true")), Some("key")).await {
            Ok(submitted) => {
                assert!(submitted.is_new);
                return;
            }
            Err(error) => {
                assert!(matches!(error, BatchError::Conflict(_) | BatchError::KeyReused), "{error}")
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the key is known for ever");
}

#[tokio::test]
async fn keys_of_one_caller_push_out_none_of_others() {
    let bench = bench(|policy| policy.keep_count_per_caller(0).keep_keys_per_caller(2));
    let (alice, bob) = (caller("alice"), caller("bob"));
    let batches = bench.engine.batches();
    let submit = async |caller, key| batches.submit(caller, one(sh("true")), Some(key)).await;
    for (caller, key) in [(&bob, "bobs"), (&alice, "1"), (&alice, "2"), (&alice, "3")] {
        assert!(submit(caller, key).await.expect("accepted").is_new);
        until(&bench.engine, caller, 0).await;
    }
    let mut tries = 0..3000;
    while let Err(error) = submit(&alice, "1").await {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        tries.next().expect("the oldest of one key too many is forgotten");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (caller, key) in [(&alice, "3"), (&bob, "bobs")] {
        let known = submit(caller, key).await.expect_err("it is known");
        assert_eq!(known.kind(), ErrorKind::Conflict, "{known}");
    }
}

#[tokio::test]
async fn what_steps_are_given_is_not_in_the_record_and_gone_some_time_after_the_end() {
    let bench = bench(|policy| policy.keep_inputs_for(Duration::ZERO));
    let alice = caller("alice");
    let script = "read line; while [ ! -e go ]; do sleep 0.01; done; echo $line $VARIABLE";
    let given = || {
        let step = sh(script).env("VARIABLE", "hush-hush").stdin("whispered\n");
        step.rerun_on_restart(true)
    };
    let batches = bench.engine.batches();
    let request = one(given()).step(given());
    let record = batches.submit(&alice, request, None).await.expect("accepted").record;
    // Standard input is in Base64, if anything.
    for text in ["hush-hush", "whispered", "d2hpc3BlcmVk"] {
        assert!(!bench.holds(text), "{text}");
    }
    let inputs = bench.inputs_of(&record);
    let mode = inputs.metadata().expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // They survive the engine for as long as they are needed.
    bench.engine.drain(Duration::ZERO).await;
    let keep = |policy: BatchPolicy| policy.keep_inputs_for(Duration::ZERO);
    let next = engine(&bench.root, &bench.store, keep, |builder| builder);
    std::fs::write(bench.root.path().join("go"), "").expect("writes");
    assert_eq!(next.resume().await.batches, 1);
    let id = record.info.id.as_str();
    let first = over(&next, &alice, id).await;
    assert_eq!(first.info.state, BatchState::Succeeded);
    let again = run(&next, &alice, one(given())).await;
    assert_eq!(again.info.state, BatchState::Succeeded);
    for id in [id, again.info.id.as_str()] {
        let output = next.batches().output(&alice, id, "1", Stream::Stdout, None).await;
        let output = output.expect("a step").read(0, 100).await.expect("reads");
        assert_eq!(&output[..], b"whispered hush-hush\n");
    }
    eventually("they are gone", || !inputs.exists() && !bench.inputs_of(&again).exists()).await;
    for id in [id, again.info.id.as_str()] {
        let refused = next.batches().rerun(&alice, id, false).await.expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert!(refused.to_string().contains("kept no longer"), "{refused}");
    }
    // Without any there is nothing that could be gone.
    let plain = run(&next, &alice, one(sh("true"))).await;
    let rerun = next.batches().rerun(&alice, &plain.info.id, false).await.expect("rerun");
    assert_eq!(rerun.record.info.rerun_of, Some(plain.info.id));
}

#[tokio::test]
async fn a_batch_is_run_again_with_what_it_was_given() {
    let bench = bench(|policy| policy);
    let alice = caller("alice");
    let step = sh("cat; echo $VARIABLE; exit 3").env("VARIABLE", "value").stdin("read ");
    let record = run(&bench.engine, &alice, one(step)).await;
    assert_eq!(record.info.state, BatchState::Failed);
    let batches = bench.engine.batches();
    let rerun = batches.rerun(&alice, &record.info.id, true).await.expect("rerun").record;
    let id = rerun.info.id.as_str();
    over(&bench.engine, &alice, id).await;
    let output = batches.output(&alice, id, "1", Stream::Stdout, None).await.expect("a step");
    assert_eq!(&output.read(0, 100).await.expect("reads")[..], b"read value\n");
}

#[tokio::test]
async fn no_caller_prints_more_than_is_kept_of_one() {
    let bench = bench(|policy| policy.keep_bytes_per_caller(200_000));
    let print = || sh("head -c 300000 /dev/zero; echo more >&2").output_limit(1 << 20);
    let alice = caller("alice");
    let record = run(&bench.engine, &alice, one(print())).await;
    let step = &record.steps[0];
    assert_eq!(record.info.state, BatchState::Succeeded);
    assert_eq!(step.stdout_bytes, 300_000);
    let gap = step.stdout_gap.expect("a part is missing");
    assert!(gap.at <= 200_000 && gap.bytes == 300_000 - gap.at, "{gap:?}");
    let problem = step.problem.as_deref().expect("told");
    assert!(problem.contains("not kept") && problem.contains("your batches"), "{problem}");
    let output = bench.engine.batches();
    let output = output.output(&alice, record.info.id.as_str(), "1", Stream::Stdout, None);
    assert_eq!(output.await.expect("a step").length().await.expect("reads"), gap.at);
    // That was hers alone, and only while it was not over.
    let small = || sh("head -c 100000 /dev/zero").output_limit(1 << 20);
    for who in ["bob", "alice"] {
        let record = run(&bench.engine, &caller(who), one(small())).await;
        assert_eq!((record.steps[0].stdout_gap, &record.steps[0].problem), (None, &None));
    }
}

#[tokio::test]
async fn on_a_nearly_full_disk_output_is_not_kept_and_steps_go_on() {
    let bench = bench_with(|policy| policy, |builder| builder.disk_floor(u64::MAX));
    let alice = caller("alice");
    let record = run(&bench.engine, &alice, one(sh("echo printed; exit 4"))).await;
    let step = &record.steps[0];
    let gap = step.stdout_gap.map(|gap| (gap.at, gap.bytes));
    assert_eq!((step.exit_code, step.stdout_bytes, gap), (Some(4), 8, Some((0, 8))));
    assert!(step.problem.as_deref().is_some_and(|text| text.contains("nearly full")), "{step:?}");
    let request = one(sh("true").stdin("text"));
    let refused = bench.engine.batches().submit(&alice, request, None).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::NoRoom, "{refused}");
    let left = std::fs::read_dir(bench.root.path().join("outputs")).expect("reads").count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_store_that_takes_no_new_work_goes_on_with_the_old() {
    let bench = bench(|policy| policy);
    let alice = caller("alice");
    let batches = bench.engine.batches();
    let script = "echo >up; while [ ! -e go ]; do sleep 0.01; done";
    let request = one(sh(script)).step(sh("sleep 600"));
    let record = batches.submit(&alice, request, None).await.expect("accepted").record;
    eventually("it runs", || bench.root.path().join("up").exists()).await;
    bench.store.refuse_work(true);
    let refused = batches.submit(&alice, one(sh("true")), None).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::NoRoom);
    let record = batches.cancel(&alice, &record.info.id).await.expect("cancelled");
    assert_eq!(record.info.state, BatchState::Cancelled);
    bench.store.refuse_work(false);
    assert_eq!(run(&bench.engine, &alice, one(sh("true"))).await.info.state, BatchState::Succeeded);
}

#[tokio::test]
async fn batches_that_are_not_over_hold_so_much_memory_only() {
    const ALL: usize = 100_000;
    const PER_CALLER: usize = 60_000;
    let bench = bench(|policy| policy.max_open_bytes(ALL).max_open_bytes_per_caller(PER_CALLER));
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(caller);
    let batches = bench.engine.batches();
    let waits = |bytes| {
        let step = sh("while [ ! -e go ]; do sleep 0.01; done").rerun_on_restart(true);
        one(step.stdin(vec![b'x'; bytes]))
    };
    let first = batches.submit(&alice, waits(50_000), Some("k")).await.expect("accepted").record;
    let long = "x".repeat(20_000);
    let too_much = [
        one(sh("true").stdin(&long)),
        one(sh("true").env("LONG", &long)),
        one(sh("true").args([&long])),
        one(sh("true").args(vec![""; 150])),
        (0..100).fold(one(sh("true")), |all, _| all.step(sh("true"))),
        one((0..100).fold(sh("true"), |step, number| step.env(format!("V{number}"), ""))),
        one(sh(&long)),
    ];
    for request in too_much {
        let refused = batches.submit(&alice, request, None).await.expect_err("refused");
        let is_hers = matches!(refused, BatchError::CallerInput { max_bytes: PER_CALLER });
        assert!(is_hers && refused.kind() == ErrorKind::CallerLimit, "{refused}");
        assert!(refused.retry_after().is_some());
    }
    // It is there already.
    let again = batches.submit(&alice, waits(50_000), Some("k")).await.expect("known");
    assert_eq!(again.record.info.id, first.info.id);
    let second = batches.submit(&bob, waits(40_000), None).await.expect("accepted").record;
    let refused = batches.submit(&carol, waits(20_000), None).await.expect_err("refused");
    assert!(matches!(refused, BatchError::InputFull { max_bytes: ALL }), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    run(&bench.engine, &carol, one(sh("true"))).await;
    batches.cancel(&bob, &second.info.id).await.expect("cancelled");
    let third = batches.submit(&carol, waits(40_000), None).await.expect("accepted").record;
    bench.engine.drain(Duration::ZERO).await;

    // What is on disk is gone on with, whatever the bound.
    let next = engine(&bench.root, &bench.store, |policy| policy.max_open_bytes(10), |it| it);
    assert_eq!(next.resume().await.batches, 2);
    let refused = next.batches().submit(&bob, waits(20_000), None).await.expect_err("refused");
    assert!(matches!(refused, BatchError::InputFull { max_bytes: 10 }), "{refused}");
    // Who brings little is shut out by nobody.
    run(&next, &bob, one(sh("true"))).await;
    std::fs::write(bench.root.path().join("go"), "").expect("writes");
    for (who, record) in [(&alice, &first), (&carol, &third)] {
        let record = over(&next, who, record.info.id.as_str()).await;
        assert_eq!(record.info.state, BatchState::Succeeded);
    }
    let large = one(sh("true").stdin(vec![b'x'; 20_000]));
    run(&next, &bob, large).await;
}

#[tokio::test]
async fn what_a_batch_held_is_held_by_its_rerun() {
    let bench = bench(|policy| policy.max_open_bytes_per_caller(60_000));
    let alice = caller("alice");
    let large = || one(sh("cat >/dev/null; [ -e go ] && sleep 600").stdin(vec![b'x'; 50_000]));
    let record = run(&bench.engine, &alice, large()).await;
    std::fs::write(bench.root.path().join("go"), "").expect("writes");
    let batches = bench.engine.batches();
    let rerun = batches.rerun(&alice, &record.info.id, false).await.expect("rerun").record;
    let refused = batches.submit(&alice, large(), None).await.expect_err("refused");
    assert!(matches!(refused, BatchError::CallerInput { .. }), "{refused}");
    batches.cancel(&alice, &rerun.info.id).await.expect("cancelled");
}

#[tokio::test]
async fn more_of_a_kind_than_a_step_may_bring_is_refused() {
    let bench = bench(|policy| policy);
    let codes = RetryOn::new().exit_codes(0..=RetryOn::MAX_EXIT_CODES as i32);
    let reasons = RetryOn::new().reasons([Reason::TimedOut; RetryOn::MAX_REASONS + 1]);
    let after = |count| sh("true").id("b").after(vec!["a"; count]);
    let first = || one(sh("true").id("a"));
    for (request, field) in [
        (one(sh("true").retries(1).retry_on(codes)), "`retry_on`"),
        (one(sh("true").retries(1).retry_on(reasons)), "`retry_on`"),
        (first().step(after(Step::MAX_DEPENDENCIES + 1)), "`depends_on` has 65537 elements"),
        (one(sh("true").args(vec![""; Request::MAX_ARGS + 1])), "`args`"),
    ] {
        let refused = bench.engine.batches().submit(&caller("alice"), request, None).await;
        let refused = refused.expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::Impossible, "{refused}");
        assert!(refused.to_string().contains(field), "{refused}");
    }
    run(&bench.engine, &caller("alice"), first().step(after(2))).await;
}

/// A store with many rows, of which some can't be read any more.
fn damaged_store(file: &std::path::Path) -> usize {
    let store = RedbStore::open_with_reserve(file, 0).expect("opens");
    let rows = (0..2000_u32).map(|number| Change::set(format!("row-{number:05}"), [b'v'; 100]));
    store.commit(&rows.collect::<Vec<_>>()).expect("writes");
    drop(store);
    let mut bytes = std::fs::read(file).expect("reads");
    let of_row = bytes.windows(9).position(|part| part == b"row-01000").expect("is there");
    let page = of_row / 4096 * 4096;
    bytes[page..page + 4096].fill(0x55);
    std::fs::write(file, bytes).expect("writes");
    2000
}

#[tokio::test]
async fn around_a_damaged_page_all_is_salvaged_and_no_output_is_lost() {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("batches.redb");
    let all = damaged_store(&file);
    let before = std::fs::read(&file).expect("reads");
    assert!(matches!(RedbStore::open(&file), Err(StoreFault::Damaged(_))));
    let salvaged = SalvagedStore::open(&file).expect("opens");
    let rows = salvaged.scan(b"row-", b"row.", false, 10_000).expect("reads");
    assert!(rows.len() < all && rows.len() > all * 9 / 10, "{} rows", rows.len());
    assert!(rows.first().is_some_and(|(key, _)| key == b"row-00000"));
    assert!(rows.last().is_some_and(|(key, _)| key == b"row-01999"));
    assert!(rows.iter().all(|(_, value)| value == &[b'v'; 100]));
    let [problem] = salvaged.problems() else { panic!("{:?}", salvaged.problems()) };
    assert!(problem.contains("between `row-0"), "{problem}");
    assert_eq!(std::fs::read(&file).expect("reads"), before);

    // What it does not know of may be of a batch that could not be read.
    let output = root.path().join("outputs").join("batch-01a222265d0400007ae8e51dbb872bd3");
    std::fs::create_dir_all(&output).expect("makes it");
    std::fs::write(output.join("1-1.stdout"), "printed").expect("writes");
    let repaired = salvaged.repair().expect("repaired");
    let damaged = repaired.damaged.expect("is kept");
    assert_eq!(std::fs::read(damaged).expect("reads"), before);
    let store = RedbStore::open(&file).expect("opens");
    assert_eq!(store.scan(b"row-", b"row.", false, 10_000).expect("reads"), rows);
    let resume = async |store: RedbStore| {
        let policy = BatchPolicy::new(store, root.path().join("outputs"));
        let executor = LocalExecutor::new(root.path()).expect("set up");
        let engine = Engine::builder(executor).batches(policy).build().expect("built");
        assert!(!engine.resume().await.has_failed);
    };
    resume(store).await;
    assert!(output.join("1-1.stdout").exists());

    // A store that is whole knows all that there is.
    let file = root.path().join("whole.redb");
    let store = RedbStore::open(&file).expect("opens");
    let format = Change::set(*b"format", *br#"{"major":3,"minor":0}"#);
    store.commit(&[format, Change::set(*b"row", *b"value")]).expect("writes");
    resume(store).await;
    assert!(!output.exists());
}

/// What other versions wrote is neither taken for new nor gone on with.
#[test]
fn a_store_of_another_major_version_is_refused_with_words() {
    let root = tempfile::tempdir().expect("a directory");
    for (format, text) in [
        (r#"{"major":2,"minor":0}"#, "the store has the format 2.0, with which this version"),
        (r#"{"major":99,"minor":1}"#, "the store has the format 99.1, and this version knows"),
        ("1", "the store has the format 1.0"),
        ("x", "the store is damaged: its format version can't be read"),
    ] {
        let store = MemoryStore::new();
        store.commit(&[Change::set(*b"format", format)]).expect("writes");
        let executor = LocalExecutor::new(root.path()).expect("set up");
        let policy = BatchPolicy::new(store, root.path());
        let error = Engine::builder(executor).batches(policy).build().expect_err("refused");
        let BuildError::BatchStore(fault) = error else { panic!("{error}") };
        assert!(fault.to_string().contains(text), "{fault}");
    }
}

#[test]
fn a_store_has_a_reserve_and_files_of_its_own() {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("below/batches.redb");
    let store = RedbStore::open_with_reserve(&file, 100_000).expect("opens");
    let reserve = root.path().join("below/batches.redb.reserve");
    assert_eq!(reserve.metadata().expect("is there").len(), 100_000);
    // Whatever takes it away, it is there again before new work is accepted.
    std::fs::remove_file(&reserve).expect("removes");
    drop(store);
    let store = RedbStore::open_with_reserve(&file, 100_000).expect("opens");
    assert_eq!(reserve.metadata().expect("is there").len(), 100_000);
    store.accepts().expect("there is room");
    for entry in std::fs::read_dir(root.path().join("below")).expect("reads").flatten() {
        let mode = entry.metadata().expect("is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}

/// Damage in the midst of what was written is found when the store is opened, not when it is read.
#[test]
fn a_store_with_any_damaged_row_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("store.redb");
    let store = RedbStore::open_with_reserve(&path, 0).expect("made");
    let row = |number: u32| format!("needle-{number:05}-{}", "x".repeat(200)).into_bytes();
    let rows = (0..2000_u32).map(|number| Change::set(number.to_be_bytes(), row(number)));
    store.commit(&rows.collect::<Vec<_>>()).expect("written");
    drop(store);
    let whole = std::fs::read(&path).expect("reads");
    for number in [7, 1000, 1990] {
        let mut damaged = whole.clone();
        let needle = row(number);
        let at = damaged.windows(needle.len()).position(|part| part == needle).expect("is there");
        damaged[at + 100] ^= 1;
        std::fs::write(&path, &damaged).expect("written");
        let refused = RedbStore::open_with_reserve(&path, 0).map(drop).expect_err("refused");
        assert!(matches!(refused, StoreFault::Damaged(_)), "{refused:?}");
        assert!(std::fs::read(&path).expect("reads") == damaged, "it was changed");
    }
    std::fs::write(&path, &whole).expect("written");
    RedbStore::open_with_reserve(&path, 0).expect("whole again");
}

/// A job that has a second step once it runs.
struct Growing(Vec<Step>);

impl BatchJob for Growing {
    fn steps(&self) -> &[Step] {
        &self.0
    }
    fn on_event(&mut self, event: JobEvent) -> Vec<JobAction> {
        match event {
            JobEvent::Begun => {
                self.0
                    .push(sh("while [ ! -e go ]; do sleep 0.01; done").args(["x".repeat(100_000)]));
                vec![JobAction::Start { step: 0 }, JobAction::Start { step: 1 }]
            }
            JobEvent::Ended { step: 1, .. } => vec![JobAction::Finish],
            _ => Vec::new(),
        }
    }
}

#[tokio::test]
async fn steps_that_a_job_adds_hold_memory_like_others() {
    let make = |_: &str| Ok::<_, String>(Growing(vec![Step::new("true")]));
    let bounds = |policy: BatchPolicy| policy.max_open_bytes(150_000);
    let bench =
        bench(|policy| bounds(policy).max_open_bytes_per_caller(150_000).kind("growing", make));
    let (alice, bob) = (caller("alice"), caller("bob"));
    let batches = bench.engine.batches();
    let grown = batches.submit_job(&alice, "growing", "", None).await.expect("accepted").record;
    let id = grown.info.id.as_str();
    let large = || one(Step::new("true").args(["x".repeat(100_000)]));
    let mut tries = 0..3000;
    while batches.get(&alice, id).await.expect("is there").steps.len() < 2 {
        tries.next().expect("it grows");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = batches.submit(&bob, large(), None).await.expect_err("refused");
    assert!(matches!(refused, BatchError::InputFull { .. }), "{refused}");
    std::fs::write(bench.root.path().join("go"), "").expect("writes");
    over(&bench.engine, &alice, id).await;
    assert!(batches.submit(&bob, large(), None).await.is_ok());
}

/// However many ask at once for one that is large.
#[tokio::test]
async fn records_that_are_read_take_no_more_memory_than_there_is_for_them() {
    let bench = bench(|policy| policy);
    let (alice, bob) = (caller("alice"), caller("bob"));
    let batches = bench.engine.batches();
    let args = || vec!["x".repeat(100_000); 10];
    let large = (0..4).fold(BatchRequest::new(), |all, _| all.step(Step::new("true").args(args())));
    let [large, others] =
        [run(&bench.engine, &alice, large.clone()), run(&bench.engine, &bob, large)]
            .map(|run| async { run.await.info.id });
    let (large, others) = (large.await, others.await);
    // Each takes 16 MB of 32 MiB while it is read, and 4 MB as long as it is held; one may go beyond.
    let mut held = Vec::new();
    let refused = loop {
        match batches.get(&alice, &large).await {
            Ok(record) => held.push(record),
            Err(refused) => break refused,
        }
        assert!(held.len() < 20, "there is no bound");
    };
    assert!((5..10).contains(&held.len()), "{}", held.len());
    assert_eq!(refused.kind(), ErrorKind::CallerLimit, "{refused}");
    assert!(
        refused.to_string().starts_with("records of batches that are read for you"),
        "{refused}"
    );
    // What was done is told without steps.
    let cancelled = batches.cancel(&alice, &large).await.expect("is over");
    assert_eq!((cancelled.info.state, cancelled.steps.len()), (BatchState::Succeeded, 0));
    assert!(batches.info(&alice, &large).await.is_ok());
    assert!(batches.rerun(&alice, &large, false).await.is_err());
    // Others have their own share, and what is small is read in any case.
    assert_eq!(batches.get(&bob, &others).await.expect("is read").steps.len(), 4);
    let small = run(&bench.engine, &alice, one(sh("true"))).await;
    assert_eq!(small.steps.len(), 1);
    drop(held);
    assert_eq!(batches.get(&alice, &large).await.expect("is read").steps.len(), 4);
}

#[tokio::test]
async fn steps_are_run_so_many_times_in_all_only() {
    let bench = bench(|policy| policy);
    let (alice, batches) = (caller("alice"), bench.engine.batches());
    let steps = |count: usize, retries| {
        (0..count).fold(BatchRequest::new(), |all, _| all.step(sh("true").retries(retries)))
    };
    let refused = batches.submit(&alice, steps(101, 999), None).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Malformed, "{refused}");
    assert!(refused.to_string().contains("101000 times in all"), "{refused}");
    let fits = batches.submit(&alice, steps(100, 999), None).await.expect("accepted").record;
    let over = over(&bench.engine, &alice, fits.info.id.as_str()).await;
    assert_eq!(over.info.state, BatchState::Succeeded);
}

/// So that others write meanwhile.
#[tokio::test]
async fn a_batch_with_many_events_is_removed_in_parts() {
    let bench = bench(|policy| policy);
    let alice = caller("alice");
    let steps = (0..600).fold(BatchRequest::new(), |all, _| all.step(sh("true")));
    let record = run(&bench.engine, &alice, steps).await;
    assert!(record.info.last_event > 1200);
    let id = record.info.id.as_str();
    let batches = bench.engine.batches();
    bench.store.take_largest_commit();
    batches.purge(&alice, id).await.expect("removed");
    let largest = bench.store.take_largest_commit();
    assert!((100..=600).contains(&largest), "{largest} rows at a time");
    assert!(matches!(batches.get(&alice, id).await, Err(BatchError::NoBatch(_))));
    assert_eq!(bench.store.scan(b"e", b"f", false, 10).expect("reads"), []);
    assert_eq!(bench.store.scan(b"s", b"t", false, 10).expect("reads"), []);
    assert_eq!(bench.store.scan(b"g", b"h", false, 10).expect("reads"), []);
}

#[tokio::test]
async fn what_a_removal_left_is_removed_by_the_next_engine() {
    let bench = bench(|policy| policy);
    let alice = caller("alice");
    let record = run(&bench.engine, &alice, one(sh("true"))).await;
    let id = record.info.id.as_str();
    bench.engine.batches().purge(&alice, id).await.expect("removed");
    // As it stands when an engine ends between two parts.
    let key = |kind: &str, rest: &[u8]| [kind.as_bytes(), b"\0", id.as_bytes(), rest].concat();
    let event = key("e", b"\0\0\0\0\0\0\0\0\x01");
    let changes = [Change::set(key("g", b""), []), Change::set(event, b"{}".to_vec())];
    bench.store.commit(&changes).expect("writes");
    bench.engine.drain(Duration::ZERO).await;
    let next = engine(&bench.root, &bench.store, |policy| policy, |builder| builder);
    next.resume().await;
    let mut tries = 0..1000;
    let is_left = |from: &[u8], until: &[u8]| {
        !bench.store.scan(from, until, false, 10).expect("reads").is_empty()
    };
    while is_left(b"e", b"f") || is_left(b"g", b"h") {
        tries.next().expect("it is removed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn while_a_large_record_is_read_others_are_served() {
    let bench = bench(|policy| policy);
    let (alice, batches) = (caller("alice"), bench.engine.batches());
    let args = vec!["\n".repeat(60_000); 10];
    let large = (0..4).fold(BatchRequest::new(), |all, _| all.step(Step::new("true").args(&args)));
    let id = run(&bench.engine, &alice, large).await.info.id;
    let get = async || {
        let record = batches.get(&alice, &id).await.expect("is read");
        assert_eq!(record.steps.len(), 4);
    };
    let follow = async || {
        batches.events(&alice, &id, 0).await.expect("is read");
    };
    // Whatever else this machine does.
    let (mut of_get, mut of_events) = (false, false);
    for _ in 0..20 {
        of_get |= is_shared(get(), 4).await;
        of_events |= is_shared(follow(), 4).await;
        if of_get && of_events {
            return;
        }
    }
    panic!("{of_get} {of_events}");
}

#[tokio::test]
async fn a_long_directory_is_not_copied_to_very_many_steps() {
    let bench = bench(|policy| policy);
    let steps = |count: usize| (0..count).fold(BatchRequest::new(), |all, _| all.step(sh("true")));
    let submit = async |request| {
        bench.engine.batches().submit(&caller("alice"), request, None).await.map(drop)
    };
    let long = "a".repeat(1 << 20);
    let refused = submit(steps(17).workdir(long.as_str())).await.expect_err("refused");
    assert!(matches!(refused, BatchError::Malformed { field: Field::Steps, .. }), "{refused:?}");
    assert!(refused.to_string().contains("17825792 bytes of the batch's directory"), "{refused}");
    // Of steps with directories of their own none gets it.
    let own = (0..17).fold(BatchRequest::new(), |all, _| all.step(sh("true").workdir(".")));
    submit(own.workdir(long)).await.expect("accepted");
    submit(steps(17).workdir(".")).await.expect("accepted");
}
