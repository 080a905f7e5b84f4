//! How long it takes to attach to a session and have its screen: 200 by 50, full of colour, with
//! 300 lines above it.
//!
//! `cargo bench -p benches --bench attach`

use benches::{Times, report};
use splengine_core::auth::Access;
use splengine_core::session::{Attach, SessionPolicy, Update};
use splengine_core::terminal::Size;
use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
use tokio::time::Instant;

#[tokio::main]
async fn main() {
    let executor = LocalExecutor::new("/tmp").expect("set up");
    let engine = Engine::builder(executor).sessions(SessionPolicy::new()).build().expect("built");
    let caller = Caller::new("bench").expect("a user name").with_all_scopes();
    let script = r#"for line in $(seq 400); do for word in $(seq 24); do printf '\033[3%dmword%03d ' $((word % 8)) $line; done; echo; done; echo full; read x"#;
    let size = Size::new(200, 50).expect("a size");
    let request = SessionRequest::new().command("sh -c").arg(script).size(size);
    let session = engine.sessions().create(&caller, request).await.expect("starts");
    let attach = || {
        engine.sessions().attach(&caller, &session.id, Attach::new(Access::View)).expect("attaches")
    };
    let mut watcher = attach();
    loop {
        if let Some(Update::Output { data, .. } | Update::Snapshot { data, .. }) =
            watcher.next().await
            && data.windows(4).any(|window| window == b"full")
        {
            break;
        }
    }
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..300 {
        let begun = Instant::now();
        let mut client = attach();
        let Some(Update::Snapshot { data, .. }) = client.next().await else {
            panic!("no screen first");
        };
        times.push(begun.elapsed());
        bytes = data.len();
    }
    let times = Times::new(times);
    let millis = |of| times.quantile(of).as_secs_f64() * 1e3;
    let what = format!("attach, with a screen of {} KiB, median against 2 ms", bytes >> 10);
    report(&what, millis(0.5), 2.0, "ms", "below 1x");
    report("attach, 99th percentile against 2 ms", millis(0.99), 2.0, "ms", "-");
}
