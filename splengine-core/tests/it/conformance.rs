//! The conformance suite of executors: what it finds in those that are broken, and that the local one
//! is not.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use splengine_core::execute::{
    Cancel, Command, Exit, ExitStatus, Output, SharedExecutor, Signal, Stdin, Stream,
};
use splengine_core::store::{Change, MemoryStore, RedbStore, Rows, Store, StoreFault};
use splengine_core::testing::conformance::{StoreSuite, Suite};
use splengine_core::{Execute, ExecuteError, LocalExecutor};
use tokio::io::AsyncReadExt as _;
use tokio::time::sleep;

use crate::support::modes;

/// Whether there is a process with this word in its command line, and no zombie.
fn runs(word: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("proc(5)").flatten();
    processes.into_iter().any(|process| {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|each| each == word.as_bytes())
    })
}

async fn local_conforms(executor: impl Execute, name: &str) {
    // Seconds, and a mark.
    let time = format!("86400.{}{name}", std::process::id());
    let obstinate = format!("trap '' TERM; exec sleep {time}");
    let suite = Suite::new(&executor)
        .prints(["seq", "20000"], (1..=20000).map(|i| format!("{i}\n")).collect::<String>())
        .exits(["sh", "-c", "exit 7"], 7)
        .reads(["cat"], "x".repeat(300_000), "x".repeat(300_000))
        .floods(["yes"])
        .sleeps(["sleep", time.as_str()])
        .sleeps(["sh", "-c", obstinate.as_str()])
        .refuses(["no-such-program"])
        .refuses(["/"])
        .is_running(|| runs(&time));
    suite.run().await.unwrap_or_else(|violation| panic!("{violation}"));
}

#[tokio::test]
async fn local_executor_conforms() {
    for (place, mode) in modes().into_iter().enumerate() {
        let root = tempfile::tempdir().expect("a directory");
        let executor = LocalExecutor::builder(root.path()).cgroup(mode).build().expect("set up");
        local_conforms(executor, &format!("1{place}")).await;
    }
}

#[tokio::test]
async fn decorated_local_executor_conforms() {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(root.path()).expect("set up");
    local_conforms(Arc::new(SharedExecutor::new(executor)), "2").await;
}

/// What an executor does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    RefusesAll,
    NeverStarts,
    StartsTwice,
    Fails,
    Loses,
    Disorders,
    PrintsLate,
    EndsWithZero,
    SaysStopped,
    PassesOverInput,
    LeavesRoot,
    PushesOn,
    DeafWhileFull,
    DeafToStop,
    DeafToKill,
    SaysEnded,
    FailsWhenStopped,
    RunsOnWhenDropped,
    KeepsInput,
    ChecksNothing,
    RunsUnknown,
}

/// Commands without processes.
struct Toy(Fault);

