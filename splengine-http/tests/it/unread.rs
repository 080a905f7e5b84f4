//! Clients of HTTP/2 that give their answers no room, though they read everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use serde_json::{Value, json};
use splengine_core::engine::EngineBuilder;
use splengine_core::net::ConnectionLimits;
use splengine_core::quota::CallerBudgets;
use splengine_core::{Caller, Request as Command, UserName};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    TestServer, batch_server_as, eventually, server_of_one_run, server_on, server_with, sh, step,
};

const PATIENCE: Duration = Duration::from_secs(60);
const BEARER: &str = "Bearer alices-very-long-token";

/// A client whose streams have a window of so many bytes.
struct Client {
    requests: SendRequest<Bytes>,
    served: JoinHandle<Result<(), h2::Error>>,
    addr: String,
    pings: Option<h2::PingPong>,
    /// How many of its requests were answered with 200.
    answered: Arc<AtomicUsize>,
}

impl Client {
    async fn open(server: &TestServer, window: u32) -> Self {
        let stream = TcpStream::connect(server.addr).await.expect("connects");
        let mut builder = h2::client::Builder::new();
        let (requests, mut connection) =
            builder.initial_window_size(window).handshake(stream).await.expect("HTTP/2");
        let pings = connection.ping_pong();
        let served = tokio::spawn(connection);
        Self { requests, served, pings, addr: server.addr.to_string(), answered: Arc::default() }
    }

    /// Asks for several answers, one after the other, and takes the heads of those that have one; the
    /// body of none. Gives their statuses, and what keeps the answers from being over.
    async fn ask_each(&mut self, path: &str, count: usize) -> (Vec<u16>, Vec<h2::RecvStream>) {
        let (mut statuses, mut bodies) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let request = Request::get(format!("http://{}{path}", self.addr));
            let request = request.header("authorization", BEARER).body(()).expect("a request");
            let mut requests = self.requests.clone().ready().await.expect("open");
            let (answer, _) = requests.send_request(request, true).expect("sent");
            let answer = timeout(PATIENCE, answer).await.expect("in time").expect("answered");
            statuses.push(answer.status().as_u16());
            bodies.push(answer.into_body());
        }
        (statuses, bodies)
    }

    /// Asks, and takes the head of the answer, but none of its body.
    async fn ask(&mut self, path: &str, token: Option<&str>) {
        let mut request = Request::get(format!("http://{}{path}", self.addr));
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        self.send(request.body(()).expect("a request"), None).await;
    }

    async fn send(&mut self, request: Request<()>, body: Option<Bytes>) {
        let mut requests = self.requests.clone().ready().await.expect("open");
        let sent = requests.send_request(request, body.is_none());
        let (answer, mut stream) = sent.expect("sent");
        if let Some(body) = body {
            stream.send_data(body, true).expect("sent");
        }
        let answered = Arc::clone(&self.answered);
        tokio::spawn(async move {
            let Ok(answer) = answer.await else { return };
            assert_eq!(answer.status(), 200);
            answered.fetch_add(1, SeqCst);
            // As long as the connection is open.
            let _body = answer.into_body();
            std::future::pending::<()>().await;
        });
    }

    fn answered(&self) -> usize {
        self.answered.load(SeqCst)
    }

    async fn until_closed(self) {
        let ended = timeout(PATIENCE, self.served).await.expect("closed in time");
        drop(ended.expect("no panic"));
    }
}

#[tokio::test]
async fn few_answers_wait_for_who_is_unauthenticated_and_not_for_long() {
    let limits = || ConnectionLimits::new().unauthenticated_write_timeout(Duration::from_secs(4));
    let server = server_on(|server| server.connection_limits(limits())).await;
    // With a window of one byte all of a short answer lies in the buffers of HTTP/2, but for that byte.
    for (path, window) in [("/openapi.json", 0), ("/metrics", 0), ("/metrics", 1), ("/health", 1)] {
        let cut = server.engine.stats().connections.write_timed_out;
        let mut client = Client::open(&server, window).await;
        for _ in 0..20 {
            client.ask(path, None).await;
        }
        eventually("some are answered", || client.answered() == 8).await;
        let answered = Arc::clone(&client.answered);
        client.until_closed().await;
        assert_eq!(
            answered.load(SeqCst),
            8,
            "as many as may wait for the client: {path}, {window}"
        );
        assert_eq!(server.engine.stats().connections.write_timed_out, cut + 1);
    }
    // Whoever reads has all of them.
    let mut client = Client::open(&server, 1 << 20).await;
    for _ in 0..100 {
        client.ask("/health", None).await;
    }
    eventually("all are answered", || client.answered() == 100).await;
}

