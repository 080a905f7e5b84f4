//! What the engine costs on the way of a program's output: 1 GiB through the engine's events,
//! against a bare loop that reads the same program's pipe, 64 KiB at a time.
//!
//! `cargo bench -p benches --bench output`

use std::io::Read as _;
use std::process::{Command, Stdio};

use benches::{report, resident, timed};
use splengine_core::{Caller, Engine, Event, LocalExecutor, Request};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const TOTAL: u64 = 1 << 30;
const ROUNDS: usize = 5;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let executor = LocalExecutor::new("/tmp").expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let (mut ours, mut bare, mut growth) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let engine = engine.clone();
        let (rate, grown) =
            runtime.block_on(runtime.spawn(through_engine(engine))).expect("no panic");
        ours.push(rate);
        growth = growth.max(grown);
        bare.push(rate_of(timed(bare_loop)));
    }
    ours.sort_unstable_by(f64::total_cmp);
    bare.sort_unstable_by(f64::total_cmp);
    let middle = ROUNDS / 2;
    report("1 GiB of output", ours[middle], bare[middle], "MiB/s", "at least 0.85x");
    let mib = growth as f64 / f64::from(1 << 20);
    report("resident growth meanwhile, against the aim", mib, 16.0, "MiB", "at most 1x");
}

fn rate_of(time: std::time::Duration) -> f64 {
    (TOTAL >> 20) as f64 / time.as_secs_f64()
}

fn program() -> String {
    format!("head -c {TOTAL} /dev/zero")
}

/// MiB a second, and by how much the process grew at its largest.
async fn through_engine(engine: Engine) -> (f64, u64) {
    let caller = Caller::new("bench").expect("a user name").with_all_scopes();
    let before = resident();
    let begun = Instant::now();
    let mut run = engine.execute(&caller, Request::new(program())).await.expect("starts");
    let (mut seen, mut largest, mut events) = (0, before, 0u32);
    while let Some(event) = run.next().await {
        if let Event::Output { data, .. } = event {
            seen += data.len() as u64;
            events += 1;
            if events.is_multiple_of(1024) {
                largest = largest.max(resident());
            }
        }
    }
    assert_eq!(seen, TOTAL);
    (rate_of(begun.elapsed()), largest - before)
}

fn bare_loop() {
    let program = program();
    let mut words = program.split(' ');
    let mut child = Command::new(words.next().expect("a program"))
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut pipe = child.stdout.take().expect("was piped");
    let (mut seen, mut buffer) = (0, vec![0; 64 * 1024]);
    loop {
        match pipe.read(&mut buffer).expect("reads") {
            0 => break,
            length => seen += length as u64,
        }
    }
    assert_eq!(seen, TOTAL);
    assert!(child.wait().expect("ends").success());
}
