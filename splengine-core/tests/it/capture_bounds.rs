//! What is kept in memory of the output of executions.

use bytes::Bytes;
use splengine_core::batch::BatchPolicy;
use splengine_core::execute::{Gap, Stdin, Stream};
use splengine_core::local::CgroupMode;
use splengine_core::store::MemoryStore;
use splengine_core::{BatchRequest, Captured, Engine, Event, Request, Run, Step};

use crate::support::{Bench, bench_with, caller, read_until, sh};

const MIB: u64 = 1 << 20;
/// A caller alone has half of it.
const MAX: usize = 2 << 20;
/// So much is kept of a stream whatever others hold.
const FREE: usize = 16 << 10;
/// Numbers of 8 bytes in 4 MiB of lines.
const LINES: u32 = 524_288;

fn bounded() -> Bench {
    bench_with(CgroupMode::Off, |builder| builder.max_captured_bytes(MAX))
}

/// Prints 4 MiB in lines of 8 bytes each, to the stream of this number.
fn numbers(stream: u32) -> String {
    format!("seq -f %07.0f 1 {LINES} >&{stream}")
}

async fn start(engine: &Engine, who: &str, request: Request) -> Run {
    engine.execute(&caller(who), request).await.expect("starts")
}

async fn capture(engine: &Engine, who: &str) -> Captured {
    let run = start(engine, who, sh(&numbers(1))).await;
    let captured = run.capture().await;
    assert!(captured.end.success());
    assert_eq!(captured.end.stdout_bytes, u64::from(LINES) * 8);
    captured
}

/// Looks at the first and the last half of what was kept of [`numbers`].
fn assert_is_cut(kept: &Bytes, gap: Option<Gap>, most: usize) {
    let gap = gap.expect("a part is missing");
    assert!(kept.len() <= most && kept.len() > most - 64, "{} of {most}", kept.len());
    assert_eq!(gap.bytes, u64::from(LINES) * 8 - kept.len() as u64);
    let at = usize::try_from(gap.at).expect("within");
    assert!(at.abs_diff(kept.len() - at) <= 16, "at {at} of {}", kept.len());
    assert!(kept.starts_with(b"0000001\n") && kept[..at].ends_with(b"\n"));
    assert!(kept.ends_with(format!("{LINES:07}\n").as_bytes()));
    assert_eq!(kept.len() % 8, 0);
}

#[tokio::test]
async fn callers_who_take_all_that_they_can_leave_memory_to_others() {
    let bench = bounded();
    let engine = &bench.engine;
    let first = capture(engine, "alice").await;
    assert_is_cut(&first.stdout, first.end.stdout_gap, MAX / 2 + FREE);
    assert!(first.end.stdout_truncated && !first.end.stderr_truncated);
    let second = capture(engine, "alice").await;
    assert_is_cut(&second.stdout, second.end.stdout_gap, FREE);
    // Each who comes has half of what the others leave.
    let bob = capture(engine, "bob").await;
    assert_is_cut(&bob.stdout, bob.end.stdout_gap, MAX / 4 + FREE);
    let carol = capture(engine, "carol").await;
    assert_is_cut(&carol.stdout, carol.end.stdout_gap, MAX / 8 + FREE);
    let more = capture(engine, "bob").await;
    assert_is_cut(&more.stdout, more.end.stdout_gap, FREE);
    // Part of an output holds the memory of all of it.
    let part = first.stdout.slice(..1);
    drop((first, bob, carol));
    let again = capture(engine, "alice").await;
    assert_is_cut(&again.stdout, again.end.stdout_gap, FREE);
    drop(part);
    let again = capture(engine, "alice").await;
    assert_is_cut(&again.stdout, again.end.stdout_gap, MAX / 2 + FREE);
}

#[tokio::test]
async fn both_streams_share_the_memory_and_a_small_output_has_what_it_needs() {
    let bench = bounded();
    let engine = &bench.engine;
    let script = format!("{}; {}", numbers(1), numbers(2));
    let both = start(engine, "alice", sh(&script)).await.capture().await;
    assert_is_cut(&both.stdout, both.end.stdout_gap, MAX / 2 + FREE);
    assert_is_cut(&both.stderr, both.end.stderr_gap, FREE);
    let small = start(engine, "alice", sh("head -c 16384 /dev/zero")).await.capture().await;
    assert_eq!((small.stdout.len(), small.end.stdout_gap), (FREE, None));
    drop(both);
    // An output that is shorter than its memory gives back the rest.
    let mut held = Vec::new();
    for _ in 0..3 {
        let run = start(engine, "alice", sh("head -c 300000 /dev/zero")).await;
        let captured = run.capture().await;
        assert_eq!((captured.stdout.len(), captured.end.stdout_gap), (300_000, None));
        held.push(captured);
    }
}

#[tokio::test]
async fn memory_is_given_back_by_runs_that_are_cancelled() {
    let bench = bounded();
    let engine = &bench.engine;
    let script = format!("{}; echo done >&2; sleep 600", numbers(1));
    let holds = async |request: Request| {
        let mut run = start(engine, "alice", request).await;
        // Standard error is told of once all of standard output was read.
        while let Some(event) = run.next().await {
            if matches!(event, Event::Output { stream: Stream::Stderr, .. }) {
                return run;
            }
        }
        panic!("it says when it is done");
    };
    // The last half of an output that is read as it comes is held too.
    let held = holds(sh(&script).output_limit(4 * MIB - 8)).await;
    let held_beside = capture(engine, "alice").await;
    assert!(held_beside.stdout.len() <= FREE, "{}", held_beside.stdout.len());
    drop(held);
    let captured = capture(engine, "alice").await;
    assert_is_cut(&captured.stdout, captured.end.stdout_gap, MAX / 2 + FREE);
    drop(captured);
    // A capture that is dropped before its end.
    let go = bench.root.path().join("is_done");
    let script = format!("{}; : > is_done; sleep 600", numbers(1));
    let capturing = tokio::spawn(start(engine, "alice", sh(&script)).await.capture());
    crate::support::eventually("all was printed", || go.exists()).await;
    capturing.abort();
    assert!(capturing.await.is_err_and(|error| error.is_cancelled()));
    let captured = capture(engine, "alice").await;
    assert_is_cut(&captured.stdout, captured.end.stdout_gap, MAX / 2 + FREE);
}

