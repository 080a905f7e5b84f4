//! Unit tests of executors and of adapters, without an engine.

use std::ffi::OsString;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Signal, Stdin, Stream};
use splengine_core::local::{Environment, Workdirs};
use splengine_core::testing::{TestCommand, run_pair};
use splengine_core::{Event, Execute, ExecuteError, LocalExecutor, Reason};
use tokio::time::timeout;

/// Prints the signals that it gets, until it is killed.
struct Signals;

impl Execute for Signals {
    async fn execute(
        &self,
        _command: Command,
        _stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        loop {
            tokio::select! {
                biased;
                signal = cancel.signalled() => {
                    output.started();
                    let number = Bytes::from(signal.number().to_string());
                    output.write(Stream::Stderr, number).await.expect("read");
                }
                () = cancel.kill_requested() => {
                    return Ok(Exit::new(ExitStatus::Code(0)).stopped());
                }
            }
        }
    }
}

#[tokio::test]
async fn an_executor_is_told_what_an_engine_would_tell() {
    let (command, stdin, output, cancel, mut observer) = TestCommand::new(["any"]).parts();
    let mut execution = Box::pin(Signals.execute(command, stdin, output, cancel));
    observer.signal(Signal::KILL);
    observer.signal(Signal::TERM);
    observer.stop();
    for number in ["9", "15"] {
        tokio::select! {
            printed = observer.next() => assert_eq!(printed, (Stream::Stderr, number.into())),
            _ = &mut execution => panic!("a request to stop is no kill"),
        }
    }
    observer.kill();
    let ran = observer.watch(execution).await;
    assert!(ran.exit.expect("an exit").is_stopped());
    assert_eq!((ran.starts, ran.stderr), (2, Bytes::new()));
}

#[tokio::test]
async fn a_writer_waits_for_its_observer() {
    let (_, _, output, _, mut observer) = TestCommand::new(["any"]).parts();
    let chunk = Bytes::from(vec![0; 128 << 10]);
    output.started();
    observer.started().await;
    for _ in 0..2 {
        output.write(Stream::Stdout, chunk.clone()).await.expect("read");
    }
    let third = output.write(Stream::Stdout, chunk.clone());
    assert!(timeout(Duration::ZERO, third).await.is_err(), "256 KiB wait");
    observer.next().await;
    output.write(Stream::Stdout, chunk).await.expect("read");
}

#[test]
#[should_panic(expected = "a command has at least one word")]
fn a_command_has_words() {
    let _ = TestCommand::new([""; 0]);
}

#[tokio::test]
async fn a_run_is_told_what_its_script_says() {
    let (mut run, script) = run_pair();
    script.output().write(Stream::Stdout, "one".into()).await.expect("read");
    script.lose(Stream::Stderr, 10);
    let lost = Event::Lost { stream: Stream::Stderr, bytes: 10 };
    assert_eq!(run.next().await, Some(lost));
    let one = Event::Output { stream: Stream::Stdout, data: "one".into() };
    assert_eq!(run.next().await, Some(one));
    let output = script.output().clone();
    script.end(Exit::new(ExitStatus::Signal(Signal::KILL)).out_of_memory());
    output.push(Stream::Stdout, "late".into()).expect_err("it is over");
    let Some(Event::End(end)) = run.next().await else { panic!("an end") };
    assert_eq!((end.reason, end.exit_code), (Reason::OutOfMemory, 137));
    assert_eq!((end.stdout_bytes, end.stderr_bytes, end.stderr_truncated), (3, 10, true));
    assert_eq!(run.next().await, None);
}

#[tokio::test]
async fn a_script_that_is_dropped_is_a_lost_run() {
    let (run, script) = run_pair();
    script.output().push(Stream::Stdout, "one".into()).expect("read");
    drop(script);
    let captured = run.capture().await;
    assert_eq!((captured.end.reason, captured.stdout), (Reason::Lost, "one".into()));
}

