//! The bounds on connections, through real sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use splengine_core::net::{
    Connection, ConnectionLimits, ConnectionStats, HttpStream, UnreadBody, serve_connections,
};
use splengine_core::{Caller, Engine, LocalExecutor};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SHORT: Duration = Duration::from_millis(300);
/// Each has another name.
static USERS: AtomicUsize = AtomicUsize::new(0);

/// A server that echoes bytes. On `!` somebody is authenticated, on `m` always the same one, with `?` a request is finished, from
/// `b` on to `e` one is worked at, on `w` it writes for ever, on `p` in small pieces.
struct Server {
    addr: SocketAddr,
    engine: Engine,
    _root: tempfile::TempDir,
}

impl Server {
    async fn open(limits: ConnectionLimits) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let executor = LocalExecutor::new(root.path()).expect("set up");
        let engine = Engine::builder(executor).build().expect("built");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("bound");
        let limits = limits.counted_by(&engine);
        let serving = serve_connections(
            listener,
            limits,
            Duration::ZERO,
            std::future::pending(),
            |connection, _| Some(echo(connection)),
        );
        tokio::spawn(serving);
        Self { addr, engine, _root: root }
    }

    async fn connect(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("made");
        socket.bind(([127, 0, 0, last], 0).into()).expect("bound");
        let connected = timeout(PATIENCE, socket.connect(self.addr)).await;
        connected.expect("in time").expect("connects")
    }

    fn stats(&self) -> ConnectionStats {
        self.engine.stats().connections
    }

    async fn until(&self, what: &str, is: impl Fn(ConnectionStats) -> bool) {
        let waiting = async {
            while !is(self.stats()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("not in time: {what}: {:?}", self.stats()));
    }
}

async fn echo(mut connection: Connection) -> io::Result<()> {
    let handle = connection.handle();
    let mut activities = Vec::new();
    loop {
        let byte = connection.read_u8().await?;
        match byte {
            b'!' => {
                let number = USERS.fetch_add(1, Relaxed);
                handle.set_authenticated(&caller(&format!("user-{number}")));
            }
            b'm' => handle.set_authenticated(&caller("mallory")),
            b'?' => drop(handle.begin()),
            b'b' => activities.push(handle.begin()),
            b'e' => activities.clear(),
            b'w' => loop {
                connection.write_all(&[b'w'; 1 << 16]).await?;
            },
            b'p' => loop {
                connection.write_all(&[b'p'; 512]).await?;
            },
            _ => {}
        }
        connection.write_all(&[byte]).await?;
    }
}

fn caller(name: &str) -> Caller {
    Caller::new(name).expect("a name")
}

async fn says(stream: &mut TcpStream, byte: u8) {
    stream.write_all(&[byte]).await.expect("sent");
    let answer = timeout(PATIENCE, stream.read_u8()).await.expect("in time");
    assert_eq!(answer.expect("answered"), byte);
}

async fn is_closed(stream: &mut TcpStream) {
    let read = timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn silent_connections_hold_up_nobody() {
    let limits = ConnectionLimits::new()
        .max_connections(8)
        .max_unauthenticated(6)
        .max_unauthenticated_per_address(100);
    let server = Server::open(limits).await;
    let mut known = server.connect(1).await;
    says(&mut known, b'!').await;
    let mut fellow = server.connect(1).await;
    says(&mut fellow, b'?').await;
    let mut silent = Vec::new();
    for number in 0..40 {
        silent.push(server.connect(2 + number % 2).await);
        let mut new = server.connect(1).await;
        says(&mut new, b'x').await;
    }
    // The oldest went first, and only those of who has most.
    is_closed(&mut silent[0]).await;
    says(&mut known, b'x').await;
    says(&mut fellow, b'x').await;
    says(silent.last_mut().expect("there are some"), b'x').await;
    let stats = server.stats();
    assert!(stats.evicted >= 30 && stats.unauthenticated <= 6, "{stats:?}");
}

#[tokio::test]
async fn one_address_has_few_places_until_it_has_authenticated() {
    let server = Server::open(ConnectionLimits::new().max_unauthenticated_per_address(2)).await;
    let mut known = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect(2).await;
        says(&mut client, b'!').await;
        known.push(client);
    }
    let mut unknown = Vec::new();
    for _ in 0..6 {
        unknown.push(server.connect(2).await);
    }
    let mut other = server.connect(3).await;
    for client in &mut unknown[..4] {
        is_closed(client).await;
    }
    for client in known.iter_mut().chain(&mut unknown[4..]).chain([&mut other]) {
        says(client, b'x').await;
    }
    assert_eq!(server.stats().evicted, 4);
    assert_eq!(server.stats().open, 8);
}

