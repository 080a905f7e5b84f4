//! Files, by packets of SFTP as they are.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::UNIX_EPOCH;

use russh::{ChannelMsg, SshId, client};
use splengine_core::engine::EngineBuilder;
use splengine_core::files::FilePolicy;

use crate::support::{Client, Running, Setup, TestServer};

/// A packet of SFTP, made of its parts.
fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 1).expect("short");
    [&length.to_be_bytes()[..], &[kind], &body].concat()
}

fn string(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).expect("short").to_be_bytes()[..], text].concat()
}

struct Sftp {
    running: Running,
    came: Vec<u8>,
}

impl Sftp {
    /// As alice.
    async fn open(server: &TestServer) -> Self {
        Self::by(&server.login().await).await
    }

    async fn by(client: &Client) -> Self {
        let mut running = Running(client.channel().await);
        running.0.request_subsystem(true, "sftp").await.expect("sent");
        assert!(running.is_granted().await);
        let mut sftp = Self { running, came: Vec::new() };
        sftp.send(1, &[&3_u32.to_be_bytes()]).await;
        let (kind, version) = sftp.next().await;
        assert_eq!((kind, &version[..4]), (2, &3_u32.to_be_bytes()[..]));
        sftp
    }

    async fn send(&self, kind: u8, parts: &[&[u8]]) {
        self.running.types(packet(kind, parts)).await;
    }

