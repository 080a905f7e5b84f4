//! What the HTTP server costs: `true` over a keep-alive connection on loopback, against the same
//! engine without the server; and how many requests a second it serves, against a minimal Node server
//! that does the same with `execFile`.
//!
//! `cargo bench -p benches --bench http`, with `node` on PATH for the second part

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use benches::{Times, report};
use splengine_core::auth::StaticTokens;
use splengine_core::{Caller, Engine, LocalExecutor, Request};
use splengine_http::HttpServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::Instant;

const ROUNDS: usize = 40;
const CALLS: usize = 25;
const CONNECTIONS: usize = 16;
const REQUESTS: usize = 60;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let executor = LocalExecutor::new("/tmp").expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let addr = runtime.block_on(serve(engine.clone()));

    let (mut over, mut inside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        over.extend(runtime.block_on(runtime.spawn(over_http(addr))).expect("no panic"));
        let engine = engine.clone();
        inside.extend(runtime.block_on(runtime.spawn(in_process(engine))).expect("no panic"));
    }
    let (over, inside) = (Times::new(over), Times::new(inside));
    for (name, of) in [("median", 0.5), ("p99", 0.99)] {
        let (ours, theirs) = (micros(over.quantile(of)), micros(inside.quantile(of)));
        let aim = if of > 0.5 { "-" } else { "at most 500 us added" };
        report(&format!("`true` over HTTP against in-process, {name}"), ours, theirs, "us", aim);
    }

    let Some(node) = Node::start() else { return };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        ours.push(runtime.block_on(load(addr)));
        theirs.push(runtime.block_on(load(node.addr)));
    }
    for rates in [&mut ours, &mut theirs] {
        rates.sort_unstable_by(f64::total_cmp);
    }
    let what = format!("requests a second on {CONNECTIONS} connections, against Node");
    report(&what, ours[3], theirs[3], "/s", "at least 3x");
}

fn micros(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

async fn serve(engine: Engine) -> SocketAddr {
    let everyone = Caller::new("bench").expect("a user name").with_all_scopes();
    let server = HttpServer::builder(engine)
        .authenticate(StaticTokens::new().allow_anonymous(everyone))
        .bind("127.0.0.1:0")
        .await
        .expect("bound");
    let addr = server.local_addr().tcp().expect("of TCP");
    tokio::spawn(async { server.await });
    addr
}

async fn in_process(engine: Engine) -> Vec<std::time::Duration> {
    let caller = Caller::new("bench").expect("a user name").with_all_scopes();
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begun = Instant::now();
        let run = engine.execute(&caller, Request::new("/bin/true")).await.expect("starts");
        assert!(run.capture().await.end.success());
        times.push(begun.elapsed());
    }
    times
}

async fn over_http(addr: SocketAddr) -> Vec<std::time::Duration> {
    let mut client = Client::connect(addr).await;
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begun = Instant::now();
        client.run_true().await;
        times.push(begun.elapsed());
    }
    times
}

/// Requests a second.
async fn load(addr: SocketAddr) -> f64 {
    let begun = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(addr).await;
                for _ in 0..REQUESTS {
                    client.run_true().await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("no panic");
    }
    (CONNECTIONS * REQUESTS) as f64 / begun.elapsed().as_secs_f64()
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("connects");
        stream.set_nodelay(true).expect("set");
        Self { stream, buffer: Vec::new() }
    }

    async fn run_true(&mut self) {
        const REQUEST: &[u8] = b"POST /execute HTTP/1.1\r\nHost: bench\r\n\
            Content-Type: application/json\r\nContent-Length: 24\r\n\r\n{\"command\": \"/bin/true\"}";
        self.stream.write_all(REQUEST).await.expect("sent");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("reads");
            assert!(read > 0, "closed");
            let text = String::from_utf8_lossy(&self.buffer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            });
            if body.len() >= length.expect("both servers say how long it is") {
                assert!(body.contains("\"success\":true"), "{text}");
                return;
            }
        }
    }
}

struct Node {
    child: Child,
    addr: SocketAddr,
}

impl Node {
    #[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
    fn start() -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/http_node.js");
        let Ok(mut child) = Command::new("node").arg(script).stdout(Stdio::piped()).spawn() else {
            println!("node is not there: no figure against it");
            return None;
        };
        let mut line = String::new();
        let stdout = child.stdout.take().expect("was piped");
        BufReader::new(stdout).read_line(&mut line).expect("reads");
        Some(Self { child, addr: line.trim().parse().expect("its address") })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
