//! 64 MiB of `cat` through a terminal to one WebSocket client; a viewer that does not read beside
//! one that does; and the time from a key to its echo. Against ttyd, or terminado where there is
//! no ttyd.
//!
//! `cargo bench -p benches --bench terminal`

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use benches::terminals::{Client, Peer, ours};
use benches::{Times, report};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const BYTES: usize = 64 << 20;
const KEYS: usize = 2000;

fn main() {
    let file = text();
    let path = file.path().to_str().expect("text");
    let script = format!("stty -echo -opost; read go; cat {path}; echo THE-END; read x");
    let flood = ["sh", "-c", &script];
    let runtime = Runtime::new().expect("a runtime");
    let (addr, _engine) = runtime.block_on(ours(&flood));
    let peer = Peer::start(&flood);
    let name = peer.as_ref().map_or("nothing: neither ttyd nor terminado can be had", Peer::name);

    let (mut alone, mut beside, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        alone.push(rate(Client::ours(addr, None).expect("opens")));
        beside.push(beside_a_sleeper(addr));
        if let Some(peer) = &peer {
            theirs.push(rate(peer.open().expect("opens")));
        }
    }
    let what = format!("64 MiB of cat to one client, against {name}");
    report(&what, median(&mut alone), median(&mut theirs), "MiB/s", "at least 2x");
    let what = "the same beside a viewer that does not read, against alone";
    report(what, median(&mut beside), median(&mut alone), "MiB/s", "at least 0.95x");
    drop(peer);

    let cat = ["cat"];
    let (addr, _engine) = runtime.block_on(ours(&["sh", "-c", "stty raw -echo; exec cat"]));
    let peer = Peer::start(&["sh", "-c", "stty raw -echo; exec cat"]);
    let mut bare = Bare::start(&cat);
    let mut client = Client::ours(addr, None).expect("opens");
    let mut other = peer.as_ref().map(|peer| peer.open().expect("opens"));
    warm(&mut client);
    other.iter_mut().for_each(warm);
    let (mut own, mut theirs, mut least) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..KEYS / 100 {
        own.extend((0..100).map(|_| echo(&mut client)));
        if let Some(other) = &mut other {
            theirs.extend((0..100).map(|_| echo(other)));
        }
        least.extend((0..100).map(|_| bare.echo()));
    }
    let (own, least) = (Times::new(own), Times::new(least));
    let micros = |times: &Times, of| times.quantile(of).as_secs_f64() * 1e6;
    if !theirs.is_empty() {
        let theirs = Times::new(theirs);
        for (quantile, of) in [("median", 0.5), ("99th percentile", 0.99)] {
            let what = format!("a key's echo, {quantile}, against {name}");
            report(&what, micros(&own, of), micros(&theirs, of), "us", "at most 1x");
        }
    }
    let what = "a key's echo, median, against the bare program";
    report(what, micros(&own, 0.5), micros(&least, 0.5), "us", "2000 us added");
}

/// MiB a second.
fn rate(mut client: Client) -> f64 {
    client.send("\n").expect("sent");
    let begun = Instant::now();
    let bytes = client.read_to(b"THE-END").expect("all of it");
    assert!(bytes >= BYTES as u64, "{bytes}: some was left out");
    BYTES as f64 / (1 << 20) as f64 / begun.elapsed().as_secs_f64()
}

fn beside_a_sleeper(addr: SocketAddr) -> f64 {
    let mut client = Client::ours(addr, None).expect("opens");
    let session = client.session_id().expect("a session");
    let _sleeper = Client::ours(addr, Some(&session)).expect("opens");
    rate(client)
}

fn warm(client: &mut Client) {
    // What is typed before the program has set its terminal is echoed twice.
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..50 {
        let _ = echo(client);
    }
}

fn echo(client: &mut Client) -> Duration {
    let begun = Instant::now();
    client.send("k").expect("sent");
    while !client.read().expect("an echo").contains(&b'k') {}
    begun.elapsed()
}

/// The least that an echo can take: a program behind two pipes.
struct Bare(std::process::Child);

impl Bare {
    fn start(command: &[&str]) -> Self {
        let child = std::process::Command::new(command[0])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        Self(child.expect("starts"))
    }

    fn echo(&mut self) -> Duration {
        let begun = Instant::now();
        self.0.stdin.as_mut().expect("was piped").write_all(b"k").expect("written");
        let mut key = [0; 1];
        self.0.stdout.as_mut().expect("was piped").read_exact(&mut key).expect("an echo");
        begun.elapsed()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

/// 64 MiB of lines.
fn text() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let line = "the quick brown fox jumps over the lazy dog, and 0123456789 is all there is\r\n";
    let block = line.repeat((1 << 20) / line.len() + 1);
    for _ in 0..64 {
        file.write_all(&block.as_bytes()[..1 << 20]).expect("written");
    }
    file
}
