//! What the input of executions that run or wait, and the commands of sessions, hold in memory.

use std::time::Duration;

use splengine_core::engine::{Admitted, EngineBuilder};
use splengine_core::execute::Stdin;
use splengine_core::local::CgroupMode;
use splengine_core::session::SessionPolicy;
use splengine_core::{Engine, ErrorKind, ExecuteError, Request, Run, SessionError, SessionRequest};

use crate::support::{bench_with, caller, read_until, sh};

const ALL: usize = 1_000_000;
const PER_CALLER: usize = 600_000;

fn bounded(builder: EngineBuilder) -> EngineBuilder {
    builder.max_input_bytes(ALL).max_input_bytes_per_caller(PER_CALLER)
}

/// More than a pipe takes, of which its program reads nothing.
fn idle(bytes: usize) -> Request {
    Request::new("sleep 600").stdin(Stdin::bytes(vec![b'x'; bytes]))
}

async fn start(engine: &Engine, who: &str, request: Request) -> Result<Run, ExecuteError> {
    engine.execute(&caller(who), request).await
}

async fn refusal(engine: &Engine, who: &str, request: Request) -> ExecuteError {
    let refused = start(engine, who, request).await.expect_err("refused");
    assert!(refused.retry_after().is_some(), "{refused}");
    refused
}

