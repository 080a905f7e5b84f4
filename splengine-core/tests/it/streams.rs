use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use bytes::Bytes;
use splengine_core::execute::{SlowReader, Stdin, Stream};
use splengine_core::local::CgroupMode;
use splengine_core::{ErrorKind, Event, Reason, Request};
use tokio::io::AsyncWriteExt as _;

use crate::support::*;

#[tokio::test]
async fn every_byte_passes_both_ways() {
    let bench = bench();
    let all: Vec<u8> = (0..=255u8).cycle().take(1_000_000).collect();
    let captured = bench.run(Request::new("cat").stdin(Stdin::bytes(all.clone()))).await;
    assert!(captured.stdout == all);
}

#[tokio::test]
async fn without_input_there_is_none() {
    let bench = bench();
    assert_eq!(text(&bench.run(sh("cat; readlink /proc/self/fd/0")).await.stdout), "/dev/null\n");
}

#[tokio::test]
async fn input_streams_in_and_ends() {
    let bench = bench();
    let (mut writer, reader) = tokio::io::duplex(64);
    let mut run = bench.start(Request::new("cat").stdin(Stdin::reader(reader))).await;
    for word in ["one\n", "two\n"] {
        writer.write_all(word.as_bytes()).await.expect("read");
        assert_eq!(read_until(&mut run, "\n").await, word);
    }
    drop(writer);
    assert!(run.capture().await.end.success());
}

#[tokio::test]
async fn a_program_need_not_read_its_input() {
    let bench = bench();
    let request = Request::new("true").stdin(Stdin::bytes(vec![0; 1 << 20]));
    assert!(bench.run(request).await.end.success());
}

