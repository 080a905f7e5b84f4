//! What the engine adds to starting a process: `/bin/true` through the engine, against bare
//! posix_spawn(3) with two pipes and a wait, as `std::process` does it.
//!
//! `cargo bench -p benches --bench spawn`

use std::process::{Command, Stdio};
use std::time::Duration;

use benches::{Times, report, timed};
use splengine_core::local::CgroupMode;
use splengine_core::{Caller, Engine, LocalExecutor, Request};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const ROUNDS: usize = 60;
const CALLS: usize = 25;
const IN_FLIGHT: usize = 32;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let engines: Vec<(&str, Engine)> = [("sweep", CgroupMode::Off), ("auto", CgroupMode::Auto)]
        .map(|(name, mode)| (name, engine(mode)))
        .into();
    measure(&runtime, &engines, "");
    let ballast = vec![1u8; 1 << 30];
    measure(&runtime, &engines, ", 1 GiB resident");
    drop(ballast);
}

fn engine(cgroup: CgroupMode) -> Engine {
    let executor = LocalExecutor::builder("/tmp").cgroup(cgroup).build().expect("set up");
    Engine::builder(executor).build().expect("built")
}

fn measure(runtime: &Runtime, engines: &[(&str, Engine)], condition: &str) {
    let mut ours = vec![Vec::new(); engines.len()];
    let mut bare = Vec::new();
    for _ in 0..ROUNDS {
        for ((_, engine), times) in engines.iter().zip(&mut ours) {
            let engine = engine.clone();
            // In a task, as a server's handler is.
            let round = runtime.spawn(async move {
                let mut round = Vec::with_capacity(CALLS);
                for _ in 0..CALLS {
                    let begun = Instant::now();
                    one(&engine).await;
                    round.push(begun.elapsed());
                }
                round
            });
            times.extend(runtime.block_on(round).expect("no panic"));
        }
        bare.extend((0..CALLS).map(|_| timed(one_bare)));
    }
    let bare = Times::new(bare);
    for ((name, _), times) in engines.iter().zip(ours) {
        let times = Times::new(times);
        for (what, of) in [("median", 0.5), ("p99", 0.99)] {
            let aim = if of > 0.5 { "-" } else { "at most 1.15x" };
            let what = format!("spawn {what}, {name}{condition}");
            report(&what, micros(times.quantile(of)), micros(bare.quantile(of)), "us", aim);
        }
    }

    let mut rates = vec![Vec::new(); engines.len()];
    let mut bare = Vec::new();
    for _ in 0..10 {
        for ((_, engine), rates) in engines.iter().zip(&mut rates) {
            rates.push(in_flight(runtime, engine));
        }
        bare.push(in_flight_bare());
    }
    let bare = median(bare);
    for ((name, _), rates) in engines.iter().zip(rates) {
        let what = format!("throughput at {IN_FLIGHT} in flight, {name}{condition}");
        report(&what, median(rates), bare, "/s", "at least 0.9x");
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

async fn one(engine: &Engine) {
    let caller = Caller::new("bench").expect("a user name").with_all_scopes();
    let run = engine.execute(&caller, Request::new("/bin/true")).await.expect("starts");
    assert!(run.capture().await.end.success());
}

fn one_bare() {
    let child = Command::new("/bin/true")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    assert!(child.wait_with_output().expect("ends").status.success());
}

/// Runs a second, with so many at a time.
fn in_flight(runtime: &Runtime, engine: &Engine) -> f64 {
    let total = IN_FLIGHT * 20;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let engine = engine.clone();
            runtime.spawn(async move {
                for _ in 0..total / IN_FLIGHT {
                    one(&engine).await;
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).expect("no panic");
    }
    total as f64 / begun.elapsed().as_secs_f64()
}

fn in_flight_bare() -> f64 {
    let total = IN_FLIGHT * 20;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..IN_FLIGHT {
            scope.spawn(|| (0..total / IN_FLIGHT).for_each(|_| one_bare()));
        }
    });
    total as f64 / begun.elapsed().as_secs_f64()
}