#[tokio::test]
async fn who_shows_nothing_is_closed_in_time() {
    // Long enough for the others to speak, whatever else this machine does.
    let time = Duration::from_secs(5);
    let server = Server::open(ConnectionLimits::new().unauthenticated_timeout(time)).await;
    let mut silent = server.connect(2).await;
    let mut talking = server.connect(2).await;
    let mut asked = server.connect(2).await;
    let mut known = server.connect(2).await;
    says(&mut talking, b'x').await;
    says(&mut asked, b'?').await;
    says(&mut known, b'!').await;
    is_closed(&mut silent).await;
    is_closed(&mut talking).await;
    says(&mut asked, b'x').await;
    says(&mut known, b'x').await;
    assert_eq!(server.stats().timed_out, 2);
}

#[tokio::test]
async fn who_reads_nothing_is_cut_and_who_reads_slowly_is_not() {
    let limits = ConnectionLimits::new()
        .write_timeout(Duration::from_secs(5))
        .unauthenticated_write_timeout(SHORT);
    let server = Server::open(limits).await;
    let mut unknown = server.connect(2).await;
    unknown.write_all(b"w").await.expect("sent");
    let is_cut = |stats: ConnectionStats| stats.write_timed_out == 1 && stats.open == 0;
    server.until("an unauthenticated one is cut", is_cut).await;
    let mut slow = server.connect(2).await;
    slow.write_all(b"!w").await.expect("sent");
    let mut deaf = server.connect(2).await;
    deaf.write_all(b"!w").await.expect("sent");
    // By and by, and for longer than the other one has in all.
    let mut piece = vec![0; 1 << 20];
    let mut pieces = 0..100;
    while server.stats().write_timed_out < 2 {
        pieces.next().expect("the other one is cut");
        let read = timeout(PATIENCE, slow.read(&mut piece)).await.expect("in time");
        assert!(read.expect("it is not cut") > 0);
        sleep(SHORT).await;
    }
    server.until("one is left", |stats| stats.write_timed_out == 2 && stats.open == 1).await;
    drop((unknown, deaf));
}

/// The time is given once, not for each piece for which the operating system still finds a place.
#[tokio::test]
async fn who_reads_nothing_of_small_pieces_is_cut_as_soon() {
    let server = Server::open(ConnectionLimits::new().unauthenticated_write_timeout(SHORT)).await;
    let mut deaf = Vec::new();
    for _ in 0..8 {
        let mut client = server.connect(2).await;
        client.write_all(b"p").await.expect("sent");
        deaf.push(client);
    }
    server.until("all are cut", |stats| stats.write_timed_out == 8).await;
    drop(deaf);
}

#[tokio::test]
async fn an_address_that_is_refused_is_closed_at_once() {
    let limits = ConnectionLimits::new().refuse(|ip| ip == std::net::IpAddr::from([127, 0, 0, 3]));
    let server = Server::open(limits).await;
    is_closed(&mut server.connect(3).await).await;
    says(&mut server.connect(2).await, b'x').await;
    assert_eq!(server.stats().refused, 1);
}