impl Toy {
    async fn perform(&self, command: &Command, stdin: Stdin, output: &Output) -> i32 {
        let Self(fault) = self;
        match command.text_argv().expect("text")[0] {
            "print" => {
                let mut lines = vec!["one\n", "two\n", "three\n"];
                match fault {
                    Fault::Loses => drop(lines.pop()),
                    Fault::Disorders => lines.swap(0, 1),
                    Fault::PrintsLate => {
                        let output = output.clone();
                        tokio::spawn(async move {
                            sleep(Duration::from_millis(10)).await;
                            output.push(Stream::Stderr, Bytes::from_static(b"four\n"))
                        });
                    }
                    _ => {}
                }
                for line in lines {
                    let _ = output.write(Stream::Stdout, Bytes::from(line)).await;
                }
            }
            "exit" if *fault != Fault::EndsWithZero => return 7,
            "upper" => {
                let mut input = Vec::with_capacity(4096);
                let mut reader = stdin.into_reader();
                if *fault == Fault::PassesOverInput {
                    reader.read_buf(&mut input).await.expect("reads");
                } else {
                    reader.read_to_end(&mut input).await.expect("reads");
                }
                let _ = output.write(Stream::Stdout, input.to_ascii_uppercase().into()).await;
            }
            "flood" => loop {
                let data = Bytes::from(vec![b'x'; 64 << 10]);
                let written = match fault {
                    Fault::PushesOn => {
                        sleep(Duration::from_millis(1)).await;
                        output.push(Stream::Stdout, data)
                    }
                    _ => output.write(Stream::Stdout, data).await,
                };
                if written.is_err() {
                    std::future::pending::<()>().await;
                }
            },
            "sleep" => {
                let _stdin = stdin;
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        0
    }
}

impl Execute for Toy {
    async fn execute(
        &self,
        command: Command,
        mut stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        let Self(fault) = self;
        if *fault != Fault::LeavesRoot {
            command.relative_workdir()?;
        }
        if *fault != Fault::RunsUnknown {
            known(&command)?;
        }
        let starts = match fault {
            Fault::NeverStarts => 0,
            Fault::StartsTwice => 2,
            _ => 1,
        };
        for _ in 0..starts {
            output.started();
        }
        if *fault == Fault::RunsOnWhenDropped {
            let output = output.clone();
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(output);
            });
        }
        if *fault == Fault::KeepsInput && command.argv[0] == "sleep" {
            let input = std::mem::replace(&mut stdin, Stdin::null());
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(input);
            });
        }
        let is_flood = command.argv[0] == "flood";
        let told = async {
            match fault {
                Fault::DeafToStop => cancel.kill_requested().await,
                Fault::DeafToKill => {
                    cancel.stop_requested().await;
                    sleep(command.grace).await;
                }
                Fault::DeafWhileFull if is_flood => {
                    cancel.stop_requested().await;
                    output.ready().await;
                }
                _ => cancel.stop_requested().await,
            }
        };
        tokio::select! {
            code = self.perform(&command, stdin, &output) => {
                let exit = Exit::new(ExitStatus::Code(code));
                match fault {
                    Fault::Fails => Err(ExecuteError::internal("of no reason")),
                    Fault::SaysStopped => Ok(exit.stopped()),
                    _ => Ok(exit),
                }
            }
            () = told => {
                let exit = Exit::new(ExitStatus::Signal(Signal::TERM));
                match fault {
                    Fault::FailsWhenStopped => Err(ExecuteError::internal("of no reason")),
                    Fault::SaysEnded => Ok(exit),
                    _ => Ok(exit.stopped()),
                }
            }
        }
    }

    async fn check(&self, command: &Command) -> Result<(), ExecuteError> {
        match self.0 {
            Fault::RefusesAll => Err(ExecuteError::ProgramNotFound("all".to_owned())),
            Fault::ChecksNothing => Ok(()),
            _ => known(command),
        }
    }
}

fn known(command: &Command) -> Result<(), ExecuteError> {
    match command.text_argv()?[0] {
        "print" | "exit" | "upper" | "flood" | "sleep" => Ok(()),
        other => Err(ExecuteError::ProgramNotFound(other.to_owned())),
    }
}

fn toy_suite(toy: &Toy) -> Suite<'_, Toy> {
    Suite::new(toy)
        .prints(["print"], "one\ntwo\nthree\n")
        .exits(["exit"], 7)
        .reads(["upper"], "a".repeat(1000), "A".repeat(1000))
        .floods(["flood"])
        .sleeps(["sleep"])
        .refuses(["rm", "-r"])
}

// Nothing here waits for anything but the clock, which is why it may be paused.
#[tokio::test(start_paused = true)]
async fn each_fault_is_found() {
    for (fault, expected) in [
        (Fault::RefusesAll, "`print` is refused by `check`: program `all` was not found"),
        (Fault::NeverStarts, "`print` called `Output::started` 0 times, not once"),
        (Fault::StartsTwice, "`print` called `Output::started` 2 times, not once"),
        (Fault::Fails, "`print` did not run: "),
        (Fault::Loses, "`print` printed \"one\\ntwo\\n\" (8 bytes) until it returned, not \"one"),
        (Fault::Disorders, "`print` printed \"two\\none\\nthree\\n\" (14 bytes)"),
        (Fault::PrintsLate, "`print` wrote 5 bytes after it had returned"),
        (Fault::EndsWithZero, "`exit` ended with Code(0), not 7"),
        (Fault::SaysStopped, "`print` was not told to stop, and is reported as stopped"),
        (Fault::PassesOverInput, "`upper` printed \"AAAAAAA\" (7 bytes) until it returned"),
        (Fault::LeavesRoot, "`print` was run with `../../..` as its directory"),
        (Fault::PushesOn, "`flood` wrote on while its output was not read: "),
        (Fault::DeafWhileFull, "`flood` has not returned 11s after the request to stop, with its"),
        (Fault::DeafToStop, "has not returned 11s after the request to stop"),
        (Fault::DeafToKill, "`sleep` has not returned 11s after the request to kill"),
        (Fault::SaysEnded, "`flood` ended with Signal(Signal(15)) after the request to stop"),
        (Fault::FailsWhenStopped, "`flood` failed after the request to stop"),
        (Fault::RunsOnWhenDropped, "`sleep` holds its `Output` after its future was dropped"),
        (Fault::KeepsInput, "`sleep` holds its `Stdin` after its future was dropped"),
        (Fault::ChecksNothing, "`rm -r` is accepted by `check`, and was to be refused"),
        (Fault::RunsUnknown, "`rm -r` is refused by `check` (program `rm` was not found), but was"),
    ] {
        let toy = Toy(fault);
        let found = toy_suite(&toy).run().await;
        let Err(violation) = found.map_err(|violation| violation.to_string()) else {
            panic!("{fault:?} is not found");
        };
        assert!(violation.contains(expected), "{fault:?}: {violation}");
    }
    toy_suite(&Toy(Fault::None)).run().await.expect("no fault");
}

