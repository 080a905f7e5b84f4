//! Who has shown nothing has little, on each of the servers.

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::server::*;

const SERVERS: [&str; 4] = ["http", "ws", "ssh", "avro"];

/// A server with all of its ports, and these settings of connections.
struct All {
    all: AllInOne,
    ready: Value,
    _config: tempfile::TempDir,
}

fn all(settings: &str) -> All {
    let config = tempfile::tempdir().expect("a directory");
    let path = config.path().join("config.toml");
    std::fs::write(&path, settings).expect("written");
    let path = path.to_str().expect("text");
    // Keys of nobody: connections are what is looked at.
    let keys = config.path().join("keys");
    std::fs::create_dir(&keys).expect("made");
    let keys = keys.to_str().expect("text");
    let ports = [
        "--ssh",
        "127.0.0.1:0",
        "--authorized-keys",
        keys,
        "--avro",
        "127.0.0.1:0",
        "--config",
        path,
    ];
    let all = all_in_one(&ports);
    let ready = serde_json::from_str(&all.server.ready).expect("JSON");
    All { all, ready, _config: config }
}

impl All {
    fn addr(&self, server: &str) -> SocketAddr {
        self.ready[server].as_str().expect("an address").parse().expect("an address")
    }

    /// A connection from this address of loopback, which takes little before it is read.
    fn connect(&self, server: &str, from: u8) -> TcpStream {
        let made = socket(AddressFamily::INET, SocketType::STREAM, None).expect("made");
        sockopt::set_socket_recv_buffer_size(&made, 4096).expect("set");
        let from: SocketAddr = ([127, 0, 0, from], 0).into();
        bind(&made, &from).expect("bound");
        connect(&made, &self.addr(server)).expect("connects");
        let stream = TcpStream::from(made);
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        stream
    }

    /// How many connections were closed for this cause.
    fn closed(&self, cause: &str) -> u64 {
        let (_, text) = get(&self.all.addr, "/metrics");
        let line = format!("splengine_connections_closed_total{{cause=\"{cause}\"}} ");
        let count = text.lines().find_map(|text| text.strip_prefix(&line)).expect("counted");
        count.parse().expect("a number")
    }
}

/// Until the server closes it; what came before that.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it is not closed"),
        _ => all,
    }
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("set");
    let mut piece = [0; 256];
    let is_open = loop {
        match (&mut &*stream).read(&mut piece) {
            Ok(0) => break false,
            // What a server of SSH begins with.
            Ok(_) => {}
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).expect("set");
    is_open
}

#[test]
fn each_server_gives_one_address_few_places() {
    let all = all("[connections]\nmax-unauthenticated-per-address = 2\n");
    for server in SERVERS {
        let mut held: Vec<_> = (0..5).map(|_| all.connect(server, 2)).collect();
        let other = all.connect(server, 3);
        for stream in &mut held[..3] {
            rest(stream);
        }
        for stream in held[3..].iter().chain([&other]) {
            assert!(is_open(stream), "{server}: the newest stay, and others");
        }
    }
    assert_eq!(all.closed("evicted"), 12);
}

/// Whoever has a descriptor keeps it while nobody else waits for one.
#[test]
fn a_shortage_of_files_closes_no_connection_in_vain() {
    let all = all("");
    let pid = all.all.server.pid();
    let files = format!("/proc/{}/fd", pid.as_raw_nonzero());
    let open: HashSet<u64> = std::fs::read_dir(files)
        .expect("there")
        .filter_map(|entry| entry.expect("read").file_name().to_str()?.parse().ok())
        .collect();
    let free = (0..).find(|number| !open.contains(number)).expect("one");
    let limit = Rlimit { current: Some(free + 1), maximum: Some(free + 1) };
    prlimit(Some(pid), Resource::Nofile, limit).expect("set");
    for _ in 0..30 {
        assert_eq!(get(&all.all.addr, "/health").0, 200);
    }
    assert_eq!(all.closed("evicted"), 0);
}

#[test]
fn on_each_server_something_must_be_shown_in_time() {
    let all = all("[ssh]\nlogin-grace = 1500\n[connections]\nunauthenticated-timeout = 1500\n");
    let mut held: Vec<_> = SERVERS.iter().map(|server| all.connect(server, 2)).collect();
    // Whatever it says, as long as it is nothing whole.
    for stream in &mut held {
        // It may be closed already, where this machine is busy with others.
        let _ = stream.write_all(b"G");
    }
    for stream in &mut held {
        rest(stream);
    }
}

#[test]
fn on_each_server_of_http_who_reads_nothing_is_cut() {
    let all = all("[connections]\nunauthenticated-write-timeout = 1500\n");
    let paths = [("http", "/openapi.json"), ("ws", "/openapi.json"), ("avro", "/avro/protocol")];
    let requests = paths.map(|(server, path)| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut stream = all.connect(server, 2);
        stream.set_nonblocking(true).expect("set");
        // More than all buffers on the way hold; what does not fit is not needed.
        for _ in 0..2000 {
            if stream.write_all(request.as_bytes()).is_err() {
                break;
            }
        }
        stream
    });
    eventually("all are cut", || all.closed("write_timed_out") == 3);
    drop(requests);
}