#[tokio::test]
async fn who_is_known_is_answered_at_once_and_cut_later_with_what_it_runs() {
    let limits = || {
        ConnectionLimits::new()
            .write_timeout(Duration::from_secs(6))
            .unauthenticated_write_timeout(PATIENCE)
    };
    let server = server_on(|server| server.connection_limits(limits())).await;
    let mut client = Client::open(&server, 0).await;
    client.ask("/api/v1/whoami", Some(BEARER)).await;
    eventually("it is known", || client.answered() == 1).await;
    for _ in 0..20 {
        client.ask("/openapi.json", None).await;
    }
    eventually("all are answered", || client.answered() == 21).await;
    let run = Request::post(format!("http://{}/execute", client.addr))
        .header("authorization", BEARER)
        .header("content-type", "application/json")
        .header("accept", "application/x-ndjson")
        .body(())
        .expect("a request");
    client.send(run, Some(sh("exec cat /dev/zero").to_string().into())).await;
    eventually("it runs", || server.engine.stats().running == 1).await;
    eventually("the run is over", || server.engine.stats().running == 0).await;
    assert!(server.engine.stats().connections.write_timed_out >= 1);
    client.until_closed().await;
}

#[tokio::test]
async fn who_reads_slowly_is_not_cut() {
    let time = Duration::from_secs(4);
    let limits = || ConnectionLimits::new().unauthenticated_write_timeout(time);
    let server = server_on(|server| server.connection_limits(limits())).await;
    let stream = TcpStream::connect(server.addr).await.expect("connects");
    let mut builder = h2::client::Builder::new();
    let handshake = builder.initial_window_size(8 << 10).handshake::<_, Bytes>(stream);
    let (requests, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut requests = requests.ready().await.expect("open");
    let request = Request::get(format!("http://{}/openapi.json", server.addr)).body(());
    let sent = requests.send_request(request.expect("a request"), true);
    let mut body = sent.expect("sent").0.await.expect("answered").into_body();
    let (begun, mut length) = (Instant::now(), 0);
    while let Some(piece) = timeout(PATIENCE, body.data()).await.expect("in time") {
        let piece = piece.expect("it is not cut");
        length += piece.len();
        body.flow_control().release_capacity(piece.len()).expect("released");
        sleep(time / 5).await;
    }
    // Long after it would be cut if none of it were read.
    assert!(begun.elapsed() > time * 2, "it was too fast: {length} bytes");
    assert_eq!(server.get("/openapi.json").await.body.len(), length);
}

const MIB: usize = 1 << 20;

/// A batch that is over.
async fn batch(server: &TestServer, steps: Value) -> String {
    let told =
        server.ask("POST", "/api/v1/batches?wait=true", Some(&json!({"steps": steps}))).await;
    let id = told.json()["batchId"].as_str().expect("an id").to_owned();
    format!("/api/v1/batches/{id}")
}

/// Until there is memory again.
async fn until_answered(server: &TestServer, path: &str) {
    let answered = async {
        while server.ask("GET", path, None).await.status != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, answered).await.expect("in time");
}

/// All that is answered in one piece, whatever it is.
#[tokio::test]
async fn whole_answers_that_nobody_reads_take_no_more_memory_than_a_caller_may_have() {
    let server = batch_server_as(|http| http.max_buffered(2 * MIB)).await;
    let args: Vec<String> = (0..8).map(|_| "x".repeat(100_000)).collect();
    let path = batch(&server, json!([{"id": "long", "command": "true", "args": args}])).await;
    let output = server.root.path().join("output");
    std::fs::write(&output, "y".repeat(800_000)).expect("written");
    let run = json!({"command": "cat output", "timeout": 60_000});
    let mut client = Client::open(&server, 0).await;
    // A caller has half of it, and goes beyond that with one.
    let (statuses, held) = client.ask_each(&path, 4).await;
    assert_eq!(statuses, [200, 200, 429, 429]);
    let refused = server.ask("GET", &path, None).await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    let words = refused.problem(429);
    assert!(words.starts_with("answers of yours that are not read yet take all"), "{words}");
    // Others have theirs, and what is short is answered to all.
    assert_eq!(server.get("/openapi.json").await.status, 200);
    let brief = server.ask("GET", &format!("{path}?steps=false"), None).await;
    assert_eq!(brief.status, 200);
    // What was done is said to be, by who waits for a while.
    let long = json!({"steps": [{"id": "long", "command": "true", "args": args}]});
    let begun = Instant::now();
    let (late, made) = tokio::join!(
        server.ask("POST", "/execute", Some(&run)),
        server.ask("POST", "/api/v1/batches", Some(&long))
    );
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(made.header("location").is_some(), "where to look for what was made");
    for late in [late, made] {
        assert_eq!(late.header("retry-after"), None, "it is not to be done again");
        let late = late.problem(500);
        assert!(late.starts_with("it was done, but answers of yours"), "{late}");
    }
    // A batch that was waited for is told without its results, however large it is.
    for batch in [&json!({"steps": [step("short", "true")]}), &long] {
        let done = server.ask("POST", "/api/v1/batches?wait=true", Some(batch)).await;
        assert_eq!(done.status, 202, "{}", done.text());
        assert_eq!(done.json()["state"], "succeeded");
        assert!(done.header("location").is_some());
    }
    // With the connection their memory is given back.
    drop(held);
    client.served.abort();
    until_answered(&server, &path).await;
    assert_eq!(server.run(&run).await["stdout"], "y".repeat(800_000));
}

/// What is known of its steps counts, too, as long as somebody follows a batch.
#[tokio::test]
async fn events_of_large_batches_take_no_more_memory_than_a_caller_may_have() {
    let server = batch_server_as(|http| http.max_buffered(2 * MIB)).await;
    let args: Vec<String> = (0..8).map(|_| "x".repeat(100_000)).collect();
    let long = json!([{"id": "long", "command": "true", "args": args}]);
    let path = format!("{}/events", batch(&server, long).await);
    let mut client = Client::open(&server, 0).await;
    let (statuses, held) = client.ask_each(&path, 3).await;
    assert_eq!(statuses, [200, 200, 429]);
    drop(held);
    client.served.abort();
    until_answered(&server, &path).await;
    let short = format!("{}/events", batch(&server, json!([step("short", "true")])).await);
    let mut client = Client::open(&server, 0).await;
    assert_eq!(client.ask_each(&short, 12).await.0, [200; 12]);
}

/// Of twelve answers that a client doesn't read, eight or so are written, and the others refused until the
/// client is gone.
async fn check_eight_fit(server: &TestServer, path: &str) {
    let mut client = Client::open(server, 0).await;
    let (statuses, held) = client.ask_each(path, 12).await;
    let answered = statuses.iter().take_while(|status| **status == 200).count();
    assert!((7..=9).contains(&answered), "{path}: {statuses:?}");
    assert!(statuses[answered..].iter().all(|status| *status == 429), "{path}: {statuses:?}");
    drop(held);
    client.served.abort();
    until_answered(server, path).await;
}

#[tokio::test]
async fn results_are_written_as_they_are_read() {
    let server = batch_server_as(|http| http.max_buffered(4 * MIB)).await;
    // In JSON more than 6 MiB.
    let path = batch(&server, json!([step("zeros", "head -c 1000000 /dev/zero")])).await;
    let path = format!("{path}/results");
    // Each takes a quarter of a MiB for a while, of the two that a caller may have.
    check_eight_fit(&server, &path).await;
    let whole = server.ask("GET", &path, None).await;
    assert_eq!(whole.header("content-length"), None);
    assert_eq!(whole.json()["stdout"], "\0".repeat(1_000_000));
    assert_eq!(whole.json()["steps"][0]["stdout"], "\0".repeat(1_000_000));
}

/// Logs and other answers that are streamed hold a piece each.
#[tokio::test]
async fn answers_that_are_streamed_take_no_more_memory_than_a_caller_may_have() {
    let server = batch_server_as(|http| http.max_buffered(2 * MIB)).await;
    let path =
        batch(&server, json!([step("lines", "head -c 100000 /dev/zero | tr '\\0' '\\n'")])).await;
    for stream in ["log", "stdout"] {
        let path = format!("{path}/steps/lines/{stream}");
        // Each takes an eighth of a MiB, of the one that a caller may have.
        check_eight_fit(&server, &path).await;
    }
    // A line of the log for each byte.
    let log = server.ask("GET", &format!("{path}/steps/lines/log"), None).await;
    let lines = log.text().lines().filter(|line| line.ends_with(" stdout ")).count();
    assert_eq!(lines, 100_000);
    let headers = "Accept: application/x-ndjson\r\n";
    let log = server.ask_with("GET", &format!("{path}/steps/lines/log"), headers, None).await;
    let parts: Vec<Value> =
        log.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let data: String = parts.iter().map(|part| part["data"].as_str().expect("text")).collect();
    assert_eq!(data, "\n".repeat(100_000));
    assert!(parts.iter().all(|part| part.to_string().len() < 32 << 10), "in small parts");
}

fn with_large_head(client: &Client, method: &str, path: &str) -> http::request::Builder {
    let request = Request::builder().method(method).uri(format!("http://{}{path}", client.addr));
    request.header("padding", "x".repeat(20_000))
}

fn with_large_target(client: &Client, path: &str) -> http::request::Builder {
    Request::get(format!("http://{}{path}?{}", client.addr, "x".repeat(20_000)))
}

/// Sends a request, and gives the status of its answer if there is one at once.
async fn status_of(client: &Client, request: http::request::Builder, is_whole: bool) -> u16 {
    let mut requests = client.requests.clone().ready().await.expect("open");
    let request = request.body(()).expect("a request");
    let (answer, stream) = requests.send_request(request, is_whole).expect("sent");
    let answer = timeout(PATIENCE, answer).await.expect("in time").expect("answered");
    drop(stream);
    if answer.status().is_server_error() || answer.status() == 429 {
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    answer.status().as_u16()
}

/// A connection may have more than a hundred requests that wait for their turn.
#[tokio::test]
async fn large_heads_of_requests_that_wait_take_little_memory() {
    // A quarter is for all that are unknown.
    let limits = || ConnectionLimits::new().max_http2_bytes(1 << 20);
    let server = server_on(|server| server.connection_limits(limits())).await;
    let mut client = with_all_turns_taken(&server).await;
    let waiting = send_each(&client, 16, |client| with_large_head(client, "GET", "/health")).await;
    let (refused, waiting) = split_refused(waiting).await;
    // A ping may come before what was sent before it.
    let pause = async { while refused == 0 && is_read(&mut client).await {} };
    timeout(PATIENCE, pause).await.expect("all wait");
    // Small ones of others need none of it.
    let mut other = Client::open(&server, 1 << 20).await;
    assert_eq!(other.ask_each("/api/v1/whoami", 1).await.0, [200]);
    assert_eq!(other.ask_each("/health", 1).await.0, [200]);
    let known = with_large_head(&other, "GET", "/health");
    assert_eq!(status_of(&other, known, true).await, 200, "of what callers have");
    // With the connection its memory is given back.
    drop(waiting);
    client.served.abort();
    let again = with_all_turns_taken(&server).await;
    let all_wait = async {
        loop {
            let large = |client: &Client| with_large_head(client, "GET", "/health");
            let (refused, _waiting) = split_refused(send_each(&again, 3, large).await).await;
            if refused == 0 {
                break;
            }
        }
    };
    timeout(PATIENCE, all_wait).await.expect("in time");
}

/// Nor do those whose queries are long.
#[tokio::test]
async fn heads_are_counted_with_their_queries() {
    let limits = || ConnectionLimits::new().max_http2_bytes(1 << 20);
    let server = server_on(|server| server.connection_limits(limits())).await;
    let mut client = with_all_turns_taken(&server).await;
    // What was read of them alone would be less.
    let sent = send_each(&client, 11, |client| with_large_target(client, "/health")).await;
    let (refused, waiting) = split_refused(sent).await;
    // Those that wait are refused after a second.
    let (refused_later, _waiting) = split_refused(waiting).await;
    assert!(refused + refused_later > 0 || !is_read(&mut client).await, "all wait");
}

/// A request takes memory whatever its head.
#[tokio::test]
async fn while_there_is_no_memory_for_unauthenticated_requests_two_are_worked_at_at_once() {
    let limits = || ConnectionLimits::new().max_http2_bytes(16 << 10);
    let server = server_on(|server| server.connection_limits(limits())).await;
    let small = |client: &Client| Request::get(format!("http://{}/health", client.addr));
    let client = Client::open(&server, 0).await;
    let mut answers = Vec::new();
    for (number, (mut answer, _)) in send_each(&client, 20, small).await.into_iter().enumerate() {
        let time = if number < 2 { PATIENCE } else { Duration::from_millis(20) };
        answers.push((timeout(time, &mut answer).await.is_ok(), answer));
    }
    let answered = answers.iter().filter(|(is_answered, _)| *is_answered).count();
    assert_eq!(answered, 2);
    // Whoever reads the answers has all of them.
    let client = Client::open(&server, 1 << 20).await;
    for (answer, _) in send_each(&client, 20, small).await {
        let answer = timeout(PATIENCE, answer).await.expect("in time").expect("answered");
        assert_eq!(answer.status(), 200);
    }
}

/// Those of a client that shows credentials need none.
#[tokio::test]
async fn many_requests_at_once_are_answered_though_others_leave_no_memory() {
    let limits = || ConnectionLimits::new().max_http2_bytes(128 << 10);
    let server = server_on(|server| server.connection_limits(limits())).await;
    // They take the quarter that all unauthenticated connections have.
    let mut others = Vec::new();
    for _ in 0..4 {
        let other = Client::open(&server, 0).await;
        let document =
            |client: &Client| Request::get(format!("http://{}/openapi.json", client.addr));
        let sent = send_each(&other, 16, document).await;
        others.push((other, sent));
    }
    eventually("they hold all there is", || server.engine.stats().connections.open == 4).await;
    let client = Client::open(&server, 1 << 20).await;
    let whoami = |client: &Client| {
        let request = Request::get(format!("http://{}/api/v1/whoami", client.addr));
        request.header("authorization", BEARER)
    };
    for (answer, _) in send_each(&client, 50, whoami).await {
        let answer = timeout(PATIENCE, answer).await.expect("in time").expect("answered");
        assert_eq!(answer.status(), 200);
    }
}

/// How many are answered by a refusal, and the others.
async fn split_refused(sent: Vec<Sent>) -> (usize, Vec<Sent>) {
    let (mut refused, mut waiting) = (0, Vec::new());
    for (mut answer, stream) in sent {
        match timeout(Duration::from_millis(200), &mut answer).await {
            Err(_) => waiting.push((answer, stream)),
            Ok(answer) => {
                let answer = answer.expect("answered");
                assert_eq!(answer.status(), 503);
                assert_eq!(answer.headers()["retry-after"], "1");
                assert!(answer.into_body().is_end_stream(), "a body would wait, too");
                refused += 1;
            }
        }
    }
    (refused, waiting)
}

type Sent = (h2::client::ResponseFuture, h2::SendStream<Bytes>);

async fn send_each(
    client: &Client,
    count: usize,
    request: impl Fn(&Client) -> http::request::Builder,
) -> Vec<Sent> {
    let mut sent = Vec::new();
    for _ in 0..count {
        let mut requests = client.requests.clone().ready().await.expect("open");
        let request = request(client).body(()).expect("a request");
        sent.push(requests.send_request(request, true).expect("sent"));
    }
    sent
}

/// Whether the server reads what the client sends.
async fn is_read(client: &mut Client) -> bool {
    let pings = client.pings.as_mut().expect("not taken");
    timeout(Duration::from_millis(500), pings.ping(h2::Ping::opaque())).await.is_ok()
}

/// Requests whose bodies are on their way keep their heads.
#[tokio::test]
async fn heads_of_a_callers_requests_take_no_more_memory_than_a_caller_may_have() {
    let limits = || ConnectionLimits::new().max_http2_bytes(256 << 10);
    let server = server_on(|server| server.connection_limits(limits())).await;
    let mut client = Client::open(&server, 1 << 20).await;
    assert_eq!(client.ask_each("/api/v1/whoami", 1).await.0, [200]);
    let unfinished = |client: &Client| {
        with_large_head(client, "POST", "/execute")
            .header("authorization", BEARER)
            .header("content-type", "application/json")
    };
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut requests = client.requests.clone().ready().await.expect("open");
        let request = unfinished(&client).body(()).expect("a request");
        held.push(requests.send_request(request, false).expect("sent"));
    }
    assert_eq!(status_of(&client, unfinished(&client), false).await, 429, "half of it is full");
    let refused = unfinished(&client).body(()).expect("a request");
    let mut requests = client.requests.clone().ready().await.expect("open");
    let (answer, _stream) = requests.send_request(refused, false).expect("sent");
    let mut body = answer.await.expect("answered").into_body();
    let problem = body.data().await.expect("a document").expect("whole");
    let problem: Value = serde_json::from_slice(&problem).expect("JSON");
    assert_eq!(problem["status"], 429);
    let error = problem["error"].as_str().expect("words");
    assert!(error.starts_with("messages of yours"), "{error}");
    let mut other = Client::open(&server, 1 << 20).await;
    assert_eq!(other.ask_each("/health", 1).await.0, [200]);
    drop(held);
    let answered = async {
        while status_of(&client, with_large_head(&client, "GET", "/health"), true).await != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, answered).await.expect("in time");
}

/// A connection of which nobody is known, with as many requests as are answered at once.
async fn with_all_turns_taken(server: &TestServer) -> Client {
    let mut client = Client::open(server, 0).await;
    for _ in 0..8 {
        client.ask("/openapi.json", None).await;
    }
    eventually("as many as may are answered", || client.answered() == 8).await;
    client
}

/// A request of a run that waits for its turn, with input of a length that is not told.
async fn waiting(client: &Client) -> Sent {
    let mut requests = client.requests.clone().ready().await.expect("open");
    let request = Request::post(format!("http://{}/execute?command=true", client.addr))
        .header("authorization", BEARER)
        .header("content-type", "application/octet-stream");
    requests.send_request(request.body(()).expect("a request"), false).expect("sent")
}

/// A server at whose only place something runs until there is a file `go`.
async fn server_at_work(limits: ConnectionLimits) -> TestServer {
    at_work(server_of_one_run(|server| server.connection_limits(limits)).await).await
}

async fn at_work(server: TestServer) -> TestServer {
    let alice = Caller::new("alice").expect("a user name").with_all_scopes();
    let busy = Command::argv(["sh", "-c", "until [ -e go ]; do sleep 0.01; done"]);
    let mut run = server.engine.execute(&alice, busy).await.expect("started");
    tokio::spawn(async move { while run.next().await.is_some() {} });
    server
}

/// Sends a window of input that nobody reads.
async fn waiting_with_body(client: &Client) -> Sent {
    let (answer, mut stream) = waiting(client).await;
    stream.reserve_capacity(1 << 20);
    // The window of the connection may be told later.
    while stream.capacity() < 64 << 10 {
        let given = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        timeout(PATIENCE, given).await.expect("in time").expect("open").expect("room");
    }
    assert_eq!(stream.capacity(), 64 << 10, "of one body");
    stream.send_data(Bytes::from(vec![b'x'; 64 << 10]), false).expect("sent");
    (answer, stream)
}

/// Nor do they keep one that is read from going on.
#[tokio::test]
async fn input_of_runs_that_wait_does_not_stop_that_of_the_one_that_runs() {
    let server = server_of_one_run(|server| server).await;
    let (client, _served) = crate::support::http_2(server.addr).await;
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let request = Request::post(format!("http://{}/execute?command=wc&args=-c", server.addr))
            .header("authorization", BEARER)
            .header("content-type", "application/octet-stream")
            .body(http_body_util::Full::new(Bytes::from(vec![b'x'; 200_000])))
            .expect("a request");
        let mut client = client.clone();
        answers.spawn(async move {
            client.ready().await.expect("open");
            let answer = client.send_request(request).await.expect("answered");
            assert_eq!(answer.status(), 200);
            let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("whole");
            serde_json::from_slice::<Value>(&body.to_bytes()).expect("JSON")
        });
    }
    let all = timeout(PATIENCE, answers.join_all()).await.expect("in time");
    assert!(all.iter().all(|result| result["stdout"] == "200000\n"), "{all:?}");
}

