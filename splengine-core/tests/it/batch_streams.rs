//! What the steps of a batch read and print: one log of both streams, and standard input from other
//! steps and from outside.

use std::time::{Duration, SystemTime};

use splengine_core::batch::{BatchPolicy, BatchRecord, BatchState, LogPiece, StepState};
use splengine_core::execute::Stream;
use splengine_core::store::MemoryStore;
use splengine_core::{BatchRequest, Caller, Engine, ErrorKind, LocalExecutor, Step};
use tempfile::TempDir;

use crate::support::{caller, eventually};

struct Bench {
    engine: Engine,
    alice: Caller,
    root: TempDir,
}

fn bench() -> Bench {
    let root = tempfile::tempdir().expect("a directory");
    let outputs = root.path().join("outputs");
    let batches = BatchPolicy::new(MemoryStore::new(), outputs);
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).grace(Duration::from_millis(500)).batches(batches);
    Bench { engine: engine.build().expect("built"), alice: caller("alice"), root }
}

fn step(id: &str, script: &str) -> Step {
    Step::new("sh -c").args([script]).id(id)
}

fn of(steps: impl IntoIterator<Item = Step>) -> BatchRequest {
    steps.into_iter().fold(BatchRequest::new(), BatchRequest::step)
}

impl Bench {
    async fn submit(&self, request: BatchRequest) -> BatchRecord {
        let submitted = self.engine.batches().submit(&self.alice, request, None).await;
        submitted.expect("accepted").record
    }

    async fn over(&self, record: &BatchRecord) -> BatchRecord {
        let batches = self.engine.batches();
        let over = batches.wait(&self.alice, &record.info.id);
        let over = tokio::time::timeout(Duration::from_secs(60), over).await;
        over.expect("over in time").expect("over")
    }

    async fn run(&self, request: BatchRequest) -> BatchRecord {
        let record = self.submit(request).await;
        self.over(&record).await
    }

    async fn printed(&self, record: &BatchRecord, step: &str) -> String {
        let (batches, id) = (self.engine.batches(), record.info.id.as_str());
        let output = batches.output(&self.alice, id, step, Stream::Stdout, None).await;
        let data = output.expect("a step").read(0, 1 << 20).await.expect("reads");
        String::from_utf8_lossy(&data).into_owned()
    }

