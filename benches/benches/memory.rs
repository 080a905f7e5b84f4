//! What 1,000 idle sessions of `cat` cost the server, without the programs themselves. Against
//! ttyd, or terminado where there is no ttyd.
//!
//! `cargo bench -p benches --bench memory`

use benches::report;
use benches::terminals::{Client, Peer, memory_of, ours};
use tokio::runtime::Runtime;

const SESSIONS: usize = 1000;
/// Some alternatives take long for each.
const THEIRS: usize = 200;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let (addr, engine) = runtime.block_on(ours(&["cat"]));
    let own = std::process::id();
    let mut first = Client::ours(addr, None).expect("opens");
    first.session_id().expect("a session");
    let before = memory_of(own);
    let mut clients: Vec<Client> = (1..SESSIONS).map(|_| opened(addr)).collect();
    let with_clients = memory_of(own) - before;
    clients.clear();
    while engine.stats().session_clients > 1 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let detached = memory_of(own) - before;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);

    let peer = Peer::start(&["cat"]);
    let theirs = peer.as_ref().map(|peer| {
        let mut held = vec![peer.open().expect("opens")];
        let before = memory_of(peer.id());
        held.extend((1..THEIRS).map(|_| {
            let mut client = peer.open().expect("opens");
            client.send("x\n").expect("sent");
            client.read().expect("an echo");
            client
        }));
        (memory_of(peer.id()) - before) * SESSIONS as u64 / THEIRS as u64
    });
    let name = peer.as_ref().map_or("nothing: neither ttyd nor terminado can be had", Peer::name);
    let scaled = theirs.map_or(f64::NAN, mib);
    let what = format!("1,000 idle sessions with a client, against {name} (from {THEIRS})");
    report(&what, mib(with_clients), scaled, "MiB", "-");
    report(
        "1,000 idle sessions, detached, against 256 MiB",
        mib(detached),
        256.0,
        "MiB",
        "below 1x",
    );
}

/// A session that has its screen.
fn opened(addr: std::net::SocketAddr) -> Client {
    let mut client = Client::ours(addr, None).expect("opens");
    client.read().expect("a screen");
    client
}