/// Whatever comes beside bodies that nobody reads may be held by the library with them.
#[tokio::test]
async fn while_bodies_that_nobody_reads_take_all_memory_no_more_is_read() {
    let server = server_at_work(ConnectionLimits::new().max_http2_bytes(32 << 10)).await;
    let mut client = Client::open(&server, 1 << 20).await;
    let _held = [waiting_with_body(&client).await, waiting_with_body(&client).await];
    let mut pings = client.pings.take().expect("not asked yet");
    let pause = async {
        loop {
            let answered = timeout(Duration::from_millis(500), pings.ping(h2::Ping::opaque()));
            if answered.await.is_err() {
                break;
            }
        }
    };
    timeout(PATIENCE, pause).await.expect("it is not read any more");
    let mut other = Client::open(&server, 1 << 20).await;
    assert_eq!(other.ask_each("/health", 1).await.0, [200], "others are served");
    std::fs::write(server.root.path().join("go"), "").expect("written");
    eventually("the runs are over", || server.engine.stats().running == 0).await;
    let read = std::future::poll_fn(|cx| pings.poll_pong(cx));
    timeout(PATIENCE, read).await.expect("it is read in time").expect("answered");
}

/// Else those that are worked at would get no more of theirs.
#[tokio::test]
async fn requests_that_wait_are_refused_where_their_bodies_take_all_memory() {
    let server = server_at_work(ConnectionLimits::new().max_http2_bytes(256 << 10)).await;
    let client = Client::open(&server, 1 << 20).await;
    // Together they take twice the half that a caller has, and what is not counted.
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (answer, mut stream) = waiting(&client).await;
        stream.send_data(Bytes::from(vec![b'x'; 60 << 10]), true).expect("sent");
        answers.spawn(answer);
    }
    let first = timeout(PATIENCE, answers.join_next()).await.expect("in time").expect("four");
    let answer = first.expect("no panic").expect("answered");
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "1");
    // The connection goes on.
    let whoami = Request::get(format!("http://{}/api/v1/whoami", client.addr));
    assert_eq!(status_of(&client, whoami.header("authorization", BEARER), true).await, 200);
    std::fs::write(server.root.path().join("go"), "").expect("written");
    eventually("the run is over", || server.engine.stats().running == 0).await;
}