    /// The next packet: its kind, and the rest.
    async fn next(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some((length, rest)) = self.came.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    let body = rest[1..length].to_vec();
                    let kind = rest[0];
                    self.came.drain(..4 + length);
                    return (kind, body);
                }
            }
            match self.running.next().await {
                Some(ChannelMsg::Data { data }) => self.came.extend_from_slice(&data),
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                other => panic!("no data: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn files_go_both_ways() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let mut running = Running(client.channel().await);
    running.0.request_subsystem(true, "sftp").await.expect("sent");
    assert!(running.is_granted().await);
    let mut sftp = Sftp { running, came: Vec::new() };
    sftp.send(1, &[&3_u32.to_be_bytes()]).await;
    let (kind, version) = sftp.next().await;
    assert_eq!((kind, &version[..4]), (2, &3_u32.to_be_bytes()[..]));
    let id = 7_u32.to_be_bytes();
    // Read, write, create; no attributes.
    let name = string(server.root().join("new.bin").as_os_str().as_encoded_bytes());
    sftp.send(3, &[&id, &name, &0b1011_u32.to_be_bytes(), &[0; 4]]).await;
    let (kind, handle) = sftp.next().await;
    assert_eq!((kind, &handle[..4]), (102, &id[..]));
    let handle = handle[4..].to_vec();
    let data: Vec<u8> = (0..30_000).map(|i| (i % 253) as u8).collect();
    for offset in [0_u64, 30_000] {
        sftp.send(6, &[&id, &handle, &offset.to_be_bytes(), &string(&data)]).await;
        let (kind, status) = sftp.next().await;
        assert_eq!((kind, &status[..8]), (101, &[&id[..], &[0; 4]].concat()[..]));
    }
    let most = 20_000_u32.to_be_bytes();
    sftp.send(5, &[&id, &handle, &25_000_u64.to_be_bytes(), &most]).await;
    let (kind, read) = sftp.next().await;
    assert_eq!(kind, 103);
    assert!(read[8..] == [&data[25_000..], &data[..15_000]].concat(), "{}", read.len());
    sftp.send(4, &[&id, &handle]).await;
    assert_eq!(sftp.next().await.0, 101);
    assert!(fs::read(server.root().join("new.bin")).expect("there") == data.repeat(2));
    // Nothing outside.
    fs::write(server.root().join("../outside"), "x").expect("written");
    sftp.send(3, &[&id, &string(b"/../outside"), &1_u32.to_be_bytes(), &[0; 4]]).await;
    let (kind, status) = sftp.next().await;
    assert_eq!(kind, 101);
    assert_ne!(status[4..8], [0; 4]);
    sftp.running.0.eof().await.expect("sent");
    assert_eq!(sftp.running.ended().await.told(), ("", "", "0"));
}

#[tokio::test]
async fn a_write_beyond_the_quota_is_refused_in_words() {
    let files = |policy: FilePolicy, _: &Path| policy.max_caller_bytes(8192);
    let server = TestServer::with(Setup { files, ..Setup::default() }).await;
    let mut sftp = Sftp::open(&server).await;
    let id = 7_u32.to_be_bytes();
    sftp.send(3, &[&id, &string(b"a"), &0b1010_u32.to_be_bytes(), &[0; 4]]).await;
    let (kind, handle) = sftp.next().await;
    assert_eq!(kind, 102);
    for (offset, code) in [(0_u64, 0_u8), (4096, 4), (1, 0)] {
        sftp.send(6, &[&id, &handle[4..], &offset.to_be_bytes(), &string(b"data")]).await;
        let (kind, status) = sftp.next().await;
        assert_eq!((kind, status[7]), (101, code), "{offset}");
        let told = String::from_utf8_lossy(&status);
        assert_eq!(told.contains("may hold 8192 bytes"), code != 0, "{told}");
    }
    sftp.send(14, &[&id, &string(b"d"), &[0; 4]]).await;
    assert_eq!(sftp.next().await.1[7], 4);
    sftp.send(13, &[&id, &string(b"a")]).await;
    assert_eq!(sftp.next().await.1[7], 0);
    sftp.send(4, &[&id, &handle[4..]]).await;
    assert_eq!(sftp.next().await.1[7], 0);
    sftp.send(14, &[&id, &string(b"d"), &[0; 4]]).await;
    assert_eq!(sftp.next().await.1[7], 0);
}

#[tokio::test]
async fn who_may_only_look_gets_no_files() {
    let server = TestServer::open().await;
    fs::write(server.root().join("file"), "x").expect("written");
    let key = crate::support::key();
    server.let_in("alice", &key, "view-only");
    let client = server.login_as("alice", &key).await;
    let mut running = Running(client.channel().await);
    running.0.request_subsystem(true, "sftp").await.expect("sent");
    assert!(running.is_granted().await);
    let mut sftp = Sftp { running, came: Vec::new() };
    sftp.send(1, &[&3_u32.to_be_bytes()]).await;
    sftp.next().await;
    let id = 7_u32.to_be_bytes();
    for flags in [1_u32, 0b1010] {
        sftp.send(3, &[&id, &string(b"file"), &flags.to_be_bytes(), &[0; 4]]).await;
        let (kind, status) = sftp.next().await;
        // SSH_FX_PERMISSION_DENIED
        assert_eq!((kind, &status[4..8]), (101, &3_u32.to_be_bytes()[..]));
    }
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_more() {
    let setup = Setup { engine: |engine| engine.disk_floor(u64::MAX), ..Setup::default() };
    let server = TestServer::with(setup).await;
    fs::write(server.root().join("file"), "x").expect("written");
    let mut sftp = Sftp::open(&server).await;
    let id = 7_u32.to_be_bytes();
    for name in ["file", "new"] {
        sftp.send(3, &[&id, &string(name.as_bytes()), &0b1010_u32.to_be_bytes(), &[0; 4]]).await;
        let (mut kind, mut answer) = sftp.next().await;
        if kind == 102 {
            let handle = answer[4..].to_vec();
            sftp.send(6, &[&id, &handle, &0_u64.to_be_bytes(), &string(b"more")]).await;
            (kind, answer) = sftp.next().await;
        }
        // SSH_FX_FAILURE: version 3 has no code of its own for it.
        assert_eq!((kind, &answer[4..8]), (101, &4_u32.to_be_bytes()[..]), "{name}");
        assert!(String::from_utf8_lossy(&answer).contains("nearly full"), "{name}");
    }
    assert_eq!(fs::read_dir(server.root()).expect("read").count(), 1);
}

#[tokio::test]
async fn what_is_protected_is_reached_by_no_name() {
    let setup = Setup {
        files: |files, dir| {
            fs::write(dir.join("root/tokens"), "secret").expect("written");
            fs::create_dir(dir.join("root/keys")).expect("made");
            files.protect(dir.join("root/tokens")).protect(dir.join("root/keys"))
        },
        ..Setup::default()
    };
    let server = TestServer::with(setup).await;
    fs::hard_link(server.root().join("tokens"), server.root().join("second")).expect("linked");
    symlink("keys", server.root().join("link")).expect("linked");
    let mut sftp = Sftp::open(&server).await;
    let id = 7_u32.to_be_bytes();
    for name in ["tokens", "second", "keys/alice", "link/alice"] {
        for flags in [1_u32, 0b1010] {
            let name = string(name.as_bytes());
            sftp.send(3, &[&id, &name, &flags.to_be_bytes(), &[0; 4]]).await;
            let (kind, status) = sftp.next().await;
            assert_eq!(kind, 101);
            // SSH_FX_NO_SUCH_FILE or SSH_FX_PERMISSION_DENIED
            assert!(matches!(status[7], 2 | 3), "{name:?} {flags}");
        }
    }
    assert_eq!(fs::read(server.root().join("tokens")).expect("read"), b"secret");
    assert!(fs::read_dir(server.root().join("keys")).expect("read").next().is_none());
    let client = server.login().await;
    for path in ["tokens", "second", "keys/", "link/", "link/new"] {
        let ran = client.run(format!("rsync --server -e.L . {path}")).await;
        let (_, stderr, exit) = ran.told();
        assert!(stderr.contains("is not there") && exit == "255", "{path}: {stderr} {exit}");
    }
}

#[tokio::test]
async fn what_is_no_sftp_is_said_so() {
    let server = TestServer::open().await;
    let client = server.login().await;
    let mut running = Running(client.channel().await);
    running.0.request_subsystem(true, "sftp").await.expect("sent");
    assert!(running.is_granted().await);
    running.types(b"GET / HTTP/1.1\r\n\r\n").await;
    let ran = running.ended().await;
    let (stdout, stderr, exit) = ran.told();
    assert_eq!((stdout, exit), ("", "1"));
    assert!(!stderr.is_empty());
    assert_eq!(client.run("echo here").await.told().0, "here\n");
}

#[tokio::test]
async fn without_files_there_is_no_subsystem() {
    let server = TestServer::with(Setup { has_files: false, ..Setup::default() }).await;
    let client = server.login().await;
    let mut running = Running(client.channel().await);
    running.0.request_subsystem(true, "sftp").await.expect("sent");
    assert!(!running.is_granted().await);
    running.0.exec(true, "echo here").await.expect("sent");
    assert!(running.is_granted().await);
    assert_eq!(running.ended().await.told().0, "here\n");
}

#[tokio::test]
async fn links_are_made_in_the_order_that_each_client_has() {
    let server = TestServer::open().await;
    for (number, (name, is_link_first)) in [
        ("SSH-2.0-ssh2js1.17.0", true),
        ("SSH-2.0-phpseclib_3.0 (openssl)", true),
        ("SSH-2.0-AsyncSSH_2.21.0", true),
        ("SSH-2.0-OpenSSH_9.2p1", false),
        ("SSH-2.0-libssh2_1.10.0", false),
    ]
    .into_iter()
    .enumerate()
    {
        let client_id = SshId::Standard(name.into());
        let config = client::Config { client_id, ..client::Config::default() };
        let mut client = server.connect_with(config).await;
        assert!(client.shows("alice", &server.key).await);
        let mut sftp = Sftp::by(&client).await;
        let link = format!("link{number}");
        let (first, second) = if is_link_first { (&*link, "target") } else { ("target", &*link) };
        let (id, first, second) = ([0; 4], string(first.as_bytes()), string(second.as_bytes()));
        sftp.send(20, &[&id, &first, &second]).await;
        assert_eq!(sftp.next().await.1[4..8], [0; 4], "{name}");
        assert_eq!(fs::read_link(server.root().join(link)).expect(name), Path::new("target"));
    }
}

/// What a client of the old scp sends and gets on one channel, with each answer that it waits for.
struct Scp(Running, Vec<u8>);

impl Scp {
    async fn start(server: &TestServer, command: impl Into<Vec<u8>>) -> Self {
        Self(server.login().await.start(command).await, Vec::new())
    }

    /// So many bytes, or what there was by the end.
    async fn gets(&mut self, count: usize) -> Vec<u8> {
        while self.1.len() < count {
            match self.0.next().await {
                Some(ChannelMsg::Data { data }) => self.1.extend_from_slice(&data),
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                _ => break,
            }
        }
        let count = count.min(self.1.len());
        self.1.drain(..count).collect()
    }

    async fn sends(&mut self, data: &[u8]) {
        self.0.types(data).await;
        assert_eq!(self.gets(1).await, [0], "{:?}", String::from_utf8_lossy(&self.1));
    }
}

#[tokio::test]
async fn the_old_protocol_of_scp_takes_files_and_directories() {
    let server = TestServer::open().await;
    let root = server.root().canonicalize().expect("there");
    let mut scp = Scp::start(&server, format!("scp -r -p -t {}", root.display())).await;
    assert_eq!(scp.gets(1).await, [0]);
    scp.sends(b"D0755 0 dir\n").await;
    scp.sends(b"T1600000000 0 1600000001 0\n").await;
    scp.sends(b"C0640 5 a b\n").await;
    scp.sends(b"12345\0").await;
    scp.sends(b"E\n").await;
    scp.sends(b"C0644 0 empty\n").await;
    scp.sends(b"\0").await;
    scp.0.0.eof().await.expect("sent");
    assert_eq!(scp.0.ended().await.told(), ("", "", "0"));
    let info = fs::metadata(root.join("dir/a b")).expect("there");
    assert_eq!(fs::read(root.join("dir/a b")).expect("read"), b"12345");
    assert_eq!(info.permissions().mode() & 0o777, 0o640);
    let age = info.modified().expect("known").duration_since(UNIX_EPOCH).expect("later");
    assert_eq!(age.as_secs(), 1_600_000_000);
    assert_eq!(fs::read(root.join("empty")).expect("read"), b"");
    // Some say nothing after the last byte of a file.
    let mut scp = Scp::start(&server, "scp -t last").await;
    assert_eq!(scp.gets(1).await, [0]);
    scp.sends(b"C0644 4 x\n").await;
    scp.0.types(b"1234").await;
    scp.0.0.eof().await.expect("sent");
    assert_eq!(scp.gets(1).await, [0]);
    assert_eq!(scp.0.ended().await.told(), ("", "", "0"));
    assert_eq!(fs::read(root.join("last")).expect("read"), b"1234");
    // What ends in the midst of one does not hang.
    let mut scp = Scp::start(&server, "scp -t half").await;
    assert_eq!(scp.gets(1).await, [0]);
    scp.sends(b"C0644 4 x\n").await;
    scp.0.types(b"12").await;
    scp.0.0.eof().await.expect("sent");
    assert_eq!(scp.gets(1).await, [2]);
    assert_eq!(scp.0.ended().await.told().2, "1");
    // What can't be is told by byte 1, or 2 where nothing goes on.
    for (command, line, code) in [
        ("scp -t /etc", &b"C0644 1 x\n"[..], 1),
        ("scp -t .", b"C0644 1 ../x\n", 2),
        ("scp -t .", b"D0755 0 x\n", 2),
        ("scp -t -d none", b"", 1),
    ] {
        let mut scp = Scp::start(&server, command).await;
        if !line.is_empty() {
            assert_eq!(scp.gets(1).await, [0]);
            scp.0.types(line).await;
        }
        assert_eq!(scp.gets(1).await, [code], "{command}");
        scp.0.0.eof().await.expect("sent");
        assert_eq!(scp.0.ended().await.told().2, "1", "{command}");
    }
    assert!(!root.join("../x").exists() && !root.join("x").exists());
}

#[tokio::test]
async fn the_old_protocol_of_scp_gives_files_and_directories() {
    let server = TestServer::open().await;
    fs::create_dir(server.root().join("dir")).expect("made");
    for (name, content) in [("dir/a.log", "one"), ("dir/b.log", "two!"), ("dir/c", "")] {
        fs::write(server.root().join(name), content).expect("written");
        fs::set_permissions(server.root().join(name), fs::Permissions::from_mode(0o640))
            .expect("set");
    }
    let mut scp = Scp::start(&server, "scp -f dir/*.log").await;
    for (line, content) in [("C0640 3 a.log\n", "one\0"), ("C0640 4 b.log\n", "two!\0")] {
        scp.0.types(b"\0").await;
        assert_eq!(scp.gets(line.len()).await, line.as_bytes());
        scp.0.types(b"\0").await;
        assert_eq!(scp.gets(content.len()).await, content.as_bytes());
    }
    scp.0.types(b"\0").await;
    assert_eq!(scp.0.ended().await.told(), ("", "", "0"));
    fs::set_permissions(server.root().join("dir"), fs::Permissions::from_mode(0o750)).expect("set");
    let mut scp = Scp::start(&server, "scp -r -f 'dir'").await;
    scp.0.types([0; 20]).await;
    let whole = scp.gets(usize::MAX).await;
    let whole = String::from_utf8(whole).expect("text");
    assert!(whole.starts_with("D0750 0 dir\n") && whole.ends_with("E\n"), "{whole:?}");
    assert!(whole.contains("C0640 4 b.log\ntwo!\0"), "{whole:?}");
    for (command, words) in [
        ("scp -f /etc/passwd", "passwd"),
        ("scp -f dir", "is a directory"),
        ("scp -f 'dir/*.log'", "*.log"),
        ("scp -f ../x", "../x"),
    ] {
        let mut scp = Scp::start(&server, command).await;
        scp.0.types(b"\0").await;
        let told = String::from_utf8(scp.gets(usize::MAX).await).expect("text");
        assert!(told.starts_with("\u{1}scp: ") && told.contains(words), "{told:?}");
    }
    let server = TestServer::serving(|server| server.serve_scp(false)).await;
    let mut scp = Scp::start(&server, "scp -f dir").await;
    let told = String::from_utf8(scp.gets(usize::MAX).await).expect("text");
    assert!(told.starts_with("\u{2}scp: ") && told.contains("-O"), "{told:?}");
}

/// Of one copy alone, too: there is no largest number of names that it may have.
#[tokio::test]
async fn names_that_wait_to_be_copied_take_no_more_memory_than_a_caller_may_have() {
    let engine = |engine: EngineBuilder| engine.max_buffered_bytes(1 << 20);
    let server = TestServer::with(Setup { engine, ..Setup::default() }).await;
    for (name, count) in [("many", 3000), ("few", 1000)] {
        let directory = server.root().join(name);
        fs::create_dir(&directory).expect("made");
        for number in 0..count {
            fs::write(directory.join(format!("{number:0250}")), "").expect("written");
        }
    }
    let told = async |command: String| {
        let mut scp = Scp::start(&server, command).await;
        scp.0.types(b"\0").await;
        scp.0.0.eof().await.expect("sent");
        String::from_utf8(scp.gets(usize::MAX).await).expect("text")
    };
    // A caller may have half of a MiB; what lies below a name counts as well.
    let below = format!("scp -f few/*/{}", "x".repeat(200));
    for command in ["scp -r -f many".to_owned(), "scp -f many/*".to_owned(), below] {
        let told = told(command.clone()).await;
        assert!(told.starts_with("\u{1}scp: "), "{command}: {}", &told[..told.len().min(300)]);
        assert!(told.contains("more names than there is memory for"), "{command}");
    }
    for command in ["scp -r -f few", "scp -f few/*"] {
        let told = told(command.to_owned()).await;
        assert!(told.starts_with(['D', 'C']), "{command}: {}", &told[..told.len().min(300)]);
    }
}

#[tokio::test]
async fn copied_names_need_not_be_utf8() {
    let server = TestServer::open().await;
    let root = server.root();
    let mut scp = Scp::start(&server, &b"scp -t ."[..]).await;
    assert_eq!(scp.gets(1).await, [0]);
    scp.sends(b"C0640 2 caf\xe9\n").await;
    scp.sends(b"ok\0").await;
    scp.0.0.eof().await.expect("sent");
    assert_eq!(scp.0.ended().await.told(), ("", "", "0"));
    assert_eq!(fs::read(root.join(OsStr::from_bytes(b"caf\xe9"))).expect("read"), b"ok");
    // By its name, and by a pattern.
    for command in [&b"scp -f caf\xe9"[..], b"scp -f caf?"] {
        let mut scp = Scp::start(&server, command).await;
        scp.0.types([0; 3]).await;
        assert_eq!(scp.gets(usize::MAX).await, b"C0640 2 caf\xe9\nok\0");
    }
    fs::write(root.join("rsync"), "#!/bin/sh\nshift\nprintf '%s\\n' \"$@\"\n").expect("written");
    fs::set_permissions(root.join("rsync"), fs::Permissions::from_mode(0o755)).expect("set");
    let client = server.login().await;
    let ran = client.run(&b"./rsync --server --sender . ca*"[..]).await;
    assert_eq!(ran.stdout, b"--sender\n.\ncaf\xe9\n");
    let ran = client.run(&b"./rsync --server --link-dest=../\xe9 . ca"[..]).await;
    let (stdout, stderr, exit) = ran.told();
    assert_eq!((stdout, exit), ("", "255"));
    assert!(stderr.contains("outside root"), "{stderr}");
    let running = client.start("./rsync --server --sender -slogDtpre.iLsfxCIvu").await;
    running.types(b"rsync\0.\0caf\xe9\0\0").await;
    running.0.eof().await.expect("sent");
    assert_eq!(running.ended().await.stdout, b"--sender\n-logDtpre.iLsfxCIvu\n.\ncaf\xe9\n");
}

#[tokio::test]
async fn rsync_takes_commands_and_files_of_one_root() {
    let server = TestServer::with(Setup {
        files: |files, dir| {
            fs::create_dir(dir.join("root/out")).expect("made");
            files.root(dir.join("root/out"))
        },
        ..Setup::default()
    });
    let server = server.await;
    let client = server.login().await;
    for words in ["--sender -e.L . a", "-e.L . .", "-e.L . out/a"] {
        let ran = client.run(format!("rsync --server {words}")).await;
        let (stdout, stderr, exit) = ran.told();
        assert!(stderr.contains("another root"), "{words}: {stdout} {stderr}");
        assert_ne!(exit, "0");
    }
}

#[tokio::test]
async fn paths_of_rsync_are_below_root() {
    let server = TestServer::open().await;
    let root = server.root().canonicalize().expect("there");
    fs::create_dir_all(root.join("day1")).expect("made");
    symlink("/etc", root.join("out")).expect("linked");
    fs::write(root.join("rsync"), "#!/bin/sh\nshift\nprintf '%s\\n' \"$@\"\n").expect("written");
    fs::set_permissions(root.join("rsync"), fs::Permissions::from_mode(0o755)).expect("set");
    for name in ["day1/a.log", "day1/b.log", "day1/c"] {
        fs::write(root.join(name), "").expect("written");
    }
    let client = server.login().await;
    let day1 = root.join("day1");
    let day1 = day1.to_str().expect("text");
    for (words, got) in [
        (
            format!("--sender -e.L . day1/*.log {day1}/c"),
            format!("--sender -e.L . day1/a.log day1/b.log {day1}/c"),
        ),
        ("--sender . 'day1/*.log'".to_owned(), "--sender . day1/*.log".to_owned()),
        ("--link-dest ../day1 . day2/".to_owned(), "--link-dest ../day1 . day2/".to_owned()),
        (format!("--backup-dir={day1} . day2"), format!("--backup-dir={day1} . day2")),
        // No option, though it looks like one.
        ("--sender . --log-file=/x".to_owned(), "--sender . ./--log-file=/x".to_owned()),
    ] {
        let ran = client.run(format!("./rsync --server {words}")).await;
        let (stdout, stderr, exit) = ran.told();
        assert_eq!((stdout.trim_end().replace('\n', " ").as_str(), exit), (&*got, "0"), "{stderr}");
    }
    // The arguments by standard input.
    let running = client.start("./rsync --server --sender -slogDtpre.iLsfxCIvu").await;
    running.types(b"rsync\0.\0day1/*.log\0\0").await;
    running.0.eof().await.expect("sent");
    let ran = running.ended().await;
    assert_eq!(ran.told().0, "--sender\n-logDtpre.iLsfxCIvu\n.\nday1/a.log\nday1/b.log\n");
    for words in [
        ". /etc",
        ". ../x",
        ". day1/../../x",
        ". out/passwd",
        "--link-dest ../../x . day1/",
        "--link-dest=/etc . day1/",
        "--log-file=/etc/x . day1/",
        "--temp-dir ../out . day1/",
        "--backup-dir ../x . none",
        "-T /tmp . day1/",
    ] {
        let ran = client.run(format!("./rsync --server {words}")).await;
        let (stdout, stderr, exit) = ran.told();
        assert_eq!((stdout, exit), ("", "255"), "{words}: {stderr}");
        assert!(stderr.contains("outside root"), "{words}: {stderr}");
    }
    for option in
        ["-T/tmp", "-logDT..", "--filter='merge /x'", "--filter 'merge /x'", "'-f. /x'", "-f.x"]
    {
        let ran = client.run(format!("./rsync --server {option} . day1/")).await;
        let (stdout, stderr, exit) = ran.told();
        assert_eq!((stdout, exit), ("", "255"), "{option}: {stderr}");
        assert!(stderr.contains("is not taken here"), "{option}: {stderr}");
    }
}
