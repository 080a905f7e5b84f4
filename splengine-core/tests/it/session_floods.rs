//! Terminals whose programs print without end what costs much to draw: nobody else waits for them.

use std::time::Duration;

use splengine_core::auth::Access;
use splengine_core::session::{Attach, SessionPolicy, Update};
use splengine_core::terminal::Size;
use splengine_core::{Engine, LocalExecutor, Request, SessionRequest};
use tokio::time::{sleep, timeout};

use crate::support::{caller, on_workers};

/// Whole screens filled with a colour, one for every few bytes.
const COSTLY: &str = r"\033[41m\033[2J\033[499S\033[499L\033#8\033[999999b";

fn engine(root: &std::path::Path) -> Engine {
    let executor = LocalExecutor::new(root).expect("set up");
    let policy = SessionPolicy::new().max_screen_bytes(256 << 20);
    let policy = policy.store(root.join("sessions"));
    Engine::builder(executor)
        .grace(Duration::from_millis(500))
        .sessions(policy)
        .build()
        .expect("built")
}

fn costly() -> SessionRequest {
    let script = format!("while :; do printf '{COSTLY}'; done");
    SessionRequest::new().command("sh -c").arg(script).size(Size::clamped(1000, 500))
}

#[test]
fn terminals_that_print_without_end_hold_up_nobody() {
    on_workers(LIMIT, flooded);
}

async fn flooded() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = engine(root.path());
    let sessions = engine.sessions();
    let (alice, bob) = (caller("alice"), caller("bob"));
    let mut floods = Vec::new();
    for _ in 0..4 {
        let made = sessions.create(&alice, costly());
        floods.push(timeout(PATIENCE, made).await.expect("in time").expect("starts").id);
    }
    // All of them are at it.
    sleep(Duration::from_millis(500)).await;
    for _ in 0..20 {
        let run = async {
            let run = engine.execute(&bob, Request::new("true")).await.expect("starts");
            run.capture().await.end.success()
        };
        assert!(timeout(PATIENCE, run).await.expect("in time"));
    }
    // A terminal that costs little is not held up either.
    let quiet = SessionRequest::new().command("echo").arg("hello");
    let quiet = timeout(PATIENCE, sessions.create(&bob, quiet)).await;
    let quiet = quiet.expect("in time").expect("starts").id;
    let told = async {
        let attach = Attach::new(Access::View).from_start();
        let mut client = sessions.attach(&bob, &quiet, attach).expect("attaches");
        while !matches!(client.next().await.expect("more"), Update::Exit(_)) {}
        sessions.screen(&bob, &quiet).await.expect("is there")
    };
    assert_eq!(timeout(PATIENCE, told).await.expect("in time").text(), "hello");
    // They end when they are to, and their own clients get a screen.
    let last = floods.pop().expect("is one");
    for id in floods {
        let ended = sessions.end(&alice, &id);
        timeout(PATIENCE, ended).await.expect("in time").expect("ends");
    }
    let attach = Attach::new(Access::View);
    let mut client = sessions.attach(&alice, &last, attach).expect("attaches");
    let screen =
        async { while !matches!(client.next().await.expect("more"), Update::Snapshot { .. }) {} };
    timeout(PATIENCE, screen).await.expect("in time");
    let ended = sessions.end(&alice, &last);
    timeout(PATIENCE, ended).await.expect("in time").expect("ends");
}

/// Clients whose connections take nothing, while their screens wait for their turn to be drawn.
#[test]
fn clients_that_do_not_take_their_screens_hold_up_no_drawing() {
    on_workers(LIMIT, unread);
}

async fn unread() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = engine(root.path());
    let sessions = engine.sessions();
    let (alice, bob) = (caller("alice"), caller("bob"));
    let create = |who| sessions.create(who, costly());
    let flood = timeout(PATIENCE, create(&alice)).await.expect("in time").expect("starts").id;
    let other = timeout(PATIENCE, create(&bob)).await.expect("in time").expect("starts").id;
    let mut clients = Vec::new();
    for _ in 0..32 {
        let attach = Attach::new(Access::View);
        let mut client = sessions.attach(&alice, &flood, attach).expect("attaches");
        // Until there is nothing to take but the screen.
        while timeout(Duration::from_millis(1), client.next()).await.is_ok() {}
        clients.push(client);
    }
    let screen = timeout(PATIENCE, sessions.screen(&bob, &other)).await;
    screen.expect("in time").expect("is there");
    drop(clients);
    for (who, id) in [(&alice, flood), (&bob, other)] {
        timeout(PATIENCE, sessions.end(who, id.as_str())).await.expect("in time").expect("ends");
    }
}

/// For anybody who has nothing to do with it, on a machine that is busy with other things as well.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one test.
const LIMIT: Duration = Duration::from_secs(240);