/// What bodies hold that nobody reads is part of the memory of the engine, too.
#[tokio::test]
async fn bodies_that_nobody_reads_take_of_the_memory_of_the_engine() {
    let engine = |engine: EngineBuilder| engine.max_buffered_bytes(1 << 20).max_running(1);
    let server = at_work(server_with(engine, |http| http).await).await;
    let client = Client::open(&server, 1 << 20).await;
    let budgets = CallerBudgets::new(&server.engine.memory_budget(1 << 20));
    let alice: UserName = "alice".parse().expect("a user name");
    // The caller may have half of it.
    let has_room = || budgets.of(&alice).reservation().try_grow(400 << 10).is_ok();
    assert!(has_room());
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(waiting_with_body(&client).await);
    }
    eventually("it is counted", || !has_room()).await;
    std::fs::write(server.root.path().join("go"), "").expect("written");
    drop(held);
    eventually("it is given back", has_room).await;
}

/// A caller may have a thousand connections.
#[tokio::test]
async fn of_a_callers_connections_all_is_counted_but_of_the_first() {
    // A caller has half of it.
    let server = server_at_work(ConnectionLimits::new().max_http2_bytes(96 << 10)).await;
    let mut clients = Vec::new();
    for _ in 0..33 {
        let mut client = Client::open(&server, 1 << 20).await;
        assert_eq!(client.ask_each("/api/v1/whoami", 1).await.0, [200]);
        clients.push(client);
    }
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(waiting(&clients[0]).await);
    }
    for _ in 0..5 {
        held.push(waiting(&clients[32]).await);
    }
    // The first ping may come before what was sent before it.
    let is_last_read = is_read(&mut clients[32]).await && is_read(&mut clients[32]).await;
    assert!(!is_last_read, "there is no memory for five requests of the last");
    assert!(is_read(&mut clients[0]).await, "the first connection");
    let mut other = Client::open(&server, 1 << 20).await;
    assert_eq!(other.ask_each("/health", 1).await.0, [200], "others are served");
    // Another one is among the first once one of them is closed.
    for client in [clients.remove(32), clients.remove(1)] {
        client.served.abort();
    }
    let next = async {
        loop {
            let mut next = Client::open(&server, 1 << 20).await;
            assert_eq!(next.ask_each("/api/v1/whoami", 1).await.0, [200]);
            let _held = (waiting(&next).await, waiting(&next).await, waiting(&next).await);
            sleep(Duration::from_millis(100)).await;
            if is_read(&mut next).await {
                break;
            }
            next.served.abort();
        }
    };
    timeout(PATIENCE, next).await.expect("it is one of the first");
}

