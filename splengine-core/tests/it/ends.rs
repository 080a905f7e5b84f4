use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use splengine_core::execute::{Background, ExitStatus, LimitKind, Program, Signal};
use splengine_core::{Engine, ErrorKind, Event, Execute as _, LocalExecutor, Reason, Request};

use crate::support::*;

#[tokio::test]
async fn a_program_exits_with_its_own_code() {
    let bench = bench();
    let captured = bench.run(sh("echo out; echo err >&2; exit 7")).await;
    assert_eq!(text(&captured.stdout), "out\n");
    assert_eq!(text(&captured.stderr), "err\n");
    assert_eq!(captured.end.reason, Reason::Exited);
    assert_eq!(captured.end.exit_code, 7);
    assert_eq!(captured.end.signal, None);
    assert_eq!((captured.end.stdout_bytes, captured.end.stderr_bytes), (4, 4));
    assert!(!captured.end.success());
    assert!(bench.run(sh("exit 0")).await.end.success());
}

#[tokio::test]
async fn a_signal_of_somebody_else_is_told() {
    let bench = bench();
    for (signal, number) in [("SEGV", 11), ("KILL", 9), ("TERM", 15)] {
        let end = bench.run(sh(&format!("kill -{signal} $$; sleep 60"))).await.end;
        assert_eq!(end.reason, Reason::Signaled);
        assert_eq!(end.exit_code, 128 + number);
        assert_eq!(end.signal, Signal::from_number(number));
    }
}

#[tokio::test]
async fn a_run_over_its_time_is_asked_then_killed() {
    // Each has begun by then, also on a busy machine.
    let time = Duration::from_secs(5);
    for mode in modes() {
        let patient = bench_with(mode.clone(), |builder| builder.grace(Duration::from_secs(30)));
        let bench = bench_with(mode, |builder| builder);
        let polite = sh("echo begun; exec sleep 60").timeout(time);
        let stubborn = sh("trap '' TERM; echo begun; while :; do sleep 0.05; done").timeout(time);
        let (captured, stubborn) = tokio::join!(patient.run(polite), bench.run(stubborn));
        assert_eq!(captured.end.reason, Reason::TimedOut);
        assert_eq!(captured.end.exit_code, 124);
        assert_eq!(captured.end.signal, Some(Signal::TERM));
        assert_eq!(text(&captured.stdout), "begun\n", "what it wrote before is kept");

        assert_eq!(patient.engine.stats().kills, 0);
        let end = stubborn.end;
        assert_eq!(end.reason, Reason::TimedOut);
        assert_eq!(end.exit_code, 124);
        assert_eq!(end.signal, Some(Signal::KILL));
        assert_eq!(bench.engine.stats().kills, 1);
    }
}

#[tokio::test]
async fn last_words_at_the_request_to_end_are_heard() {
    let bench = bench_with(Default::default(), |builder| builder.grace(Duration::from_secs(30)));
    let script = "trap 'echo bye; exit 3' TERM; echo begun; while :; do sleep 0.02; done";
    let mut run = bench.start(sh(script)).await;
    read_until(&mut run, "begun").await;
    run.stopper().stop();
    let captured = run.capture().await;
    assert_eq!(text(&captured.stdout), "bye\n");
    assert_eq!(captured.end.reason, Reason::Cancelled);
    assert_eq!(captured.end.exit_code, 130);
    assert_eq!(captured.end.signal, None, "it exited by itself when asked");
}

#[tokio::test]
async fn a_second_word_kills_without_waiting_for_the_grace() {
    let bench = bench_with(Default::default(), |builder| builder.grace(Duration::from_secs(3600)));
    let mut run = bench.start(sh("trap '' TERM; echo begun; while :; do sleep 0.05; done")).await;
    read_until(&mut run, "begun").await;
    run.stopper().stop();
    run.stopper().kill();
    let end = run.capture().await.end;
    assert_eq!((end.reason, end.signal), (Reason::Cancelled, Some(Signal::KILL)));
}

#[tokio::test]
async fn a_stopped_program_can_be_ended_politely() {
    let bench = bench_with(Default::default(), |builder| builder.grace(Duration::from_secs(3600)));
    let mut run = bench.start(sh("echo begun; kill -STOP $$; sleep 60")).await;
    read_until(&mut run, "begun").await;
    run.stopper().stop();
    let end = run.capture().await.end;
    assert_eq!((end.reason, end.signal), (Reason::Cancelled, Some(Signal::TERM)));
}

