//! The whole of it, by packets.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::slice::from_ref as only;
use std::time::Duration;

use bytes::BufMut as _;
use splengine_core::execute::{Exit, Output, Stdin};
use splengine_core::files::FilePolicy;
use splengine_core::quota::MemoryBudget;
use splengine_core::{Caller, Engine, Execute, ExecuteError, Files, Scope};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::sftp::{MAX_REQUESTS, MIN_REQUESTS, Options, serve};

struct Nothing;

impl Execute for Nothing {
    async fn execute(
        &self,
        _: splengine_core::execute::Command,
        _: Stdin,
        _: Output,
        _: splengine_core::execute::Cancel,
    ) -> Result<Exit, ExecuteError> {
        Err(ExecuteError::internal("nothing is run here"))
    }
}

fn memory() -> MemoryBudget {
    MemoryBudget::new(64 << 20)
}

/// What a client was answered: the packet's type, and its members.
type Answered = (u8, Vec<u8>);

struct Client {
    root: TempDir,
    to: DuplexStream,
    from: DuplexStream,
    next: u32,
    server: JoinHandle<io::Result<()>>,
}

fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut to = Vec::new();
    to.put_u32(bytes.as_ref().len() as u32);
    to.put_slice(bytes.as_ref());
    to
}

fn int(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn long(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn status(answered: &Answered) -> u32 {
    assert_eq!(answered.0, 101, "{:?}", String::from_utf8_lossy(&answered.1));
    u32::from_be_bytes(answered.1[..4].try_into().expect("a code"))
}

fn message(answered: &Answered) -> String {
    String::from_utf8(strings(&answered.1[4..])[0].clone()).expect("text")
}

/// As many strings as there are.
fn strings(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let Some((string, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)
        else {
            break;
        };
        all.push(string.to_vec());
        bytes = rest;
    }
    all
}

fn files(root: &TempDir) -> Files {
    let policy = FilePolicy::new().root(root.path()).hide("runtime");
    let policy = policy.max_open(5000).max_file_size(64 << 20);
    let engine = Engine::builder(Nothing).files(policy).build();
    engine.expect("built").files()
}

fn alice() -> Caller {
    Caller::new("alice").expect("a name").with(Scope::Files)
}

impl Client {
    /// Before its first packet.
    fn new() -> Self {
        Self::of(alice())
    }

    fn of(caller: Caller) -> Self {
        Self::with(caller, Options::default())
    }

    fn with(caller: Caller, options: Options) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        for directory in ["data", "runtime"] {
            fs::create_dir(root.path().join(directory)).expect("made");
        }
        fs::write(root.path().join("data/a"), "content").expect("written");
        fs::write(root.path().join("runtime/secret"), "secret").expect("written");
        let ((to, input), (from, output)) = (tokio::io::duplex(MIB), tokio::io::duplex(MIB));
        let server = tokio::spawn(serve(
            files(&root),
            caller,
            options,
            input,
            output,
            MAX_REQUESTS,
            memory(),
        ));
        Self { root, to, from, next: 0, server }
    }

    async fn open() -> Self {
        let mut client = Self::new();
        client.begin().await;
        client
    }

    async fn begin(&mut self) {
        self.send_raw(&[1, 0, 0, 0, 3]).await;
        let version = self.receive_raw().await;
        assert_eq!(version[..5], [2, 0, 0, 0, 3]);
        let extensions = strings(&version[5..]);
        assert_eq!(extensions.len() % 2, 0);
        for pair in extensions.chunks(2) {
            let version = if pair[0].ends_with(b"statvfs@openssh.com") { b"2" } else { b"1" };
            assert_eq!(pair[1], version);
        }
        assert!(extensions.contains(&b"limits@openssh.com".to_vec()));
        assert!(extensions.contains(&b"hardlink@openssh.com".to_vec()));
    }

    async fn send_raw(&mut self, packet: &[u8]) {
        self.to.write_all(&string(packet)).await.expect("sent");
    }

    async fn receive_raw(&mut self) -> Vec<u8> {
        let receiving = async {
            let length = self.from.read_u32().await.expect("a length");
            let mut packet = vec![0; length as usize];
            self.from.read_exact(&mut packet).await.expect("a packet");
            packet
        };
        timeout(Duration::from_secs(60), receiving).await.expect("an answer in time")
    }

    async fn send(&mut self, kind: u8, members: &[Vec<u8>]) -> u32 {
        self.next += 1;
        let packet = [&[kind][..], &self.next.to_be_bytes(), &members.concat()].concat();
        self.send_raw(&packet).await;
        self.next
    }

    async fn receive(&mut self) -> (u32, Answered) {
        let packet = self.receive_raw().await;
        let id = u32::from_be_bytes(packet[1..5].try_into().expect("an id"));
        (id, (packet[0], packet[5..].to_vec()))
    }

    async fn ask(&mut self, kind: u8, members: &[Vec<u8>]) -> Answered {
        let asked = self.send(kind, members).await;
        let (id, answered) = self.receive().await;
        assert_eq!(id, asked);
        answered
    }

    async fn extended(&mut self, name: &str, members: &[Vec<u8>]) -> Answered {
        let members = [&[string(name)], members].concat();
        self.ask(200, &members).await
    }

    async fn opened(&mut self, path: &str, flags: u32) -> Vec<u8> {
        handle(&self.ask(3, &[string(path), int(flags), int(0)]).await)
    }

    async fn real(&mut self, path: &str) -> String {
        let (kind, members) = self.ask(16, &[string(path)]).await;
        assert_eq!((kind, &members[..4]), (104, &int(1)[..]), "{path}");
        String::from_utf8(strings(&members[4..])[0].clone()).expect("text")
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn content(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).expect("a file")
    }

    /// Ends its side, and gives how the server ended.
    async fn end(self) -> io::Result<()> {
        drop(self.to);
        timeout(Duration::from_secs(60), self.server).await.expect("an end").expect("no panic")
    }
}

/// A handle, as the member of further requests.
fn handle(answered: &Answered) -> Vec<u8> {
    assert_eq!(answered.0, 102, "{:?}", String::from_utf8_lossy(&answered.1));
    answered.1.clone()
}

const MIB: usize = 1 << 20;

const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const TRUNCATE: u32 = 0x10;
const EXCLUSIVE: u32 = 0x20;

const OK: u32 = 0;
const EOF: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const OP_UNSUPPORTED: u32 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_the_order_of_their_requests() {
    let mut client = Client::open().await;
    fs::write(client.path("data/large"), vec![7; MIB]).expect("written");
    let file = client.opened("data/large", READ).await;
    let first = client.next + 1;
    for number in 0..500_u32 {
        match number % 5 {
            // Much to read, a little, a name that leads far, one that leads nowhere, no request.
            0 => client.send(5, &[file.clone(), long(0), int(200_000)]).await,
            1 => client.send(5, &[file.clone(), long(u64::from(number)), int(1)]).await,
            2 => client.send(17, &[string("data/../data/../data/../data/large")]).await,
            3 => client.send(17, &[string("none")]).await,
            _ => client.send(5, &[]).await,
        };
        // What is sent before is not answered while more comes.
        if number % 50 == 49 {
            for answered in first + number - 49..=first + number {
                assert_eq!(client.receive().await.0, answered);
            }
        }
    }
}

#[tokio::test]
async fn a_file_is_written_read_and_closed() {
    let mut client = Client::open().await;
    let attributes = [int(4), int(0o100_600)].concat();
    let flags = int(READ | WRITE | CREATE | TRUNCATE);
    let file = handle(&client.ask(3, &[string("data/new"), flags, attributes]).await);
    let written = client.ask(6, &[file.clone(), long(0), string("hello ")]).await;
    assert_eq!(status(&written), OK);
    client.ask(6, &[file.clone(), long(6), string("world")]).await;
    let read = client.ask(5, &[file.clone(), long(3), int(100)]).await;
    assert_eq!(read, (103, string("lo world")));
    assert_eq!(status(&client.ask(5, &[file.clone(), long(11), int(100)]).await), EOF);
    let (kind, attributes) = client.ask(8, only(&file)).await;
    assert_eq!((kind, &attributes[..4]), (105, &int(15)[..]));
    assert_eq!(attributes[4..12], long(11));
    assert_eq!(attributes[20..24], int(0o100_600));
    assert_eq!(status(&client.extended("fsync@openssh.com", only(&file)).await), OK);
    let (kind, space) = client.extended("fstatvfs@openssh.com", only(&file)).await;
    assert_eq!((kind, space.len()), (201, 88));
    assert_eq!(client.extended("statvfs@openssh.com", &[string(".")]).await.1.len(), 88);
    // A directory's handle tells the same.
    let directory = handle(&client.ask(11, &[string("data")]).await);
    let (kind, attributes) = client.ask(8, only(&directory)).await;
    let mode = u32::from_be_bytes(attributes[20..24].try_into().expect("a mode"));
    assert_eq!((kind, mode & 0o170_000), (105, 0o040_000));
    assert_eq!(client.extended("fstatvfs@openssh.com", only(&directory)).await.1.len(), 88);
    assert_eq!(status(&client.ask(4, only(&file)).await), OK);
    for kind in [4, 8, 12] {
        let closed = client.ask(kind, only(&file)).await;
        assert_eq!(status(&closed), FAILURE);
        assert!(message(&closed).contains("no such handle"));
    }
    assert_eq!(client.content("data/new"), "hello world");

    let more = client.opened("data/new", WRITE | APPEND).await;
    client.ask(6, &[more, long(0), string("!")]).await;
    assert_eq!(client.content("data/new"), "hello world!");
    let flags = int(WRITE | CREATE | EXCLUSIVE);
    let exists = client.ask(3, &[string("data/new"), flags, int(0)]).await;
    assert_eq!(status(&exists), FAILURE);
    assert!(message(&exists).ends_with("/data/new` exists already"), "{}", message(&exists));
    for (path, code) in [("none", NO_SUCH_FILE), ("data", FAILURE), ("data/a/b", NO_SUCH_FILE)] {
        let refused = client.ask(3, &[string(path), int(READ), int(0)]).await;
        assert_eq!(status(&refused), code, "{}", message(&refused));
    }
    client.end().await.expect("a good end");
}

#[tokio::test]
async fn many_reads_are_in_flight() {
    let mut client = Client::open().await;
    let content: Vec<u8> = (0..6_000_000_u32).map(|number| (number / 5) as u8).collect();
    fs::write(client.path("data/large"), &content).expect("written");
    let file = client.opened("data/large", READ).await;
    // More at once than is worked at, and each larger than is given at once.
    let size = 255 * 1024;
    let parts = content.len().div_ceil(size);
    let Client { mut to, mut from, root: _root, .. } = client;
    let asking = async {
        for number in 0..parts as u64 {
            let at = long(number * size as u64);
            let packet = [&[5][..], &int(number as u32), &file, &at, &int(u32::MAX)].concat();
            to.write_all(&string(packet)).await.expect("sent");
        }
    };
    let reading = async {
        let mut read = vec![0; content.len()];
        let mut ids = HashSet::new();
        for _ in 0..parts {
            let length = from.read_u32().await.expect("a length");
            let mut packet = vec![0; length as usize];
            from.read_exact(&mut packet).await.expect("a packet");
            assert_eq!(packet[0], 103);
            let id = u32::from_be_bytes(packet[1..5].try_into().expect("an id"));
            assert!(ids.insert(id));
            let at = id as usize * size;
            assert!(packet.len() <= 9 + size);
            read[at..at + packet.len() - 9].copy_from_slice(&packet[9..]);
        }
        read
    };
    let ((), read) = tokio::join!(asking, reading);
    assert!(read == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_sent_ahead_is_done_in_order() {
    let mut client = Client::open().await;
    for round in 0..30 {
        let file = client.opened("data/ordered", READ | WRITE | CREATE | TRUNCATE).await;
        let (mut expected, mut packets) = (HashMap::new(), Vec::new());
        let mut ask = |kind: u8, members: &[Vec<u8>], answered: Answered| {
            let id = expected.len() as u32;
            packets.extend(string([&[kind][..], &int(id), &members.concat()].concat()));
            expected.insert(id, answered);
        };
        let done = (101, [int(OK), string(""), string("en")].concat());
        for number in 0..20_u8 {
            let data = string([number; 1000]);
            ask(6, &[file.clone(), long(0), data.clone()], done.clone());
            ask(5, &[file.clone(), long(0), int(1000)], (103, data));
        }
        ask(4, only(&file), done.clone());
        ask(18, &[string("data/ordered"), string("data/moved")], done.clone());
        ask(13, &[string("data/moved")], done);
        client.to.write_all(&packets).await.expect("sent");
        for _ in 0..43 {
            let (id, answered) = client.receive().await;
            assert!(expected.remove(&id) == Some(answered), "{round} {id}");
        }
    }
}

#[tokio::test]
async fn a_directory_is_read_in_parts() {
    let mut client = Client::open().await;
    for number in 0..1000 {
        let name = format!("data/{number:0>255}");
        fs::write(client.path(&name), "").expect("written");
    }
    let directory = handle(&client.ask(11, &[string("data")]).await);
    let (mut names, mut counts) = (HashSet::new(), Vec::new());
    loop {
        let (kind, members) = client.ask(12, only(&directory)).await;
        if kind == 101 {
            assert_eq!(status(&(kind, members)), EOF);
            break;
        }
        assert_eq!(kind, 104);
        counts.push(u32::from_be_bytes(members[..4].try_into().expect("a count")));
        let mut rest = &members[4..];
        while !rest.is_empty() {
            let both = strings(rest);
            let (name, long_name) = (&both[0], String::from_utf8(both[1].clone()).expect("text"));
            let name = String::from_utf8(name.clone()).expect("text");
            assert!(long_name.starts_with("-rw"), "{long_name}");
            assert!(long_name.ends_with(&format!(" {name}")), "{long_name}");
            rest = &rest[8 + name.len() + long_name.len() + 32..];
            assert!(names.insert(name));
        }
        assert!(members.len() < 64 * 1024);
    }
    assert_eq!(names.len(), 1001);
    // What was read and not told would be told as an answer of its own.
    assert_eq!(counts, [&[100; 10][..], &[1]].concat(), "nothing is kept between answers");
    assert_eq!(status(&client.ask(12, only(&directory)).await), EOF);
    assert_eq!(status(&client.ask(5, &[directory, long(0), int(1)]).await), FAILURE);
    assert_eq!(status(&client.ask(11, &[string("data/a")]).await), NO_SUCH_FILE);

    let root = handle(&client.ask(11, &[string("")]).await);
    let (_, members) = client.ask(12, &[root]).await;
    assert_eq!(members[..4], int(1), "what is hidden is not listed");
}

#[tokio::test]
async fn names_are_changed() {
    let mut client = Client::open().await;
    fs::write(client.path("data/b"), "other").expect("written");
    let names = [string("data/a"), string("data/b")];
    let refused = client.ask(18, &names).await;
    assert_eq!((status(&refused), client.content("data/b")), (FAILURE, "other".to_owned()));
    assert_eq!(status(&client.extended("posix-rename@openssh.com", &names).await), OK);
    assert_eq!(client.content("data/b"), "content");
    assert_eq!(status(&client.ask(18, &[string("data/b"), string("data/c")]).await), OK);

    assert_eq!(status(&client.ask(14, &[string("data/new"), int(0)]).await), OK);
    assert_eq!(status(&client.ask(14, &[string("data/new"), int(0)]).await), FAILURE);
    assert_eq!(status(&client.ask(15, &[string("data")]).await), FAILURE);
    assert_eq!(status(&client.ask(15, &[string("data/new")]).await), OK);

    // The target first.
    assert_eq!(status(&client.ask(20, &[string("c"), string("data/link")]).await), OK);
    assert_eq!(fs::read_link(client.path("data/link")).expect("a link"), PathBuf::from("c"));
    let (kind, target) = client.ask(19, &[string("data/link")]).await;
    assert_eq!((kind, &strings(&target[4..])[0][..]), (104, &b"c"[..]));
    let (_, itself) = client.ask(7, &[string("data/link")]).await;
    let (_, leads_to) = client.ask(17, &[string("data/link")]).await;
    let type_bits = |attributes: &[u8]| attributes[20..22].to_vec();
    assert_eq!(type_bits(&itself), (0o120_000_u32 | 0o777).to_be_bytes()[..2]);
    assert_eq!(type_bits(&leads_to), 0o100_000_u32.to_be_bytes()[..2]);
    let times = [string("data/link"), int(8), int(1), int(2)];
    assert_eq!(status(&client.extended("lsetstat@openssh.com", &times).await), OK);
    let (_, itself) = client.ask(7, &[string("data/link")]).await;
    assert_eq!(itself[24..], [int(1), int(2)].concat());
    let unheard_of = client.extended("unheard-of", &names).await;
    assert_eq!(status(&unheard_of), OP_UNSUPPORTED);
    assert_eq!(status(&client.ask(13, &[string("data/link")]).await), OK);
    assert_eq!(status(&client.ask(13, &[string("data/link")]).await), NO_SUCH_FILE);
}

#[tokio::test]
async fn attributes_are_set() {
    let mut client = Client::open().await;
    let attributes = [int(1 | 4 | 8), long(3), int(0o104_640), int(10), int(20)].concat();
    assert_eq!(status(&client.ask(9, &[string("data/a"), attributes]).await), OK);
    let (_, now) = client.ask(17, &[string("data/a")]).await;
    assert_eq!(now[4..12], long(3));
    assert_eq!(now[20..], [int(0o100_640), int(10), int(20)].concat());
    let file = client.opened("data/a", WRITE).await;
    let owner = now[12..20].to_vec();
    let same = [int(1 | 2), long(2), owner].concat();
    assert_eq!(status(&client.ask(10, &[file.clone(), same]).await), OK);
    assert_eq!(client.content("data/a"), "co");
    let other = [int(2), int(12345), int(12345)].concat();
    assert_eq!(status(&client.ask(10, &[file, other.clone()]).await), PERMISSION_DENIED);
    assert_eq!(status(&client.ask(9, &[string("data/a"), other]).await), PERMISSION_DENIED);
}

#[tokio::test]
async fn paths_are_made_whole() {
    let mut client = Client::open().await;
    let root = client.root.path().to_str().expect("text").to_owned();
    let base = root.rsplit('/').next().expect("a name");
    for (given, real) in [
        (".".to_owned(), root.clone()),
        (String::new(), root.clone()),
        (root.clone(), root.clone()),
        (format!("{root}/./data/../data/"), format!("{root}/data")),
        (format!("/.{root}/../{base}/data"), format!("{root}/data")),
        ("data/../data/a".to_owned(), format!("{root}/data/a")),
        ("data/none".to_owned(), format!("{root}/data/none")),
        // What is on the way to root is there.
        ("/".to_owned(), "/".to_owned()),
        ("/..".to_owned(), "/".to_owned()),
        ("..".to_owned(), root.trim_end_matches(base).trim_end_matches('/').to_owned()),
    ] {
        assert_eq!(client.real(&given).await, real, "{given}");
    }
    for (path, code) in [("/etc", PERMISSION_DENIED), ("/data", PERMISSION_DENIED), ("/", 105)] {
        let (kind, members) = client.ask(17, &[string(path)]).await;
        let code_of = if kind == 101 { status(&(kind, members)) } else { u32::from(kind) };
        assert_eq!(code_of, code, "{path}");
    }
    // It shows the way back and nothing else, though more is there.
    let mut way = root.split('/').skip(1).collect::<Vec<_>>();
    while let Some(next) = way.pop() {
        let above = format!("/{}", way.join("/"));
        let directory = handle(&client.ask(11, &[string(&above)]).await);
        let (kind, members) = client.ask(12, std::slice::from_ref(&directory)).await;
        assert_eq!((kind, &members[..4]), (104, &int(1)[..]), "{above}");
        assert_eq!(strings(&members[4..])[0], next.as_bytes(), "{above}");
        assert_eq!(client.ask(8, std::slice::from_ref(&directory)).await.0, 105);
        assert_eq!(status(&client.ask(12, &[directory]).await), EOF);
        assert_eq!(
            status(&client.ask(14, &[string(format!("{above}/new")), int(0)]).await),
            PERMISSION_DENIED
        );
    }
    let missing = client.ask(16, &[string("none/none")]).await;
    assert_eq!(status(&missing), NO_SUCH_FILE);
    let data = format!("{root}/data");
    for (given, real) in [("~", &root), ("~/data", &data), ("data", &data)] {
        let (kind, members) = client.extended("expand-path@openssh.com", &[string(given)]).await;
        assert_eq!((kind, &strings(&members[4..])[0][..]), (104, real.as_bytes()), "{given}");
    }
    let other = client.extended("expand-path@openssh.com", &[string("~bob/x")]).await;
    assert_eq!(status(&other), FAILURE);
    let (kind, limits) = client.extended("limits@openssh.com", &[]).await;
    assert_eq!(kind, 201);
    let data = long(255 * 1024);
    assert_eq!(limits, [long(257 * 1024), data.clone(), data, long(1024)].concat());
}

#[tokio::test]
async fn nothing_outside_root_is_reached() {
    let mut client = Client::open().await;
    let outside = tempfile::tempdir().expect("a directory");
    fs::write(outside.path().join("secret"), "secret").expect("written");
    symlink(outside.path(), client.path("data/out")).expect("made");
    symlink("../runtime", client.path("data/hidden")).expect("made");
    let up = format!("data/../../{}", outside.path().file_name().expect("a name").display());
    for base in ["data/out", "data/hidden", &up, "runtime"] {
        for path in [base.to_owned(), format!("{base}/secret"), format!("{base}/new")] {
            let members = [string(&path), string("data/other")];
            for (kind, members) in [
                (3, vec![string(&path), int(READ), int(0)]),
                (3, vec![string(&path), int(WRITE | CREATE | TRUNCATE), int(0)]),
                (9, vec![string(&path), int(4), int(0)]),
                (11, vec![string(&path)]),
                (17, vec![string(&path)]),
            ] {
                let code = status(&client.ask(kind, &members).await);
                let is_fine = matches!(code, NO_SUCH_FILE | PERMISSION_DENIED | FAILURE);
                assert!(is_fine, "{kind} {path} {code}");
            }
            if path != base || base == "runtime" {
                let made = client.ask(14, &[string(&path), int(0)]).await;
                assert_ne!(status(&made), OK, "{path}");
                for kind in [7, 13, 15, 18, 19] {
                    let code = status(&client.ask(kind, &members).await);
                    assert!(matches!(code, NO_SUCH_FILE | PERMISSION_DENIED), "{kind} {path}");
                }
                let moved = client.ask(18, &[string("data/a"), string(&path)]).await;
                assert_ne!(status(&moved), OK, "{path}");
            }
        }
    }
    for (target, code) in [("/etc/passwd", PERMISSION_DENIED), ("../../x", PERMISSION_DENIED)] {
        let made = client.ask(20, &[string(target), string("data/link")]).await;
        assert_eq!(status(&made), code, "{}", message(&made));
    }
    let read = client.ask(19, &[string("data/out")]).await;
    assert!(!message(&read).contains(outside.path().to_str().expect("text")));
    assert_eq!(client.content("runtime/secret"), "secret");
    assert_eq!(fs::read_dir(outside.path()).expect("read").count(), 1);
}

#[tokio::test]
async fn absolute_targets_are_below_root() {
    let mut client = Client::open().await;
    let root = client.root.path().to_str().expect("text").to_owned();
    let target = format!("{root}/data/a");
    assert_eq!(status(&client.ask(20, &[string(&target), string("data/link")]).await), OK);
    assert_eq!(fs::read_link(client.path("data/link")).expect("a link").to_str(), Some(&*target));
    let (kind, members) = client.ask(19, &[string("data/link")]).await;
    assert_eq!((kind, &strings(&members[4..])[0][..]), (104, target.as_bytes()));
    client.opened("data/link", READ).await;
    for outside in [format!("{root}/../x"), format!("{root}x/y"), "/etc/passwd".to_owned()] {
        let made = client.ask(20, &[string(&outside), string("data/other")]).await;
        assert_eq!(status(&made), PERMISSION_DENIED, "{outside}");
    }
}

#[tokio::test]
async fn a_file_gets_a_second_name_and_a_copy() {
    let mut client = Client::open().await;
    let names = [string("data/a"), string("data/b")];
    let linked = client.extended("hardlink@openssh.com", &names);
    assert_eq!(status(&linked.await), OK);
    fs::write(client.path("data/a"), "changed").expect("written");
    assert_eq!(client.content("data/b"), "changed");
    for (from, to, code) in [
        ("data/a", "data/b", FAILURE),
        ("data", "data/c", FAILURE),
        ("runtime/secret", "data/c", NO_SUCH_FILE),
        ("data/a", "runtime/c", NO_SUCH_FILE),
        ("data/a", "/etc/c", PERMISSION_DENIED),
    ] {
        let refused = client.extended("hardlink@openssh.com", &[string(from), string(to)]).await;
        assert_eq!(status(&refused), code, "{from} {to}: {}", message(&refused));
    }
    // To be made, and nothing else.
    let to = handle(&client.ask(3, &[string("data/copy"), int(CREATE), int(0)]).await);
    let from = client.opened("data/a", READ).await;
    let members = [from.clone(), long(2), long(3), to.clone(), long(1)];
    assert_eq!(status(&client.extended("copy-data", &members).await), OK);
    assert_eq!(client.content("data/copy"), "\0ang");
    let members = [from.clone(), long(0), long(0), to, long(0)];
    assert_eq!(status(&client.extended("copy-data", &members).await), OK);
    assert_eq!(client.content("data/copy"), "changed");
    let members = [from.clone(), long(0), long(0), from.clone(), long(0)];
    assert_eq!(status(&client.extended("copy-data", &members).await), FAILURE);
    // Nor through another handle and another name of it: of what it appends there would be no end.
    let same = handle(&client.ask(3, &[string("data/b"), int(WRITE), int(0)]).await);
    let members = [from, long(0), long(0), same, long(7)];
    assert_eq!(status(&client.extended("copy-data", &members).await), FAILURE);
    assert_eq!(client.content("data/b"), "changed");
}

#[tokio::test]
async fn a_commands_options_are_kept() {
    for wrong in ["internal-sftp -x", "internal-sftp -d", "sftp", "internal-sftp; ls", ""] {
        assert!(Options::parse(wrong).is_none(), "{wrong}");
    }
    let options = Options::parse("internal-sftp -l INFO -R -d data -e").expect("known");
    let mut client = Client::with(alice(), options);
    client.begin().await;
    let file = client.opened("a", READ).await;
    assert_eq!(client.ask(5, &[file, long(0), int(9)]).await.0, 103);
    for (kind, members) in [
        (3, vec![string("new"), int(WRITE | CREATE), int(0)]),
        (3, vec![string("a"), int(READ | WRITE), int(0)]),
        (13, vec![string("a")]),
        (14, vec![string("new"), int(0)]),
        (18, vec![string("a"), string("new")]),
        (9, vec![string("a"), int(0)]),
    ] {
        assert_eq!(status(&client.ask(kind, &members).await), PERMISSION_DENIED, "{kind}");
    }
    let directory = handle(&client.ask(11, &[string(".")]).await);
    assert_eq!(client.ask(12, &[directory]).await.0, 104);
    assert_eq!(fs::read_dir(client.path("data")).expect("read").count(), 1);
}

#[tokio::test]
async fn handles_are_bounded() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("anybody may");
    let mut client = Client::open().await;
    let mut handles = Vec::new();
    for number in 0..1024 {
        let kind = if number % 2 == 0 { 3 } else { 11 };
        let path = if kind == 3 { "data/a" } else { "data" };
        handles.push(handle(&client.ask(kind, &[string(path), int(READ), int(0)]).await));
    }
    for (kind, path) in [(3, "data/new"), (11, "data")] {
        let flags = int(WRITE | CREATE);
        let refused = client.ask(kind, &[string(path), flags, int(0)]).await;
        assert_eq!(status(&refused), FAILURE);
        assert!(message(&refused).contains("1024"), "{}", message(&refused));
    }
    assert!(!client.path("data/new").exists());
    assert_eq!(status(&client.ask(4, &[handles.remove(50)]).await), OK);
    client.opened("data/a", READ).await;
}

#[tokio::test]
async fn rights_are_the_callers() {
    let mut client = Client::of(Caller::new("bob").expect("a name"));
    client.begin().await;
    let refused = client.ask(17, &[string(".")]).await;
    assert_eq!(status(&refused), PERMISSION_DENIED);
    assert!(message(&refused).contains("`files`"));
}

#[tokio::test]
async fn junk_is_refused() {
    let mut client = Client::open().await;
    // A request that ends too early has an id to be answered to.
    for kind in 3..=20 {
        assert_eq!(status(&client.ask(kind, &[vec![0, 0, 0]]).await), BAD_MESSAGE, "{kind}");
        let lies = client.ask(kind, &[vec![0xff, 0xff, 0xff, 0xff, 1]]).await;
        assert_eq!(status(&lies), BAD_MESSAGE, "{kind}");
    }
    assert_eq!(status(&client.ask(77, &[]).await), OP_UNSUPPORTED);
    assert_eq!(status(&client.extended("x", &[]).await), OP_UNSUPPORTED);
    let odd = [0xff, b'/', 0];
    assert_eq!(status(&client.ask(17, &[string(odd)]).await), FAILURE);
    client.end().await.expect("a good end");

    for (junk, greets) in [
        (string([]), true),
        (string([5, 0, 0]), true),
        (string([1, 0, 0, 0, 3]), true),
        (int(u32::MAX), true),
        (int(257 * 1024 + 1), true),
        (vec![0, 0, 0, 9, 1], true),
        (b"SSH-2.0-x\r\n".to_vec(), false),
        (string([3, 0, 0, 0, 1]), false),
        (string([1, 0, 0]), false),
        (vec![0, 0], false),
    ] {
        let mut client = Client::new();
        if greets {
            client.begin().await;
        }
        client.to.write_all(&junk).await.expect("sent");
        assert!(client.end().await.is_err(), "{junk:?}");
    }
    Client::new().end().await.expect("nothing is no junk");
}

#[tokio::test]
async fn what_was_asked_before_the_end_is_answered() {
    let mut client = Client::open().await;
    for _ in 0..30 {
        client.send(17, &[string("data/a")]).await;
    }
    let Client { to, mut from, server, root: _root, .. } = client;
    drop(to);
    let mut answers = Vec::new();
    from.read_to_end(&mut answers).await.expect("read");
    assert_eq!(strings(&answers).len(), 30);
    server.await.expect("no panic").expect("a good end");

    let client = Client::open().await;
    let Client { mut to, from, server, root: _root, .. } = client;
    drop(from);
    to.write_all(&string([&[17][..], &int(1), &string(".")].concat())).await.expect("sent");
    assert!(server.await.expect("no panic").is_err(), "there is nobody to be answered");
}

#[tokio::test]
async fn whose_caller_has_many_clients_has_few_requests_at_once() {
    let root = tempfile::tempdir().expect("a directory");
    // Of the longest names, so that what is answered is no shorter than what is asked.
    let request = [&[17][..], &int(7), &string([b'x'; 200])].concat();
    let request = [&int(request.len() as u32)[..], &request].concat();
    for (requests, least) in [(MIN_REQUESTS, 1), (MAX_REQUESTS, MAX_REQUESTS)] {
        // Answers find no memory, and only one request fits on its way to the server.
        let ((mut to, input), (_from, output)) =
            (tokio::io::duplex(request.len()), tokio::io::duplex(1));
        let options = Options::default();
        let _server =
            tokio::spawn(serve(files(&root), alice(), options, input, output, requests, memory()));
        to.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).await.expect("sent");
        let mut taken = 0;
        while let Ok(sent) = timeout(Duration::from_secs(2), to.write_all(&request)).await {
            sent.expect("sent");
            taken += 1;
        }
        // Beside these, what is on its way, and what is read and waits.
        assert!((least..=requests + 2).contains(&taken), "{taken} of {requests}");
    }
}

/// A client that has opened `file`, with the rest of what is to be sent and read.
async fn opened(root: &TempDir, budget: &MemoryBudget) -> (DuplexStream, DuplexStream, Vec<u8>) {
    let ((mut to, input), (mut from, output)) = (tokio::io::duplex(4096), tokio::io::duplex(4096));
    let (files, options) = (files(root), Options::default());
    tokio::spawn(serve(files, alice(), options, input, output, MAX_REQUESTS, budget.clone()));
    to.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).await.expect("sent");
    let open = [&[3][..], &int(1), &string("file"), &int(1), &int(0)].concat();
    to.write_all(&string(open)).await.expect("sent");
    assert_eq!(answered(&mut from).await.0, 2, "the version");
    let (kind, members) = answered(&mut from).await;
    assert_eq!(kind, 102, "a handle");
    (to, from, members[4..].to_vec())
}