#[tokio::test]
async fn of_one_caller_and_of_all_only_so_much_input_is_held() {
    let bench = bench_with(CgroupMode::Off, bounded);
    let engine = &bench.engine;
    let first = start(engine, "alice", idle(500_000)).await.expect("starts");
    let long = "x".repeat(60_000);
    let too_much = [
        idle(200_000),
        sh("true").args([&long, &long]),
        sh("true").env("A", &long).env("B", &long),
        sh("true").args(vec![""; 5_000]),
    ];
    for request in too_much {
        let refused = refusal(engine, "alice", request).await;
        let is_hers = matches!(refused, ExecuteError::CallerInput { max_bytes: PER_CALLER, .. });
        assert!(is_hers && refused.kind() == ErrorKind::CallerLimit, "{refused}");
    }
    // What takes next to nothing is run in any case.
    let small = start(engine, "alice", sh("cat").stdin(Stdin::bytes("text"))).await;
    assert_eq!(&small.expect("starts").capture().await.stdout[..], b"text");

    let _second = start(engine, "bob", idle(400_000)).await.expect("starts");
    let refused = refusal(engine, "carol", idle(300_000)).await;
    assert!(matches!(refused, ExecuteError::InputFull { max_bytes: ALL, .. }), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    first.stopper().stop();
    first.capture().await;
    start(engine, "carol", idle(300_000)).await.expect("there is memory again");
}

/// As standard input is, for as long as the program runs.
#[tokio::test]
async fn arguments_and_variables_are_held_while_their_program_runs() {
    let bench = bench_with(CgroupMode::Off, bounded);
    let engine = &bench.engine;
    let long = "x".repeat(100_000);
    let sleeps = || sh("echo up; exec sleep 600");
    let with_args = sleeps().args(vec![&long; 5]);
    let with_env =
        (0..5).fold(sleeps(), |request, number| request.env(format!("A{number}"), &long));
    for (who, request) in [("alice", with_args), ("bob", with_env)] {
        let mut first = start(engine, who, request).await.expect("starts");
        read_until(&mut first, "up").await;
        let refused = refusal(engine, who, idle(200_000)).await;
        assert!(matches!(refused, ExecuteError::CallerInput { .. }), "{refused}");
        first.stopper().kill();
        first.capture().await;
        start(engine, who, idle(200_000)).await.expect("there is memory again");
    }
}

#[tokio::test]
async fn input_that_waits_for_a_place_is_held_and_given_back() {
    let bench = bench_with(CgroupMode::Off, |builder| bounded(builder).max_running(1));
    let (engine, alice) = (&bench.engine, caller("alice"));
    let running = start(engine, "alice", sh("sleep 600")).await.expect("starts");
    let waiting = engine.admit(&alice, idle(500_000)).await.expect("waits");
    assert!(matches!(waiting, Admitted::Queued(_)));
    let refused = engine.admit(&alice, idle(200_000)).await.expect_err("refused");
    assert!(matches!(refused, ExecuteError::CallerInput { .. }), "{refused}");
    drop(waiting);
    let waiting = engine.admit(&alice, idle(500_000)).await.expect("waits");
    drop((waiting, running));
}

#[tokio::test]
async fn input_that_was_read_is_given_back_while_its_program_runs() {
    let bench = bench_with(CgroupMode::Off, bounded);
    let reads = sh("cat >/dev/null; echo read; sleep 600").stdin(Stdin::bytes(vec![b'x'; 500_000]));
    let mut first = start(&bench.engine, "alice", reads).await.expect("starts");
    read_until(&mut first, "read").await;
    let _second = start(&bench.engine, "alice", idle(500_000)).await.expect("starts");
    drop(first);
}

#[tokio::test]
async fn input_over_the_bound_is_taken_alone() {
    let bench = bench_with(CgroupMode::Off, bounded);
    let engine = &bench.engine;
    let large = start(engine, "alice", idle(2 * ALL)).await.expect("there is nothing else");
    let refused = refusal(engine, "bob", idle(100_000)).await;
    assert!(matches!(refused, ExecuteError::InputFull { .. }), "{refused}");
    drop(large);
}

/// A session whose arguments have so many times 100,000 bytes.
fn session(count: usize) -> SessionRequest {
    with_args(count, &"x".repeat(100_000))
}

fn with_args(count: usize, word: &str) -> SessionRequest {
    let session = SessionRequest::new().command("sleep 600");
    (0..count).fold(session, |session, _| session.arg(word))
}

async fn opens(engine: &Engine, who: &str, request: SessionRequest) -> Result<(), SessionError> {
    engine.sessions().create(&caller(who), request).await.map(drop)
}

#[tokio::test]
async fn of_one_caller_and_of_all_sessions_commands_hold_only_so_much() {
    let policy =
        SessionPolicy::new().max_command_bytes(ALL).max_command_bytes_per_caller(PER_CALLER);
    let bench = bench_with(CgroupMode::Off, |builder| builder.sessions(policy));
    let (engine, alice) = (&bench.engine, caller("alice"));
    let first = engine.sessions().create(&alice, session(5)).await.expect("starts");
    let too_much = [
        session(2),
        with_args(5_000, ""),
        (0..2).fold(session(0), |session, number| {
            session.env(format!("A{number}"), "x".repeat(60_000))
        }),
    ];
    for request in too_much {
        let refused = opens(engine, "alice", request).await.expect_err("refused");
        let limit = match &refused {
            SessionError::CallerLimit { what, limit } if what.contains("arguments") => *limit,
            _ => panic!("{refused:?}"),
        };
        assert_eq!((limit, refused.kind()), (PER_CALLER, ErrorKind::CallerLimit));
    }
    opens(engine, "alice", session(0)).await.expect("takes next to nothing");
    opens(engine, "bob", session(4)).await.expect("within both bounds");
    let refused = opens(engine, "carol", session(3)).await.expect_err("refused");
    assert!(matches!(refused, SessionError::InputFull { max_bytes: ALL }), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.retry_after().is_some());
    engine.sessions().end(&alice, &first.id).await.expect("ends");
    let mut opened = opens(engine, "carol", session(3)).await;
    // What serves the session that has ended may hold it for a moment.
    for _ in 0..1500 {
        if opened.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        opened = opens(engine, "carol", session(3)).await;
    }
    opened.expect("there is memory again");
    // Whoever drops the runtime reaps nobody.
    engine.drain(Duration::ZERO).await;
}