#[tokio::test]
async fn one_callers_connections_make_room_for_those_of_others() {
    let server = Server::open(ConnectionLimits::new().max_connections(8)).await;
    let mut mallorys = Vec::new();
    for _ in 0..8 {
        let mut stream = server.connect(1).await;
        says(&mut stream, b'm').await;
        mallorys.push(stream);
    }
    server.until("all are authenticated", |stats| stats.unauthenticated == 0).await;
    // From the same address, too: who it is counts.
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut other = server.connect(1).await;
        says(&mut other, b'!').await;
        others.push(other);
    }
    for other in &mut others {
        says(other, b'?').await;
    }
    let (share, beyond) = mallorys.split_at_mut(4);
    for stream in share {
        says(stream, b'?').await;
    }
    for stream in beyond {
        is_closed(stream).await;
    }
    // Those who have their share of all places keep them.
    let mut late = server.connect(1).await;
    late.write_all(b"?").await.expect("sent");
    assert!(timeout(SHORT, late.read_u8()).await.is_err());
    drop(others.pop());
    assert_eq!(timeout(PATIENCE, late.read_u8()).await.expect("in time").expect("answered"), b'?');
    assert_eq!(server.stats().evicted, 4);
}

/// A caller who is alone waits for themselves, as long as requests end.
#[tokio::test]
async fn who_is_at_work_on_all_connections_waits_for_one_of_them() {
    let limits = ConnectionLimits::new().max_connections(4).busy_timeout(PATIENCE * 2);
    let server = Server::open(limits).await;
    let mut busy = fill(&server).await;
    // One from elsewhere takes the place of the oldest one that is beyond the share.
    let mut other = server.connect(2).await;
    says(&mut other, b'!').await;
    says(&mut other, b'b').await;
    is_closed(&mut busy.remove(2)).await;
    // One from here takes that of a request that ends.
    let mut late = server.connect(1).await;
    late.write_all(b"x").await.expect("sent");
    let idle = busy.last_mut().expect("there is one beyond the share");
    says(idle, b'e').await;
    assert_eq!(timeout(PATIENCE, late.read_u8()).await.expect("in time").expect("answered"), b'x');
    is_closed(&mut busy.remove(2)).await;
    for stream in &mut busy {
        says(stream, b'x').await;
    }
    for stream in [&mut late, &mut other] {
        says(stream, b'x').await;
    }
    assert_eq!(server.stats().evicted, 2);
}

#[tokio::test]
async fn who_is_at_work_on_all_connections_waits_for_a_while_at_most() {
    let limits = ConnectionLimits::new().max_connections(4).busy_timeout(SHORT);
    let server = Server::open(limits).await;
    let mut busy = fill(&server).await;
    let begun = Instant::now();
    let mut late = server.connect(1).await;
    says(&mut late, b'x').await;
    assert!(begun.elapsed() >= SHORT, "{:?}", begun.elapsed());
    is_closed(&mut busy.remove(2)).await;
    for stream in busy.iter_mut().chain([&mut late]) {
        says(stream, b'x').await;
    }
    assert_eq!(server.stats().evicted, 1);
}

/// Four connections of one caller, at each of which something is worked.
async fn fill(server: &Server) -> Vec<TcpStream> {
    let mut busy = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect(1).await;
        says(&mut stream, b'm').await;
        says(&mut stream, b'b').await;
        busy.push(stream);
    }
    server.until("all are authenticated", |stats| stats.unauthenticated == 0).await;
    busy
}