#[tokio::test]
async fn a_script_hears_that_its_run_was_dropped() {
    let (run, script) = run_pair();
    run.stopper().signal(Signal::TERM);
    assert_eq!(script.cancel().signalled().await, Signal::TERM);
    assert_eq!(script.stopped_for(), None);
    drop(run);
    script.cancel().stop_requested().await;
    assert_eq!(script.stopped_for(), Some(Reason::Cancelled));
    script.output().write(Stream::Stdout, "x".into()).await.expect_err("nobody reads");
}

#[test]
fn a_relative_workdir_stays_below_root() {
    let relative =
        |workdir: &str| TestCommand::new(["any"]).workdir(workdir).command().relative_workdir();
    assert_eq!(
        TestCommand::new(["any"]).command().relative_workdir().expect("root"),
        PathBuf::new()
    );
    for (workdir, expected) in [
        ("", ""),
        (".", ""),
        ("/", ""),
        ("a/b", "a/b"),
        ("./a//b/.", "a/b"),
        ("/etc", "etc"),
        ("//etc", "etc"),
        ("..a/b..", "..a/b.."),
    ] {
        assert_eq!(relative(workdir).expect(workdir), PathBuf::from(expected));
    }
    for workdir in ["..", "../a", "a/..", "a/../../b", "/..", "a\0b"] {
        let error = relative(workdir).expect_err(workdir);
        assert!(matches!(error, ExecuteError::Workdir { .. }), "{error}");
    }
}

#[test]
fn working_directories_are_opened_below_root() {
    let base = tempfile::tempdir().expect("a directory");
    let root = base.path().join("root");
    std::fs::create_dir_all(root.join("data/deep")).expect("made");
    std::fs::create_dir_all(root.join("hidden/deep")).expect("made");
    symlink("..", root.join("out")).expect("made");
    let workdirs = Workdirs::builder(&root).protect(root.join("hidden")).build().expect("opened");
    let open = |workdir: &str| {
        let command = TestCommand::new(["any"]).workdir(workdir).command();
        let opened = workdirs.open(&command)?;
        let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
        Ok::<_, ExecuteError>(std::fs::read_link(name).expect("proc(5)"))
    };
    let root = root.canonicalize().expect("a directory");
    for (workdir, expected) in
        [("", ""), ("data/..", ""), ("/data/deep", "data/deep"), ("./data/", "data")]
    {
        assert_eq!(open(workdir).expect(workdir), root.join(expected).components().as_path());
    }
    for workdir in ["..", "out", "/out/other", "missing", "hidden", "data/../hidden/deep"] {
        let error = open(workdir).expect_err(workdir);
        assert!(matches!(error, ExecuteError::Workdir { .. }), "{error}");
    }
}

#[tokio::test]
async fn variables_are_those_that_programs_get() {
    let environment = Environment::minimal().set("HOST", "1").set("BOTH", "host");
    let executor = LocalExecutor::builder(".").environment(environment.clone()).build();
    let executor = executor.expect("set up");
    for path_first in [None, Some("/first".to_owned())] {
        let command = || {
            let command = TestCommand::new(["env", "-0"]).env("BOTH", "old").env("BOTH", "request");
            command.with(|command| {
                command.path_first.clone_from(&path_first);
                // A fresh one each time otherwise.
                command.env.retain(|(name, _)| name != "SPL_SESSION_ID");
            })
        };
        let ran = command().run(&executor).await;
        assert!(ran.exit.is_ok(), "{:?}", ran.exit);
        let mut printed: Vec<String> = String::from_utf8_lossy(&ran.stdout)
            .split_terminator('\0')
            .map(str::to_owned)
            .collect();
        printed.sort();
        let variables = environment.variables(&command().command());
        assert_eq!(variables[&OsString::from("BOTH")], "request");
        let mut expected: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
            .collect();
        expected.sort();
        assert_eq!(printed, expected);
    }
}