#[tokio::test]
async fn each_process_is_asked_once() {
    let bench = bench_with(Default::default(), |builder| builder.grace(Duration::from_secs(30)));
    let script = "n=0; trap 'n=$((n+1))' TERM; echo begun; \
                  i=0; while [ $i -lt 40 ]; do sleep 0.02; [ $n -gt 0 ] && i=$((i+1)); done; echo $n";
    let mut run = bench.start(sh(script)).await;
    read_until(&mut run, "begun").await;
    run.stopper().stop();
    assert_eq!(text(&run.capture().await.stdout), "1\n");
}

#[tokio::test]
async fn the_end_does_not_wait_for_whoever_holds_a_pipe() {
    for mode in modes() {
        let bench = bench_with(mode, |builder| builder);
        for background in [Background::Kill, Background::Keep] {
            let request = sh("sleep 60 & echo $!; echo done").background(background);
            let captured = tokio::time::timeout(Duration::from_secs(20), bench.run(request))
                .await
                .expect("ends");
            let (pid, rest) =
                text(&captured.stdout).split_once('\n').unwrap_or_else(|| panic!("{captured:?}"));
            assert_eq!(rest, "done\n");
            assert_eq!(captured.end.exit_code, 0);
            let pid: u32 = pid.parse().expect("a number");
            assert_eq!(is_alive(pid), background == Background::Keep);
            if background == Background::Keep {
                bench.run(sh(&format!("kill {pid}"))).await;
            }
        }
        assert_eq!(bench.engine.stats().swept, 1);
    }
}

#[tokio::test]
async fn a_kept_child_that_prints_lives_on() {
    let bench = bench();
    let dir = bench.root.path().join("beat");
    let script = "(i=0; while [ $i -lt 1000 ]; do echo tick; i=$((i+1)); echo $i > beat; done; \
                  echo over > beat) & echo started";
    bench.run(sh(script).background(Background::Keep)).await;
    eventually("the child comes to its end", || {
        std::fs::read_to_string(&dir).is_ok_and(|text| text == "over\n")
    })
    .await;
}