/// Protocols with small frames, of which thousands lie in one piece, are read for as long as there is
/// something.
#[tokio::test]
async fn who_sends_much_leaves_others_their_turn() {
    const BYTES: usize = 64 << 10;
    let socket = TcpSocket::new_v4().expect("made");
    // All of it has room there, whatever the operating system begins with.
    socket.set_recv_buffer_size(4 * BYTES as u32).expect("set");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("bound");
    let listener = socket.listen(1).expect("listens");
    let address = listener.local_addr().expect("bound");
    let mut client = TcpStream::connect(address).await.expect("connects");
    let (stream, _) = listener.accept().await.expect("accepted");
    client.write_all(&[0; BYTES]).await.expect("sent");
    let all = async {
        let mut peeked = vec![0; BYTES];
        while stream.peek(&mut peeked).await.expect("read") < BYTES {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, all).await.expect("all of it comes");
    let mut connection = Connection::from(stream);
    let turns = AtomicUsize::new(0);
    let others = async {
        loop {
            turns.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let read = async {
        let mut piece = [0; 1024];
        for _ in 0..BYTES / piece.len() {
            connection.read_exact(&mut piece).await.expect("read");
        }
    };
    tokio::select! {
        biased;
        () = read => {}
        () = others => {}
    }
    let turns = turns.load(Relaxed);
    assert!(turns >= 1, "others had {turns} turns while 64 KiB were read");
}

/// What this process has in memory, in KiB.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("it has one");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Run in a process of its own: others would allocate meanwhile.
#[test]
#[ignore = "the process of another test"]
fn main_of_many_connections() {
    const COUNT: usize = 64;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("bound");
        let limits = ConnectionLimits::new().max_unauthenticated_per_address(COUNT);
        let held = |mut connection: Connection, _| {
            Some(async move {
                // As the small buffers of a protocol, in the middle of the heap.
                let buffers: Vec<_> =
                    (0..512).map(|_| vec![1_u8; 1000].into_boxed_slice()).collect();
                connection.write_all(b"!").await?;
                let ended = connection.read_u8().await;
                drop(buffers);
                ended.map(drop)
            })
        };
        let end = std::future::pending();
        tokio::spawn(serve_connections(listener, limits, Duration::ZERO, end, held));
        let mut clients = Vec::new();
        for _ in 0..COUNT {
            let mut client = TcpStream::connect(addr).await.expect("connects");
            assert_eq!(client.read_u8().await.expect("it holds something"), b'!');
            clients.push(client);
        }
        // What lies above keeps the allocator from giving the heap's end back by itself.
        let above: Vec<_> = (0..64).map(|_| vec![1_u8; 1000].into_boxed_slice()).collect();
        let full = resident_kib();
        drop(clients);
        let given_back = async {
            while resident_kib() + 16 * 1024 > full {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = timeout(PATIENCE, given_back).await;
        in_time.unwrap_or_else(|_| panic!("it was {full} KiB and is {}", resident_kib()));
        drop(above);
    });
}

#[test]
fn memory_of_connections_is_given_back_when_many_have_closed() {
    let own = std::env::current_exe().expect("known");
    let own = std::process::Command::new(own)
        .args(["--exact", "connections::main_of_many_connections", "--ignored", "--nocapture"])
        .output()
        .expect("runs");
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
}

/// Notes that nothing is left of a body, for now.
fn wait(body: &mut UnreadBody) {
    let mut cx = Context::from_waker(Waker::noop());
    let polled: Poll<Option<()>> = body.poll(&mut cx, |_| Poll::Pending, |()| 0);
    assert!(polled.is_pending());
}

/// What comes beside a body that nobody reads is held with it, and bounded; when the body was read, all is.
#[tokio::test]
async fn no_more_is_read_than_there_is_memory_for_of_bodies_that_nobody_reads() {
    const SENT: usize = 8 << 20;
    // A quarter of it is for all unauthenticated connections, beside 16 KiB of each.
    let limits = ConnectionLimits::new().max_http2_bytes(1 << 20);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("bound");
    let (read, taken) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, awaited) = (Arc::clone(&read), Arc::clone(&taken));
    let serve = move |connection: Connection, _| {
        let (read, taken) = (Arc::clone(&counted), Arc::clone(&awaited));
        Some(async move {
            let handle = connection.handle();
            let mut connection = HttpStream::new(connection, handle.clone());
            let activity = handle.begin();
            let mut body = activity.body();
            let mut buffer = vec![0; 16 << 10];
            let mut is_taken = false;
            while read.load(Relaxed) < SENT {
                tokio::select! {
                    bytes = connection.read(&mut buffer) => {
                        read.fetch_add(bytes?, Relaxed);
                        if is_taken {
                            wait(&mut body);
                        }
                    }
                    () = taken.notified() => {
                        is_taken = true;
                        wait(&mut body);
                    }
                }
            }
            Ok(())
        })
    };
    let serving =
        serve_connections(listener, limits, Duration::ZERO, std::future::pending(), serve);
    tokio::spawn(serving);
    let mut client = TcpStream::connect(addr).await.expect("connects");
    client.write_all(PREFACE).await.expect("sent");
    // Frames of a body.
    let frame = [&[0, 1, 0, 0, 0, 0, 0, 0, 1][..], &[0; 256]].concat();
    let frames = frame.repeat(SENT / frame.len() + 1);
    let sending = tokio::spawn(async move { client.write_all(&frames).await });
    let until = async |bytes| {
        while read.load(Relaxed) < bytes {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, until(256 << 10)).await.expect("as much as there is memory for is read");
    sleep(SHORT).await;
    let held = read.load(Relaxed);
    assert!(held <= 320 << 10, "{held} bytes are held");
    taken.notify_one();
    timeout(PATIENCE, until(SENT)).await.expect("all is read");
    sending.await.expect("no panic").expect("sent");
}

/// Headers that were sent before are a byte each on the wire, and about a hundred in memory.
#[tokio::test]
async fn no_more_is_read_than_there_is_memory_for_of_trailers() {
    const TRAILERS: usize = 500;
    const REQUESTS: usize = 64;
    // 1.5 MiB of it are for all unauthenticated connections, of which the requests take 1 MiB.
    let limits = ConnectionLimits::new().max_http2_bytes(6 << 20);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("bound");
    let (read, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, awaited) = (Arc::clone(&read), Arc::clone(&answered));
    let serve = move |connection: Connection, _| {
        let (read, answered) = (Arc::clone(&counted), Arc::clone(&awaited));
        Some(async move {
            let handle = connection.handle();
            let mut connection = HttpStream::new(connection, handle.clone());
            let mut requests: Vec<_> = (0..REQUESTS).map(|_| handle.begin()).collect();
            // Small reads, as each is handed on whole.
            let mut buffer = vec![0; 512];
            loop {
                tokio::select! {
                    bytes = connection.read(&mut buffer) => {
                        if read.fetch_add(bytes?, Relaxed) >= REQUESTS * TRAILERS {
                            return Ok(());
                        }
                    }
                    () = answered.notified() => requests.clear(),
                }
            }
        })
    };
    let serving =
        serve_connections(listener, limits, Duration::ZERO, std::future::pending(), serve);
    tokio::spawn(serving);
    let mut client = TcpStream::connect(addr).await.expect("connects");
    let frame = |flags: u8, stream: u8, payload: &[u8]| {
        let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
        let mut frame = vec![0, length[0], length[1], 1, flags, 0, 0, 0, stream];
        frame.extend(payload);
        frame
    };
    let mut sent = PREFACE.to_vec();
    let streams = (0..64_u8).map(|number| 2 * number + 1);
    sent.extend(streams.clone().flat_map(|stream| frame(4, stream, &[0x82; 10])));
    sent.extend(streams.flat_map(|stream| frame(5, stream, &[0xbe; TRAILERS])));
    let sending = tokio::spawn(async move {
        // It is closed before all is read.
        let _ = client.write_all(&sent).await;
        client
    });
    let until = async |bytes| {
        while read.load(Relaxed) < bytes {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let heads = PREFACE.len() + REQUESTS * 19;
    timeout(PATIENCE, until(heads + 1024)).await.expect("heads and some trailers are read");
    sleep(SHORT).await;
    let held = read.load(Relaxed) - heads;
    assert!(held <= (512 << 10) / 128 + 512, "{held} bytes of trailers are held");
    answered.notify_one();
    let all = timeout(PATIENCE, until(REQUESTS * TRAILERS)).await;
    all.expect("they are over, with their trailers");
    drop(sending.await.expect("no panic"));
}

/// A library keeps the memory of as many streams as a connection had at once.
#[tokio::test]
async fn streams_of_unauthenticated_clients_are_read_while_there_is_memory_for_them() {
    const REQUESTS: usize = 60;
    // 64 KiB of it are for all unauthenticated connections.
    let limits = ConnectionLimits::new().max_http2_bytes(256 << 10);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("bound");
    let (read, known) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, awaited) = (Arc::clone(&read), Arc::clone(&known));
    let serve = move |connection: Connection, _| {
        let (read, known) = (Arc::clone(&counted), Arc::clone(&awaited));
        Some(async move {
            let handle = connection.handle();
            let mut connection = HttpStream::new(connection, handle.clone());
            let alice = Caller::new("alice").expect("a user name");
            let (mut requests, mut buffer, mut bytes) = (Vec::new(), [0; 19], 0);
            loop {
                tokio::select! {
                    some = connection.read(&mut buffer) => {
                        bytes += some?;
                        while (requests.len() + 1) * 19 + PREFACE.len() <= bytes {
                            requests.push(handle.begin());
                            read.fetch_add(1, Relaxed);
                        }
                    }
                    () = known.notified() => handle.set_authenticated(&alice),
                }
            }
        })
    };
    let serving =
        serve_connections(listener, limits, Duration::ZERO, std::future::pending(), serve);
    tokio::spawn(serving);
    let mut client = TcpStream::connect(addr).await.expect("connects");
    let mut sent = PREFACE.to_vec();
    for stream in (1..).step_by(2).take(REQUESTS) {
        sent.extend([0, 0, 10, 1, 5, 0, 0, 0, stream]);
        sent.extend([0x82; 10]);
    }
    client.write_all(&sent).await.expect("sent");
    let until = async |requests| {
        while read.load(Relaxed) < requests {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, until(2)).await.expect("some need none");
    sleep(SHORT).await;
    let begun = read.load(Relaxed);
    // Of the others the head is counted, and what the library keeps.
    assert!(begun <= 2 + 64 / 8, "{begun} requests are read");
    known.notify_one();
    timeout(PATIENCE, until(REQUESTS)).await.expect("a known client's are read");
}

/// Of a body that waits for more, nothing is held, whatever comes beside it; nor much of one of which little has come.
#[tokio::test]
async fn an_open_body_does_not_stop_the_rest_of_its_connection() {
    const SENT: usize = 4 << 20;
    for is_read in [true, false] {
        let limits = ConnectionLimits::new().max_http2_bytes(1 << 20);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("bound");
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let serve = move |connection: Connection, _| {
            let read = Arc::clone(&counted);
            Some(async move {
                let handle = connection.handle();
                let mut connection = HttpStream::new(connection, handle.clone());
                let activities = [handle.begin(), handle.begin()];
                let [mut open, mut other] = activities.each_ref().map(|activity| activity.body());
                if is_read {
                    wait(&mut open);
                }
                let mut buffer = vec![0; 16 << 10];
                loop {
                    let bytes = connection.read(&mut buffer).await?;
                    let mut cx = Context::from_waker(Waker::noop());
                    // The frames of the other body are taken as they come.
                    for _ in 0..bytes / 256 {
                        let frame = |_: &mut Context<'_>| Poll::Ready(Some(()));
                        assert!(other.poll(&mut cx, frame, |()| 256).is_ready());
                    }
                    wait(&mut other);
                    read.fetch_add(bytes, Relaxed);
                }
            })
        };
        let serving =
            serve_connections(listener, limits, Duration::ZERO, std::future::pending(), serve);
        tokio::spawn(serving);
        let mut client = TcpStream::connect(addr).await.expect("connects");
        client.write_all(PREFACE).await.expect("sent");
        let frame = [&[0, 1, 0, 0, 0, 0, 0, 0, 3][..], &[0; 256]].concat();
        let frames = frame.repeat(SENT / frame.len() + 1);
        tokio::spawn(async move { client.write_all(&frames).await });
        let all = async {
            while read.load(Relaxed) < SENT {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{is_read}: {read:?} are read"));
    }
}