#[tokio::test(start_paused = true)]
async fn what_runs_on_is_found() {
    let toy = Toy(Fault::None);
    for (is_running, expected) in [
        (true, "`sleep` still runs after the request to stop"),
        (false, "`sleep` is not there after 60s: a program that `is_running` sees"),
    ] {
        let suite = Suite::new(&toy).sleeps(["sleep"]).is_running(move || is_running);
        let violation = suite.run().await.expect_err("a fault").to_string();
        assert!(violation.contains(expected), "{violation}");
    }
}

#[test]
fn own_stores_conform() {
    StoreSuite::new(|| Ok(MemoryStore::new())).run().expect("conforms");
    let root = tempfile::tempdir().expect("a directory");
    StoreSuite::new(|| RedbStore::open(root.path().join("store")))
        .durable()
        .run()
        .expect("conforms");
}

#[derive(Debug, Clone, Copy)]
enum StoreDefect {
    LosesTheLast,
    SplitsCommits,
    IgnoresMost,
    IgnoresBackwards,
    HasTheBound,
    OrdersByLength,
    ForgetsEmptyValues,
}

/// A store that does one thing wrong.
struct BrokenStore(MemoryStore, StoreDefect);

impl Store for BrokenStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreFault> {
        match self.1 {
            StoreDefect::LosesTheLast if changes.len() > 5 => {
                self.0.commit(&changes[..changes.len() - 1])
            }
            StoreDefect::SplitsCommits => changes.iter().try_for_each(|change| {
                std::thread::sleep(Duration::from_millis(1));
                self.0.commit(std::slice::from_ref(change))
            }),
            StoreDefect::ForgetsEmptyValues => {
                let is_kept =
                    |change: &&Change| change.value.as_ref().is_none_or(|v| !v.is_empty());
                self.0.commit(&changes.iter().filter(is_kept).cloned().collect::<Vec<_>>())
            }
            _ => self.0.commit(changes),
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        self.0.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        backwards: bool,
        most: usize,
    ) -> Result<Rows, StoreFault> {
        match self.1 {
            StoreDefect::IgnoresMost => self.0.scan(from, until, backwards, usize::MAX),
            StoreDefect::IgnoresBackwards => self.0.scan(from, until, false, most),
            StoreDefect::HasTheBound if from < until => {
                self.0.scan(from, &[until, b"\0"].concat(), backwards, most)
            }
            StoreDefect::OrdersByLength => {
                let mut rows = self.0.scan(from, until, false, usize::MAX)?;
                rows.sort_by_key(|(key, _)| key.len());
                if backwards {
                    rows.reverse();
                }
                rows.truncate(most);
                Ok(rows)
            }
            _ => self.0.scan(from, until, backwards, most),
        }
    }
}

#[test]
fn stores_that_are_broken_are_found() {
    for (defect, words) in [
        (StoreDefect::LosesTheLast, "a key that was removed is absent"),
        (StoreDefect::SplitsCommits, "a scan finds all changes of a commit, or none"),
        (StoreDefect::IgnoresMost, "within its bounds"),
        (StoreDefect::IgnoresBackwards, "within its bounds"),
        (StoreDefect::HasTheBound, "within its bounds"),
        (StoreDefect::OrdersByLength, "within its bounds"),
        (StoreDefect::ForgetsEmptyValues, "a value may be empty"),
    ] {
        let ran = StoreSuite::new(|| Ok(BrokenStore(MemoryStore::new(), defect))).run();
        let violation = ran.expect_err("it is broken").to_string();
        assert!(violation.contains(words), "{defect:?}: {violation}");
    }
    // One that is not kept, and may be opened twice.
    let twice = StoreSuite::new(|| Ok(MemoryStore::new())).durable().run();
    let violation = twice.expect_err("it is opened").to_string();
    assert_eq!(violation, "a store that is open can't be opened again: it was opened");
}
