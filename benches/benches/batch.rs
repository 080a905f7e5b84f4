//! What durable batches cost: chained and independent `true`s with the store on disk, against the
//! same commands without a batch and against GNU parallel; and what 100,000 kept batches cost.
//!
//! `cargo bench -p benches --bench batch`, with `parallel` on PATH for its part

use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;

use benches::{Times, report, resident};
use splengine_core::batch::{BatchFilter, BatchPolicy, BatchState};
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Stdin};
use splengine_core::store::RedbStore;
use splengine_core::{
    BatchRequest, Caller, Engine, Execute, ExecuteError, LocalExecutor, Request, Step,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::Instant;

const ROUNDS: usize = 10;
const CHAINED: usize = 500;
const INDEPENDENT: usize = 2_500;
const KEPT: usize = 100_000;
const ADDED: usize = 400;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let root = tempfile::tempdir().expect("a directory");
    let engine = engine(LocalExecutor::new("/tmp").expect("set up"), root.path());

    let (mut batched, mut single) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        batched.push(rate(CHAINED, || runtime.block_on(batch(&engine, CHAINED, None))));
        single.push(rate(CHAINED, || runtime.block_on(without(&engine, CHAINED))));
    }
    let (batched, single) = (middle(&mut batched), middle(&mut single));
    let what = "chained `true`s a second, against execute without a batch";
    report(what, batched, single, "/s", "at least 0.6x, and 500/s");

    if Process::new("parallel").arg("--version").stdout(Stdio::null()).status().is_ok() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            ours.push(rate(INDEPENDENT, || runtime.block_on(batch(&engine, INDEPENDENT, Some(2)))));
            theirs.push(rate(INDEPENDENT, || parallel(INDEPENDENT)));
        }
        let what = "independent `true`s a second, 2 at once, against parallel";
        report(what, middle(&mut ours), middle(&mut theirs), "/s", "at least 2x");
    }

    let (few_root, many_root) = (tempfile::tempdir(), tempfile::tempdir());
    let (few_root, many_root): (TempDir, TempDir) =
        (few_root.expect("a directory"), many_root.expect("a directory"));
    let few = self::engine(Nothing, few_root.path());
    runtime.block_on(keep(&few, 100));
    let many = self::engine(Nothing, many_root.path());
    runtime.block_on(keep(&many, 1_000));
    let before = resident();
    runtime.block_on(keep(&many, KEPT - 1_000));
    let grown = resident().saturating_sub(before) as f64 / f64::from(1 << 20);
    report("resident growth at 100,000 kept batches", grown, 64.0, "MiB", "under 64 MiB");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ADDED {
        ours.push(runtime.block_on(add(&many)));
        theirs.push(runtime.block_on(add(&few)));
    }
    let micros = |times: Vec<_>| Times::new(times).median().as_secs_f64() * 1e6;
    let what = "a step added with 100,000 kept, against 100 kept, median";
    report(what, micros(ours), micros(theirs), "us", "at most 1.5x");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ADDED {
        ours.push(runtime.block_on(page(&many)));
        theirs.push(runtime.block_on(page(&few)));
    }
    let what = "a page of 50 of those in a state, with 100,000, against 100";
    report(what, micros(ours), micros(theirs), "us", "-");
}

fn engine(executor: impl Execute, root: &Path) -> Engine {
    let store = RedbStore::open(root.join("batches.redb")).expect("a store");
    let policy = BatchPolicy::new(store, root.join("output"));
    let policy = policy.keep_count(10 * KEPT).max_open_steps(KEPT);
    Engine::builder(executor).batches(policy).build().expect("built")
}

fn caller() -> Caller {
    Caller::new("bench").expect("a user name").with_all_scopes()
}

fn rate(count: usize, work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    count as f64 / begun.elapsed().as_secs_f64()
}

fn middle(rates: &mut [f64]) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// A batch of so many steps: each after the other, or so many at once.
async fn batch(engine: &Engine, count: usize, parallelism: Option<usize>) {
    let mut request = BatchRequest::new();
    for _ in 0..count {
        let step = Step::new("/bin/true");
        request = request.step(match parallelism {
            Some(_) => step.after(Vec::<String>::new()),
            None => step,
        });
    }
    if let Some(count) = parallelism {
        request = request.parallelism(count);
    }
    let batches = engine.batches();
    let id = batches.submit(&caller(), request, None).await.expect("accepted").record.info.id;
    let record = batches.wait(&caller(), &id).await.expect("over");
    assert_eq!(record.info.state, BatchState::Succeeded);
}

async fn without(engine: &Engine, count: usize) {
    let caller = caller();
    for _ in 0..count {
        let run = engine.execute(&caller, Request::new("/bin/true")).await.expect("starts");
        assert!(run.capture().await.end.success());
    }
}

fn parallel(count: usize) {
    let numbers: String = (0..count).map(|number| format!("{number}\n")).collect();
    let mut child = Process::new("parallel")
        .args(["--will-cite", "-j2", "/bin/true"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("was piped");
    std::io::Write::write_all(&mut input, numbers.as_bytes()).expect("writes");
    drop(input);
    assert!(child.wait().expect("ends").success());
}

/// Runs so many batches of one step that does nothing.
async fn keep(engine: &Engine, count: usize) {
    let places = Arc::new(Semaphore::new(256));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..count {
        let place = Arc::clone(&places).acquire_owned().await.expect("open");
        let batches = engine.batches();
        running.spawn(async move {
            let request = BatchRequest::new().step(Step::new("nothing"));
            let submitted = batches.submit(&caller(), request, None).await.expect("accepted");
            let id = submitted.record.info.id;
            batches.wait(&caller(), &id).await.expect("over");
            drop(place);
        });
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

/// The time until a batch of one step is accepted.
async fn add(engine: &Engine) -> std::time::Duration {
    let batches = engine.batches();
    let request = BatchRequest::new().step(Step::new("nothing"));
    let begun = Instant::now();
    let submitted = batches.submit(&caller(), request, None).await.expect("accepted");
    let time = begun.elapsed();
    let id = submitted.record.info.id;
    batches.wait(&caller(), &id).await.expect("over");
    time
}

/// The time of a page of a list.
async fn page(engine: &Engine) -> std::time::Duration {
    let begun = Instant::now();
    let filter = BatchFilter::new().state(BatchState::Succeeded);
    let page = engine.batches().list(&caller(), &filter, None, 50).await.expect("a page");
    assert_eq!(page.batches.len(), 50);
    begun.elapsed()
}

/// Runs commands by doing nothing: what is measured is all the rest.
struct Nothing;

impl Execute for Nothing {
    async fn execute(
        &self,
        _command: Command,
        _stdin: Stdin,
        output: Output,
        _cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        output.started();
        Ok(Exit::new(ExitStatus::Code(0)))
    }
}