/// The engine's process has ended as far as a program can tell: nothing of it is left but this test.
#[test]
fn a_kept_child_that_prints_outlives_the_engine() {
    for mode in modes() {
        let runtime = || tokio::runtime::Runtime::new().expect("a runtime");
        let root = tempfile::tempdir().expect("a directory");
        let build = || {
            let executor = LocalExecutor::builder(root.path()).cgroup(mode.clone()).build();
            Engine::builder(executor.expect("set up")).build().expect("built")
        };
        let script = "(n=0; while [ $n -lt 6000 ]; do echo tick; echo tick >&2; n=$((n+1)); \
                      echo $n > beat; sleep 0.01; done) & echo $! > pid";
        let first = runtime();
        first.block_on(async {
            let request = sh(script).background(Background::Keep);
            let run = build().execute(&caller("alice"), request).await.expect("starts");
            assert!(run.capture().await.end.success());
        });
        drop(first);
        let beat = || -> u32 {
            let text = std::fs::read_to_string(root.path().join("beat")).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        runtime().block_on(async {
            let begun = beat();
            eventually("it prints without the engine", || beat() > begun + 5).await;
            // The next engine lets it be, too.
            let next = build();
            let begun = beat();
            eventually("it prints beside the next engine", || beat() > begun + 5).await;
            let run = next.execute(&caller("alice"), sh("kill -9 $(cat pid)")).await;
            assert!(run.expect("starts").capture().await.end.success());
        });
    }
}

#[tokio::test]
async fn more_kept_children_than_may_print_are_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let executor =
        LocalExecutor::builder(root.path()).max_background_runs(1).build().expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let alice = caller("alice");
    let keeps = |script| sh(script).background(Background::Keep);
    let run = async |request| engine.execute(&alice, request).await.map(|run| run.capture());
    let soon = async |script| {
        for _ in 0..6000 {
            if let Ok(run) = run(keeps(script)).await {
                return text(&run.await.stdout).trim().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the place is free once nobody can print any more");
    };
    let kill = async |pid: String| run(sh(&format!("kill {pid}"))).await.expect("starts").await;
    // Who prints elsewhere takes no place, once it does.
    let silent = soon("sleep 600 >/dev/null 2>&1 & echo $!").await;
    let prints = soon("sleep 600 & echo $!").await;
    let refusal = run(keeps("true")).await.map(drop).expect_err("refused");
    assert_eq!((refusal.kind(), refusal.retry_after().is_some()), (ErrorKind::Unavailable, true));
    assert!(refusal.to_string().contains("background: keep"), "{refusal}");
    kill(prints).await;
    soon("true").await;
    kill(silent).await;
}

#[tokio::test]
async fn one_callers_kept_children_leave_places_to_others() {
    let root = tempfile::tempdir().expect("a directory");
    let build = |count| {
        let executor = LocalExecutor::builder(root.path()).max_background_runs(count).build();
        Engine::builder(executor.expect("set up")).build().expect("built")
    };
    let engine = build(2);
    let [alice, bob] = ["alice", "bob"].map(caller);
    let keeps = |script| sh(script).background(Background::Keep);
    let kept = engine.execute(&alice, keeps("sleep 600 & echo $!")).await.expect("starts");
    let pid = text(&kept.capture().await.stdout).trim().to_owned();
    let refusal = engine.execute(&alice, keeps("true")).await.map(drop).expect_err("refused");
    assert_eq!(refusal.kind(), ErrorKind::CallerLimit);
    assert!(refusal.to_string().contains("1 executions of yours"), "{refusal}");
    assert!(
        engine.execute(&bob, keeps("true")).await.expect("starts").capture().await.end.success()
    );
    let none = build(0).execute(&bob, keeps("true")).await.map(drop).expect_err("refused");
    assert_eq!(none.kind(), ErrorKind::Unavailable);
    engine.execute(&alice, sh(&format!("kill {pid}"))).await.expect("starts").capture().await;
}

#[tokio::test]
async fn who_prints_nothing_for_long_is_ended() {
    let bench = bench();
    let idle = |script: &str, millis| sh(script).idle_timeout(Duration::from_millis(millis));
    let captured = bench.run(idle("echo up; sleep 600", 3000)).await;
    assert_eq!((captured.end.reason, captured.end.exit_code), (Reason::TimedOut, 124));
    assert_eq!(text(&captured.stdout), "up\n");
    let prints = "n=0; while [ $n -lt 55 ]; do n=$((n+1)); echo $n >&2; sleep 0.1; done";
    assert!(bench.run(idle(prints, 5000)).await.end.success());
    for (millis, kind) in [(0, ErrorKind::Malformed), (u64::MAX, ErrorKind::Impossible)] {
        let refusal = bench.refusal(idle("true", millis)).await;
        assert_eq!(refusal.kind(), kind);
        assert!(refusal.to_string().contains("`idle_timeout`"), "{refusal}");
    }
}

#[tokio::test]
async fn what_a_run_used_is_told() {
    for mode in modes() {
        let bench = bench_with(mode.clone(), |builder| builder);
        let little = bench.run(sh("true")).await.end.usage;
        assert_eq!(little.peak_memory, None, "less than the engine's own is not told");
        // Other tests of this process have it grow, meanwhile as well.
        let mut tries = 0..5;
        let (memory, much) = loop {
            let status = std::fs::read_to_string("/proc/self/status").expect("reads");
            let own = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let own = own.expect("is told").trim().strip_suffix(" kB").expect("a unit");
            let memory = own.parse::<u64>().expect("a number") * 1024 + (100 << 20);
            let busy = format!("head -c {memory} /dev/zero | tail -c {memory} > /dev/null");
            let much = bench.run(sh(&busy)).await.end.usage;
            if much.peak_memory.is_some() || tries.next().is_none() {
                break (memory, much);
            }
        };
        assert!(much.peak_memory >= Some(memory), "{mode:?}: {much:?}");
        assert!(much.cpu_time > little.cpu_time, "{mode:?}: {little:?} {much:?}");
        assert!(little.cpu_time.is_some());
        // Of a cgroup that is used again only what is new counts.
        let again = bench.run(sh("true")).await.end.usage;
        assert!(again.cpu_time < much.cpu_time, "{mode:?}: {again:?} {much:?}");
        assert!(Some(bench.engine.stats().cpu_time) > much.cpu_time);
    }
}

/// Where no cgroup with a pids controller can be had, as on hosts whose controllers are bound to
/// version 1, nothing is told.
#[tokio::test]
async fn the_processes_of_a_run_are_counted() {
    for mode in modes() {
        let root = tempfile::tempdir().expect("a directory");
        let executor = LocalExecutor::builder(root.path()).cgroup(mode.clone()).build();
        let counts = executor.expect("set up").enforces(LimitKind::Processes);
        let bench = bench_with(mode.clone(), |builder| builder);
        // Of a cgroup that is used again only what is new counts.
        for (script, count) in [
            ("exec true", 1),
            ("exec true", 1),
            ("sleep 60 & sleep 60 & :", 3),
            ("exec true", 1),
            ("(sleep 60 & sleep 60 & sleep 60 & sleep 60 & :); :", 6),
            ("sleep 60 & :", 2),
        ] {
            let told = bench.run(sh(script)).await.end.usage.processes;
            assert_eq!(told, counts.then_some(count), "{mode:?}: {script}");
        }
    }
}

#[tokio::test]
async fn a_program_that_misreports_is_set_right() {
    let program = || {
        Program::any()
            .failure_in_stdout("^Command completed with errors")
            .and_then(|program| program.failure_in_stderr(r"^\S+ - \S+ - ERROR - "))
            .expect("patterns")
    };
    let bench = bench_with(Default::default(), |builder| builder.program(program()));
    for (script, code) in [
        ("echo; echo 'Command completed with errors ( 3 ms ).'; echo", 1),
        ("echo 'data/read - step - ERROR - no file' >&2", 1),
        ("echo 'all is Command completed with errors'", 0),
        ("echo 'Command completed with errors' >&2", 0),
        ("echo 'Command completed with errors'; exit 9", 9),
        // Also beyond what the output limit keeps.
        (
            "head -c 100000 /dev/zero; echo; echo 'Command completed with errors'; head -c 100000 /dev/zero",
            1,
        ),
    ] {
        let end = bench.run(sh(script).output_limit(10)).await.end;
        assert_eq!((end.reason, end.exit_code), (Reason::Exited, code), "{script}");
    }
}

#[tokio::test]
async fn the_end_comes_once_and_last() {
    let bench = bench();
    let mut run = bench.start(sh("echo a; echo b >&2")).await;
    let mut events = Vec::new();
    while let Some(event) = run.next().await {
        events.push(event);
    }
    assert!(matches!(events.pop(), Some(Event::End(_))));
    assert!(events.iter().all(|event| matches!(event, Event::Output { .. })));
    assert_eq!(run.next().await, None);
}

#[tokio::test]
async fn dropping_a_run_ends_it() {
    let bench = bench();
    let mut run = bench.start(sh("echo $$; exec sleep 60")).await;
    let pid: u32 = read_until(&mut run, "\n").await.trim().parse().expect("a number");
    drop(run);
    eventually("the process is gone", || !is_alive(pid)).await;
    eventually("it is counted", || bench.engine.stats().ended.contains(&(Reason::Cancelled, 1)))
        .await;
}

#[tokio::test]
async fn a_small_stack_of_runs_leaves_no_file_open() {
    // In a process of its own: the other tests of this one open files, too.
    if !std::env::args().any(|arg| arg == "--exact") {
        let own = std::env::current_exe().expect("this test");
        let alone = ["--exact", "ends::a_small_stack_of_runs_leaves_no_file_open"];
        let ran = std::process::Command::new(own).args(alone).output().expect("starts");
        let told = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && told.contains("1 passed"), "{ran:?}");
        return;
    }
    let bench = bench();
    let open_files = || std::fs::read_dir("/proc/self/fd").expect("listed").count();
    bench.run(sh("true")).await;
    let before = open_files();
    for _ in 0..50 {
        bench.run(sh("cat").stdin(splengine_core::execute::Stdin::bytes("x"))).await;
    }
    eventually("no descriptor stays", || open_files() <= before + 20).await;
}

#[tokio::test]
async fn signals_of_the_caller_reach_the_program_and_its_group() {
    let bench = bench();
    let number = |number| Signal::from_number(number).expect("in range");
    let heard = "trap 'echo heard' USR1; echo set; while :; do sleep 0.01; done";
    let mut run = bench.start(sh(&format!("(trap 'echo child' USR1; sleep 60) & {heard}"))).await;
    read_until(&mut run, "set").await;
    let stopper = run.stopper();
    stopper.signal(number(10));
    read_until(&mut run, "heard").await;
    stopper.signal(number(2));
    let end = run.capture().await.end;
    assert_eq!((end.reason, end.exit_code), (Reason::Signaled, 130));
    assert_eq!(end.signal, Some(number(2)));
    // It has ended: there is nobody to hear it.
    stopper.signal(Signal::KILL);
}

#[tokio::test]
async fn signals_wait_for_a_program_that_is_being_started_and_no_more_than_a_few() {
    let bench = bench();
    let run = bench.start(Request::new("sleep 60")).await;
    let stopper = run.stopper();
    (0..1000).for_each(|_| stopper.signal(Signal::TERM));
    assert_eq!(run.capture().await.end.signal, Some(Signal::TERM));
}

#[test]
fn the_end_of_a_process_of_the_host_is_taken_over() {
    let ended = |script| -> ExitStatus {
        Command::new("sh").args(["-c", script]).status().expect("sh runs").into()
    };
    assert_eq!(ended("exit 7"), ExitStatus::Code(7));
    assert_eq!(ended("kill -TERM $$"), ExitStatus::Signal(Signal::TERM));
}

#[test]
fn every_kind_of_refusal_has_a_name_of_its_own() {
    let names: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), ErrorKind::ALL.len());
}