#[tokio::test]
async fn a_run_that_is_read_as_it_comes_keeps_less_of_its_end() {
    let bench = bounded();
    let held = capture(&bench.engine, "alice").await;
    let request = sh(&numbers(1)).output_limit(2 * MIB);
    let mut run = start(&bench.engine, "alice", request).await;
    let (mut output, mut missing) = (Vec::new(), 0);
    while let Some(event) = run.next().await {
        match event {
            Event::Output { data, .. } => output.extend_from_slice(&data),
            Event::Lost { bytes, .. } => missing += bytes,
            Event::End(end) => {
                let gap = end.stdout_gap.expect("a part is missing");
                assert_eq!((gap.at, gap.bytes), (MIB, missing));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(output.len() <= (1 << 20) + FREE, "{}", output.len());
    assert!(output.ends_with(format!("{LINES:07}\n").as_bytes()));
    assert_eq!(output.len() as u64 + missing, u64::from(LINES) * 8);
    drop((run, held));
    let whole = start(&bench.engine, "alice", sh(&numbers(1)).output_limit(2 * MIB)).await;
    let whole = whole.capture().await;
    assert_is_cut(&whole.stdout, whole.end.stdout_gap, MAX / 2 + FREE);
}

#[tokio::test]
async fn what_was_read_before_a_capture_is_no_part_of_it() {
    let bench = bounded();
    let script = format!("echo first; read go; {}", numbers(1));
    let (writer, stdin) = tokio::io::duplex(64);
    let request = sh(&script).output_limit(MIB).stdin(Stdin::reader(stdin));
    let mut run = start(&bench.engine, "alice", request).await;
    assert_eq!(read_until(&mut run, "first").await, "first\n");
    let mut writer = writer;
    tokio::io::AsyncWriteExt::write_all(&mut writer, b"go\n").await.expect("read");
    let captured = run.capture().await;
    let gap = captured.end.stdout_gap.expect("a part is missing");
    assert!(captured.stdout.starts_with(b"0000001\n"));
    assert!(captured.stdout.ends_with(format!("{LINES:07}\n").as_bytes()));
    assert_eq!(captured.stdout.len() as u64 + gap.bytes, u64::from(LINES) * 8);
    let at = usize::try_from(gap.at).expect("within");
    assert!(captured.stdout[..at].ends_with(b"\n") && at < captured.stdout.len());
}

/// What is held for the last half of an output when a capture begins is a part of what is captured.
#[tokio::test]
async fn a_capture_goes_on_with_what_is_held_of_the_end() {
    let bench = bounded();
    let script = format!("{}; echo done >&2; read go; echo last", numbers(1));
    let (mut writer, stdin) = tokio::io::duplex(64);
    let request = sh(&script).output_limit(MIB).stdin(Stdin::reader(stdin));
    let mut run = start(&bench.engine, "alice", request).await;
    let mut before = 0;
    loop {
        match run.next().await {
            Some(Event::Output { stream: Stream::Stdout, data }) => before += data.len() as u64,
            Some(Event::Output { stream: Stream::Stderr, .. }) => break,
            other => panic!("{other:?}"),
        }
    }
    tokio::io::AsyncWriteExt::write_all(&mut writer, b"go\n").await.expect("read");
    let captured = run.capture().await;
    let gap = captured.end.stdout_gap.expect("a part is missing");
    assert!(captured.stdout.ends_with(format!("{LINES:07}\nlast\n").as_bytes()));
    let kept = captured.stdout.len() as u64;
    assert!(before + kept <= MIB && kept > MIB / 4, "{before} and {kept}");
    assert_eq!(before + kept + gap.bytes, u64::from(LINES) * 8 + 5);
}

#[tokio::test]
async fn a_step_of_a_batch_says_why_less_of_its_output_is_kept() {
    let outputs = tempfile::tempdir().expect("a directory");
    let policy = BatchPolicy::new(MemoryStore::default(), outputs.path());
    let bench =
        bench_with(CgroupMode::Off, |builder| builder.max_captured_bytes(MAX).batches(policy));
    let (engine, alice) = (&bench.engine, caller("alice"));
    let held = capture(engine, "alice").await;
    let batches = engine.batches();
    let step = || Step::new("sh -c").args([numbers(1)]).output_limit(2 * MIB);
    let ended = async || {
        let batch = BatchRequest::new().step(step());
        let batch = batches.submit(&alice, batch, None).await.expect("accepted").record;
        let over = batches.wait(&alice, &batch.info.id).await;
        over.expect("over").steps.remove(0)
    };
    let short = ended().await;
    let why = short.problem.expect("a word of why");
    assert!(why.contains("memory that one caller may have"), "{why}");
    assert!(short.stdout_gap.is_some_and(|gap| gap.at == MIB && gap.bytes > 2 * MIB));
    drop(held);
    let whole = ended().await;
    assert_eq!(whole.problem, None);
    assert!(whole.stdout_gap.is_some_and(|gap| gap.at == MIB && gap.bytes <= 2 * MIB + 64));
}