#[tokio::test]
async fn sixty_four_mebibytes_through_cat_with_a_slow_reader() {
    let bench = bench();
    let total = 64 << 20;
    let request = Request::new("cat")
        .stdin(Stdin::reader(tokio::io::AsyncReadExt::take(tokio::io::repeat(b'x'), total)));
    let mut run = bench.start(request).await;
    let mut seen = 0u64;
    let mut chunks = 0u32;
    while let Some(event) = run.next().await {
        match event {
            Event::Output { data, .. } => {
                seen += data.len() as u64;
                chunks += 1;
                if chunks.is_multiple_of(64) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Event::End(end) => assert_eq!(end.stdout_bytes, total),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, total);
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_program_not_the_engine() {
    let bench = bench();
    let mut stalled = bench.start(sh("echo $$; exec yes")).await;
    let first = read_until(&mut stalled, "\n").await;
    let pid = first.lines().next().expect("a line");
    for _ in 0..20 {
        assert!(bench.run(sh("true")).await.end.success());
    }
    // What it could write is bounded by the queue and the pipe.
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("it is still there");
    let written = io.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("counted");
    let written: u64 = written.parse().expect("a number");
    assert!((1..4 << 20).contains(&written), "{written} bytes were written");
}

#[tokio::test]
async fn where_asked_the_middle_is_lost_with_a_mark() {
    let bench = bench();
    let request = sh("seq 1 1000000; echo; echo last").slow_reader(SlowReader::Lose);
    let run = bench.start(request).await;
    eventually("it ends though nobody reads", || {
        bench.engine.stats().ended.contains(&(Reason::Exited, 1))
    })
    .await;
    let mut run = run;
    let (mut kept, mut lost) = (Vec::new(), 0);
    let end = loop {
        match run.next().await.expect("an end") {
            Event::Output { data, .. } => kept.extend_from_slice(&data),
            Event::Lost { stream: Stream::Stdout, bytes } => lost += bytes,
            Event::End(end) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert!(lost > 0 && end.stdout_truncated);
    assert_eq!(kept.len() as u64 + lost, end.stdout_bytes);
    assert!(kept.ends_with(b"\nlast\n"));
}

#[tokio::test]
async fn over_the_limit_the_first_and_last_part_are_kept() {
    let bench = bench();
    let script = "printf 'BEGIN'; head -c 3000000 /dev/zero; printf 'END'; printf err >&2";
    let captured = bench.run(sh(script).output_limit(1000)).await;
    assert_eq!(captured.stdout.len(), 1000);
    assert!(captured.stdout.starts_with(b"BEGIN") && captured.stdout.ends_with(b"END"));
    assert_eq!(text(&captured.stderr), "err");
    assert_eq!(captured.end.stdout_bytes, 3_000_008);
    assert!(captured.end.stdout_truncated && !captured.end.stderr_truncated);
    let gap = captured.end.stdout_gap.expect("a part is missing");
    assert_eq!((gap.at, gap.bytes, captured.end.stderr_gap), (500, 2_999_008, None));
    assert!(captured.end.success(), "a limit is no punishment");

    let mut run = bench.start(sh(script).output_limit(1000)).await;
    let (mut kept, mut lost) = (0, 0);
    while let Some(event) = run.next().await {
        match event {
            Event::Output { stream: Stream::Stdout, data } => kept += data.len() as u64,
            Event::Lost { stream: Stream::Stdout, bytes } => lost += bytes,
            _ => {}
        }
    }
    assert_eq!((kept, kept + lost), (1000, 3_000_008));
}

#[tokio::test]
async fn over_the_limit_no_line_is_made_of_two() {
    let bench = bench();
    for limit in [1000, 1001, 100_000, 400_000] {
        let captured = bench.run(sh("seq 1000000 1100000").output_limit(limit)).await;
        let gap = captured.end.stdout_gap.expect("a part is missing");
        let (head, tail) = captured.stdout.split_at(gap.at.try_into().expect("short"));
        assert!(text(head).ends_with('\n') && text(tail).ends_with("\n1100000\n"));
        let numbers = |text: &str| text.lines().map(|line| line.parse().expect("whole")).collect();
        let (head, tail): (Vec<u64>, Vec<u64>) = (numbers(text(head)), numbers(text(tail)));
        assert!(head.iter().copied().eq(1_000_000..1_000_000 + head.len() as u64));
        assert!(tail.iter().copied().eq(1_100_001 - tail.len() as u64..=1_100_000));
        assert_eq!(captured.stdout.len() as u64 + gap.bytes, captured.end.stdout_bytes);
        assert!((head.len() + tail.len()) as u64 * 8 + 16 > limit, "{limit}");
    }
}

#[tokio::test]
async fn secrets_are_masked_however_they_come() {
    let bench = bench();
    let pem = "-----BEGIN KEY-----\nMIIEabcdefgh\n}\n-----END KEY-----\n";
    let script = r#"printf 'hun'; printf 'x%s' "$TOKEN" >&2; printf 'ter2, hunt '; echo "$TOKEN$TOKEN}";
        echo "$PEM" | sed 's/^/  /'"#;
    let request = sh(script).env("TOKEN", "hunter2").env("PEM", pem).mask("TOKEN").mask("PEM");
    let captured = bench.run(request).await;
    let expected = "***, hunt ******}\n  ***\n  ***\n  }\n  ***\n  \n";
    assert_eq!((text(&captured.stdout), text(&captured.stderr)), (expected, "x***"));
    assert_eq!(captured.end.stdout_bytes, expected.len() as u64);

    // What looks like the beginning of one comes at the end at the latest.
    let mut run =
        bench.start(sh("echo up; printf 'hunter'").env("TOKEN", "hunter2").mask("TOKEN")).await;
    assert_eq!(read_until(&mut run, "hunter").await, "up\nhunter");

    let refusal = bench.refusal(sh("true").env("OTHER", "x").mask("TOKEN")).await;
    assert_eq!(refusal.kind(), ErrorKind::Malformed);
    assert!(refusal.to_string().contains("`mask` names `TOKEN`"), "{refusal}");
    let long = sh("true").env("LONG", "x".repeat(65_537)).mask("LONG");
    assert_eq!(bench.refusal(long).await.kind(), ErrorKind::Impossible);
}

#[tokio::test]
async fn one_order_over_both_streams() {
    let bench = bench();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo o$i; read x; echo e$i >&2; read x; done";
    let (mut writer, reader) = tokio::io::duplex(64);
    let mut run = bench.start(sh(script).stdin(Stdin::reader(reader))).await;
    let mut seen = String::new();
    let reading = async {
        while let Some(event) = run.next().await {
            if let Event::Output { data, .. } = event {
                seen.push_str(text(&data));
                // Of two that lie there at once none is the first.
                if seen.ends_with('\n') {
                    writer.write_all(b"\n").await.expect("read");
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("each comes by itself");
    let expected: String = (1..=9).map(|i| format!("o{i}\ne{i}\n")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_was_written_before_the_end_waits_for_a_reader_that_comes_late() {
    let bench = bench();
    let run = bench.start(sh("head -c 60000 /dev/zero; echo last; exit 7")).await;
    eventually("it ends though nobody reads", || {
        bench.engine.stats().ended.contains(&(Reason::Exited, 1))
            && bench.engine.stats().running == 0
    })
    .await;
    let captured = run.capture().await;
    assert!(captured.stdout.len() == 60_005 && captured.stdout.ends_with(b"last\n"));
    assert_eq!(captured.end.exit_code, 7);
}

/// All output of a run arrives, up to its last byte. `SPLENGINE_TEST_RUNS` sets the number of runs, 1000 at
/// most, which is what CI runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tail_is_ever_lost() {
    let count: usize = std::env::var("SPLENGINE_TEST_RUNS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(100)
        .min(1000);
    let expected: Bytes = {
        let lines: Vec<String> = (1..=200_000).map(|i| format!("{i}\n")).collect();
        lines.concat().into()
    };
    let hash = |bytes: &[u8]| {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        hasher.finish()
    };
    let expected = hash(&expected);
    for mode in [CgroupMode::Off, CgroupMode::Auto] {
        let bench = bench_with(mode, |builder| builder);
        for i in 0..count / 2 {
            let captured = bench.run(sh("seq 1 200000; exit 7")).await;
            assert_eq!(captured.end.exit_code, 7, "run {i}");
            assert_eq!(hash(&captured.stdout), expected, "run {i}");
        }
    }
}