#[tokio::test]
async fn without_credentials_a_request_with_a_body_waits_for_its_turn() {
    let server = server_with(|e| e, |http| http).await;
    let client = Client::open(&server, 0).await;
    let document = |client: &Client| Request::get(format!("http://{}/openapi.json", client.addr));
    let mut unread = Vec::new();
    for (answer, _) in send_each(&client, 8, document).await {
        unread.push(timeout(PATIENCE, answer).await.expect("in time").expect("answered"));
    }
    let mut requests = client.requests.clone().ready().await.expect("open");
    let request = Request::post(format!("http://{}/execute?command=true", client.addr));
    let sent = requests.send_request(request.body(()).expect("a request"), false);
    let (answer, mut stream) = sent.expect("sent");
    stream.send_data(Bytes::from_static(b"x"), true).expect("sent");
    let mut answer = std::pin::pin!(answer);
    let early = timeout(Duration::from_millis(300), answer.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    // One of the others is over.
    drop(unread.pop());
    let answer = timeout(PATIENCE, answer).await.expect("in time").expect("answered");
    assert_eq!(answer.status(), 401);
}

/// A header that was sent before is one byte on the wire, and about a hundred in memory.
#[tokio::test]
async fn while_trailers_take_all_memory_no_more_is_read() {
    let limits = ConnectionLimits::new().max_http2_bytes(512 << 10);
    let server = server_on(|server| server.connection_limits(limits)).await;
    let mut client = with_all_turns_taken(&server).await;
    let mut trailers = http::HeaderMap::new();
    for _ in 0..500 {
        trailers.append("a", http::HeaderValue::from_static("b"));
    }
    let mut held = Vec::new();
    for _ in 0..8 {
        let (answer, mut stream) = waiting(&client).await;
        stream.send_trailers(trailers.clone()).expect("sent");
        held.push((answer, stream));
    }
    // A ping may come before what was sent before it.
    let pause = async { while is_read(&mut client).await {} };
    timeout(PATIENCE, pause).await.expect("it is not read while its trailers take all memory");
    let mut other = Client::open(&server, 1 << 20).await;
    assert_eq!(other.ask_each("/health", 1).await.0, [200], "others are served");
}

/// Trailers are ignored, as a server may do (RFC 9110, section 6.5).
#[tokio::test]
async fn a_request_with_trailers_is_answered() {
    let server = server_with(|e| e, |http| http).await;
    let client = Client::open(&server, 1 << 20).await;
    for _ in 0..300 {
        let (answer, mut stream) = waiting(&client).await;
        stream.send_data(Bytes::from_static(b"x"), false).expect("sent");
        let mut trailers = http::HeaderMap::new();
        trailers.append("x-checksum", http::HeaderValue::from_static("sha-256=0123456789abcdef"));
        stream.send_trailers(trailers).expect("sent");
        let answer = timeout(PATIENCE, answer).await.expect("in time").expect("answered");
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn bodies_larger_than_their_windows_are_read_side_by_side() {
    let server = server_with(|e| e, |http| http).await;
    let (client, _served) = crate::support::http_2(server.addr).await;
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let request = json!({"command": "wc -c", "stdin": "x".repeat(300_000)});
        let request = Request::post(format!("http://{}/execute", server.addr))
            .header("authorization", BEARER)
            .header("content-type", "application/json")
            .body(http_body_util::Full::new(Bytes::from(request.to_string())))
            .expect("a request");
        let mut client = client.clone();
        answers.spawn(async move {
            client.ready().await.expect("open");
            let answer = client.send_request(request).await.expect("answered");
            assert_eq!(answer.status(), 200);
            let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("whole");
            serde_json::from_slice::<Value>(&body.to_bytes()).expect("JSON")
        });
    }
    let all = timeout(PATIENCE, answers.join_all()).await.expect("in time");
    for result in &all {
        assert_eq!(result["stdout"], "300000\n", "{result}");
    }
    assert_eq!(all.len(), 16);
}