    async fn log(&self, record: &BatchRecord, attempt: Option<u32>, follow: bool) -> Vec<LogPiece> {
        let (batches, id) = (self.engine.batches(), record.info.id.as_str());
        let mut log = batches.log(&self.alice, id, "x", attempt, follow).await.expect("a log");
        let mut pieces = Vec::new();
        let read = async {
            while let Some(piece) = log.next().await.expect("reads") {
                pieces.push(piece);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("in time");
        pieces
    }
}

fn shown(pieces: &[LogPiece]) -> Vec<(u32, &str, String)> {
    let shown = |piece: &LogPiece| {
        (piece.attempt, piece.stream.name(), String::from_utf8_lossy(&piece.data).into_owned())
    };
    pieces.iter().map(shown).collect()
}

#[tokio::test]
async fn both_streams_are_in_one_log_in_their_order() {
    let bench = bench();
    let before = SystemTime::now() - Duration::from_millis(1);
    let script = "echo x >>tries; n=$(wc -l <tries); echo out $n; \
        while [ ! -e go1 ]; do sleep 0.01; done; echo err $n >&2; \
        while [ ! -e go2 ]; do sleep 0.01; done; echo end $n; [ $n = 2 ]";
    let record = bench.submit(of([step("x", script).retries(1)])).await;
    let id = record.info.id.as_str();
    let batches = bench.engine.batches();
    let mut log = batches.log(&bench.alice, id, "x", None, true).await.expect("a log");
    let mut followed = Vec::new();
    let follow = async {
        while let Some(piece) = log.next().await.expect("reads") {
            // Each is told before the next is printed.
            let name = if followed.is_empty() { "go1" } else { "go2" };
            std::fs::write(bench.root.path().join(name), "").expect("writes");
            followed.push(piece);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), follow).await.expect("in time");
    let shown_all = shown(&followed);
    assert_eq!(shown_all[..2], [(1, "stdout", "out 1\n".into()), (1, "stderr", "err 1\n".into())]);
    assert_eq!(shown_all[2], (1, "stdout", "end 1\n".into()));
    let (first, second) = shown_all.split_at(3);
    let text: String = second.iter().map(|(_, _, data)| data.as_str()).collect();
    assert!(second.iter().all(|(attempt, ..)| *attempt == 2), "{second:?}");
    assert_eq!(text.len(), "out 2\nerr 2\nend 2\n".len(), "{text:?}");
    let times: Vec<SystemTime> = followed.iter().map(|piece| piece.time).collect();
    assert!(times.is_sorted() && times[0] >= before, "{times:?}");

    bench.over(&record).await;
    assert_eq!(shown(&bench.log(&record, Some(1), false).await), first);
    assert_eq!(shown(&bench.log(&record, Some(1), true).await), first);
    assert_eq!(shown(&bench.log(&record, None, false).await), second);
    let none = batches.log(&bench.alice, id, "x", Some(3), false).await;
    assert_eq!(none.expect_err("no such run").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_log_tells_what_was_left_out() {
    let bench = bench();
    let script = "head -c 100000 /dev/zero; printf end";
    let record = bench.run(of([step("x", script).output_limit(1000)])).await;
    let pieces = bench.log(&record, None, false).await;
    let kept: usize = pieces.iter().map(|piece| piece.data.len()).sum();
    let left_out: u64 = pieces.iter().map(|piece| piece.left_out).sum();
    assert_eq!(kept as u64 + left_out, 100_003);
    assert!(kept <= 1000 && pieces.last().expect("a piece").data.ends_with(b"end"));
}

#[tokio::test]
async fn a_step_reads_what_another_printed() {
    let bench = bench();
    let reads = |id: &str| Step::new("cat").id(id);
    let record = bench
        .run(of([
            step("a", "echo out; echo err >&2"),
            reads("b").stdin_from("a", Stream::Stdout),
            // It waits for what it reads, though it depends on nothing else.
            reads("c").independent().stdin_from("a", Stream::Stderr),
            step("silent", "true").independent(),
            reads("d").stdin_from("silent", Stream::Stdout),
        ]))
        .await;
    assert_eq!(record.info.state, BatchState::Succeeded, "{record:?}");
    assert_eq!(bench.printed(&record, "b").await, "out\n");
    assert_eq!(bench.printed(&record, "c").await, "err\n");
    assert_eq!(bench.printed(&record, "d").await, "");
    assert_eq!(record.steps[2].depends_on, ["a"]);

    // What is not whole is passed to nobody.
    let much = step("a", "head -c 100000 /dev/zero").output_limit(1000);
    let record = bench.run(of([much, reads("b").stdin_from("a", Stream::Stdout)])).await;
    assert_eq!(record.steps[1].state, StepState::Failed);
    let problem = record.steps[1].problem.as_deref().unwrap_or_default();
    assert!(problem.contains("`stdin_from` names `a`, of whose output a part"), "{problem}");

    // When only what failed is run again, it reads what was printed before.
    let flaky = step("b", "cat; [ -e mended ]").stdin_from("a", Stream::Stdout);
    let record = bench.run(of([step("a", "echo >>ran; echo once"), flaky])).await;
    std::fs::write(bench.root.path().join("mended"), "").expect("writes");
    let batches = bench.engine.batches();
    let again = batches.rerun(&bench.alice, &record.info.id, true).await.expect("accepted");
    let again = bench.over(&again.record).await;
    assert_eq!((again.steps.len(), again.info.state), (1, BatchState::Succeeded));
    assert_eq!(bench.printed(&again, "b").await, "once\n");
    let ran = std::fs::read_to_string(bench.root.path().join("ran")).expect("reads");
    assert_eq!(ran, "\n");

    for (steps, text) in [
        (of([reads("x").stdin_from("y", Stream::Stdout)]), "step `x`: `stdin_from` names `y`"),
        (of([reads("x").stdin_from("x", Stream::Stdout)]), "makes a circle: x -> x"),
        (
            of([step("a", "true"), reads("x").stdin("").stdin_from("a", Stream::Stdout)]),
            "can't stand beside `stdin`",
        ),
    ] {
        let refused = batches.submit(&bench.alice, steps, None).await;
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains(text), "{refused}");
    }
}

#[tokio::test]
async fn a_step_that_runs_is_written_to() {
    let bench = bench();
    let request = of([
        step("x", "echo >up; while read line; do echo got $line; done; echo end").open_stdin(),
        step("y", "true"),
    ]);
    let record = bench.submit(request).await;
    let (batches, id) = (bench.engine.batches(), record.info.id.as_str());
    eventually("it runs", || bench.root.path().join("up").exists()).await;
    let write = async |step: &str, text: &'static str, end| {
        batches.write_stdin(&bench.alice, id, step, text.into(), end).await
    };
    write("x", "one\n", false).await.expect("written");
    let output = batches.output(&bench.alice, id, "x", Stream::Stdout, None).await.expect("a step");
    assert!(output.grows(7).await.expect("reads"));
    assert_eq!(write("y", "", false).await.expect_err("closed").kind(), ErrorKind::Conflict);
    assert_eq!(write("z", "", false).await.expect_err("none").kind(), ErrorKind::NotFound);
    let other = batches.write_stdin(&caller("bob"), id, "x", "".into(), true).await;
    assert_eq!(other.expect_err("not his").kind(), ErrorKind::NotFound);
    write("x", "two\n", true).await.expect("written");
    let record = bench.over(&record).await;
    assert_eq!(record.info.state, BatchState::Succeeded);
    assert_eq!(bench.printed(&record, "x").await, "got one\ngot two\nend\n");
    let late = write("x", "late", false).await.expect_err("it is over").to_string();
    assert_eq!(late, "this step does not run");
}

/// Of each run, by its own: also while it goes on, and once the record tells of a later one.
#[tokio::test]
async fn what_was_left_out_is_told_of_each_run() {
    let bench = bench();
    let script = "echo x >>tries; seq 1000 2000; [ $(wc -l <tries) = 2 ] && echo of stderr >&2";
    let record = bench.run(of([step("x", script).output_limit(1000).retries(1)])).await;
    let (batches, id) = (bench.engine.batches(), record.info.id.as_str());
    let gap = async |stream, attempt| {
        let output = batches.output(&bench.alice, id, "x", stream, attempt).await;
        let mut output = output.expect("a step");
        let gap = output.gap().await.expect("found out");
        assert_eq!(output.gap().await.expect("found out"), gap);
        gap.map(|gap| (gap.at, gap.bytes))
    };
    for attempt in [Some(1), Some(2), None] {
        assert_eq!(gap(Stream::Stdout, attempt).await, Some((500, 5005 - 1000)), "{attempt:?}");
        assert_eq!(gap(Stream::Stderr, attempt).await, None, "{attempt:?}");
    }
}
