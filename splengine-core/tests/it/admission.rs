use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Stdin};
use splengine_core::local::CgroupMode;
use splengine_core::{Engine, ErrorKind, Execute, ExecuteError, Reason, Request};
use tokio::sync::Semaphore;

use crate::support::*;

/// Runs nothing; each run lasts until the test lets one go.
struct Gated {
    gate: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Execute for Gated {
    async fn execute(
        &self,
        _: Command,
        _: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        let now = self.running.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        output.started();
        let stopped = tokio::select! {
            permit = self.gate.acquire() => { permit.expect("open").forget(); false }
            () = cancel.stop_requested() => true,
        };
        self.running.fetch_sub(1, SeqCst);
        let exit = Exit::new(ExitStatus::Code(0));
        Ok(if stopped { exit.stopped() } else { exit })
    }
}

fn gated(
    configure: impl FnOnce(
        splengine_core::engine::EngineBuilder,
    ) -> splengine_core::engine::EngineBuilder,
) -> (Engine, Arc<Semaphore>, Arc<AtomicUsize>) {
    let gate = Arc::new(Semaphore::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let executor =
        Gated { gate: Arc::clone(&gate), running: Arc::default(), most: Arc::clone(&most) };
    (configure(Engine::builder(executor)).build().expect("built"), gate, most)
}

#[tokio::test]
async fn one_caller_leaves_places_to_others() {
    let (engine, gate, _) = gated(|builder| builder.max_running(16));
    let start = |name: &str| {
        let (engine, user) = (engine.clone(), caller(name));
        tokio::spawn(async move { engine.execute(&user, Request::new("run")).await.expect("runs") })
    };
    let alices: Vec<_> = (0..16).map(|_| start("alice")).collect();
    eventually("the rest of them waits", || engine.stats().waiting == 2).await;
    assert_eq!(engine.stats().running, 14);
    let bobs = [start("bob"), start("bob")];
    for bob in bobs {
        drop(bob.await.expect("no panic"));
    }
    gate.add_permits(16);
    for alice in alices {
        drop(alice.await.expect("no panic"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_callers_at_eight_running() {
    let bench = bench_with(CgroupMode::Auto, |builder| builder.max_running(8));
    let script = "echo >> running; sleep 0.02";
    let most = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..200 {
        let (engine, most) = (bench.engine.clone(), Arc::clone(&most));
        tasks.spawn(async move {
            let user = caller(&format!("user{}", i % 10));
            let run = engine.execute(&user, sh(script)).await.expect("all are let in");
            most.fetch_max(usize::try_from(engine.stats().running).expect("small"), SeqCst);
            assert!(run.capture().await.end.success());
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("all end");
    }
    let most = most.load(SeqCst);
    assert!((2..=8).contains(&most), "{most} ran at once");
    assert_eq!(bench.engine.stats().started, 200);
}

#[tokio::test]
async fn over_the_bounds_is_refused_with_a_time_to_come_back() {
    let (engine, gate, most) = gated(|b| b.max_running(1).max_waiting(2).max_waiting_per_caller(1));
    let (alice, bob, carol) = (caller("alice"), caller("bob"), caller("carol"));
    let first = engine.execute(&alice, sh("")).await.expect("runs");
    let mut waiting = Vec::new();
    for user in [&alice, &bob] {
        let (waiter, user) = (engine.clone(), user.clone());
        waiting.push(tokio::spawn(async move {
            waiter.execute(&user, sh("")).await.expect("runs in the end").capture().await
        }));
        let queued = waiting.len() as u64;
        eventually("it waits", || engine_waits(&engine) == queued).await;
    }
    let own = engine.execute(&alice, sh("")).await.expect_err("refused");
    assert_eq!(own.kind(), ErrorKind::CallerLimit);
    let full = engine.execute(&carol, sh("")).await.expect_err("refused");
    assert_eq!(full.kind(), ErrorKind::Unavailable);
    for refusal in [own, full] {
        assert!(refusal.retry_after().is_some_and(|wait| wait >= Duration::from_secs(1)));
    }
    gate.add_permits(3);
    first.capture().await;
    for run in waiting {
        assert!(run.await.expect("no panic").end.success());
    }
    assert_eq!(most.load(SeqCst), 1);
    assert_eq!(engine_waits(&engine), 0);
}

fn engine_waits(engine: &Engine) -> u64 {
    engine.stats().waiting
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_no_trace() {
    let (engine, gate, _) = gated(|b| b.max_running(1));
    let alice = caller("alice");
    let first = engine.execute(&alice, sh("")).await.expect("runs");
    let given_up =
        tokio::time::timeout(Duration::from_millis(50), engine.execute(&alice, sh(""))).await;
    assert!(given_up.is_err());
    assert_eq!(engine_waits(&engine), 0);
    gate.add_permits(2);
    first.capture().await;
    let next = engine.execute(&alice, sh("")).await.expect("the place is free");
    assert!(next.capture().await.end.success());
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_it_waits() {
    let bench = bench_with(CgroupMode::Auto, |builder| builder.max_running(1));
    let run = bench.start(sh("sleep 60")).await;
    let refused = bench.refusal(Request::new("no-such-program"));
    let refusal = tokio::time::timeout(Duration::from_secs(50), refused).await.expect("at once");
    assert_eq!(refusal.kind(), ErrorKind::Impossible);
    drop(run);
}

#[tokio::test(start_paused = true)]
async fn time_in_the_queue_is_not_counted() {
    let (engine, gate, _) = gated(|b| b.max_running(1));
    let alice = caller("alice");
    let first = engine.execute(&alice, sh("")).await.expect("runs");
    let second = tokio::spawn({
        let (engine, alice) = (engine.clone(), alice.clone());
        let request = sh("").timeout(Duration::from_millis(400));
        async move { engine.execute(&alice, request).await.expect("runs").capture().await }
    });
    eventually("it waits", || engine_waits(&engine) == 1).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    gate.add_permits(2);
    first.capture().await;
    assert_eq!(second.await.expect("no panic").end.reason, Reason::Exited);
}

#[tokio::test]
async fn draining_refuses_the_new_and_lets_the_old_end() {
    let (engine, gate, _) = gated(|b| b.max_running(1));
    let alice = caller("alice");
    let running = engine.execute(&alice, sh("")).await.expect("runs");
    let waiting = tokio::spawn({
        let (engine, alice) = (engine.clone(), alice.clone());
        async move { engine.execute(&alice, sh("")).await.map(drop) }
    });
    eventually("it waits", || engine_waits(&engine) == 1).await;
    assert!(engine.is_open());
    let drained = tokio::spawn({
        let engine = engine.clone();
        async move { engine.drain(Duration::from_secs(3600)).await }
    });
    let refusal = waiting.await.expect("no panic").expect_err("refused");
    assert_eq!(refusal.kind(), ErrorKind::Unavailable);
    assert!(!engine.is_open());
    let refusal = engine.execute(&alice, sh("")).await.expect_err("refused");
    assert!(refusal.to_string().contains("shutting down"), "{refusal}");
    assert!(!drained.is_finished());
    gate.add_permits(1);
    assert!(running.capture().await.end.success());
    drained.await.expect("no panic");
}

#[tokio::test]
async fn draining_ends_what_outlasts_the_grace() {
    let bench = bench();
    let mut run = bench.start(sh("trap '' TERM; echo begun; while :; do sleep 0.05; done")).await;
    read_until(&mut run, "begun").await;
    bench.engine.drain(Duration::from_millis(100)).await;
    assert_eq!(run.capture().await.end.reason, Reason::Cancelled);
    assert_eq!(bench.engine.stats().running, 0);
}

#[tokio::test]
async fn killing_the_engine_waits_for_no_grace() {
    let bench = bench_with(CgroupMode::Auto, |b| b.grace(Duration::from_secs(3600)));
    let mut run = bench.start(sh("trap '' TERM; echo begun; while :; do sleep 0.05; done")).await;
    read_until(&mut run, "begun").await;
    bench.engine.kill();
    bench.engine.drain(Duration::from_secs(3600)).await;
    assert_eq!(run.capture().await.end.reason, Reason::Cancelled);
}

/// An executor that breaks every promise.
struct Faithless;

impl Execute for Faithless {
    async fn execute(
        &self,
        command: Command,
        _: Stdin,
        output: Output,
        _: Cancel,
    ) -> Result<Exit, ExecuteError> {
        match command.text_argv()?[0] {
            "panic" => panic!("on purpose"),
            "panic-later" => {
                output.started();
                panic!("on purpose")
            }
            "fail-later" => {
                output.started();
                Err(ExecuteError::internal("on purpose"))
            }
            _ => {
                output.started();
                std::future::pending().await
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_breaks_its_promises_hangs_nobody() {
    let engine = Engine::builder(Faithless).max_running(1).build().expect("built");
    let alice = caller("alice");
    let refusal = engine.execute(&alice, Request::new("panic")).await.expect_err("refused");
    assert_eq!(refusal.kind(), ErrorKind::Internal);
    for name in ["panic-later", "fail-later"] {
        let run = engine.execute(&alice, Request::new(name)).await.expect("starts");
        let end = run.capture().await.end;
        assert_eq!((end.reason, end.exit_code), (Reason::Lost, 125), "{name}");
    }
    let deaf = Request::new("deaf").timeout(Duration::from_secs(1));
    let run = engine.execute(&alice, deaf).await.expect("starts");
    let end = run.capture().await.end;
    assert_eq!((end.reason, end.exit_code), (Reason::TimedOut, 124));
    assert_eq!(engine.stats().running, 0);
}