async fn answered(from: &mut DuplexStream) -> Answered {
    let length = from.read_u32().await.expect("an answer");
    let kind = from.read_u8().await.expect("an answer");
    let mut members = vec![0; length as usize - 1];
    from.read_exact(&mut members).await.expect("an answer");
    (kind, members)
}

fn read(handle: &[u8]) -> Vec<u8> {
    string([&[5][..], &int(2), handle, &long(0), &int(256 << 10)].concat())
}

#[tokio::test(start_paused = true)]
async fn data_that_a_callers_clients_do_not_take_is_bounded_together() {
    let root = tempfile::tempdir().expect("a directory");
    fs::write(root.path().join("file"), vec![7; 1 << 20]).expect("written");
    let budget = MemoryBudget::new(256 << 10);
    let (mut first, unread, handle) = opened(&root, &budget).await;
    for _ in 0..2 {
        first.write_all(&read(&handle)).await.expect("sent");
    }
    let (mut second, mut answers, handle) = opened(&root, &budget).await;
    while budget.available() > 0 {
        tokio::task::yield_now().await;
    }
    second.write_all(&read(&handle)).await.expect("sent");
    let (kind, members) = answered(&mut answers).await;
    assert_eq!(kind, 101, "a status");
    let message = String::from_utf8_lossy(&members);
    assert!(message.contains("no memory left") || message.contains("of yours"), "{message}");
    drop((first, unread));
    second.write_all(&read(&handle)).await.expect("sent");
    assert_eq!(answered(&mut answers).await.0, 103, "data");
}
