//! A server on a free port, and a client.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use russh::client::{self, AuthResult, DisconnectReason, Msg};
use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg};
use splengine_core::engine::EngineBuilder;
use splengine_core::files::FilePolicy;
use splengine_core::session::{SessionInfo, SessionPolicy};
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_ssh::{HostKeys, SshServer, SshServerBuilder, Users};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// After so long, what was waited for does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How a server is set up.
pub(crate) struct Setup {
    pub(crate) engine: fn(EngineBuilder) -> EngineBuilder,
    pub(crate) users: fn(Users, &Path) -> Users,
    pub(crate) server: fn(SshServerBuilder<Users>) -> SshServerBuilder<Users>,
    pub(crate) has_files: bool,
    pub(crate) files: fn(FilePolicy, &Path) -> FilePolicy,
    /// How long runs have when it is closed.
    pub(crate) grace: Duration,
}

pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) engine: Engine,
    /// Of alice.
    pub(crate) key: Arc<PrivateKey>,
    dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<()>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            engine: |engine| engine,
            users: |users, _| users,
            server: |server| server,
            has_files: true,
            files: |files, _| files,
            grace: Duration::ZERO,
        }
    }
}

impl TestServer {
    pub(crate) async fn open() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn serving(
        server: fn(SshServerBuilder<Users>) -> SshServerBuilder<Users>,
    ) -> Self {
        Self::with(Setup { server, ..Setup::default() }).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let [root, keys] = ["root", "keys"].map(|name| dir.path().join(name));
        for path in [&root, &keys] {
            fs::create_dir(path).expect("made");
        }
        let key = key();
        let policy = SessionPolicy::new().shell(["/bin/sh"]);
        let executor = LocalExecutor::new(&root).expect("set up");
        let mut engine =
            Engine::builder(executor).grace(Duration::from_millis(500)).sessions(policy);
        if setup.has_files {
            let policy = FilePolicy::new();
            engine = engine.files((setup.files)(policy, dir.path()));
        }
        let engine = (setup.engine)(engine).build().expect("built");
        let users = Users::new().authorized_keys(&keys);
        let users = (setup.users)(users, dir.path());
        let host = HostKeys::open_or_create(dir.path().join("host_key")).expect("made");
        let builder = (setup.server)(SshServer::builder(engine.clone()).users(users));
        let server = builder.bind("127.0.0.1:0", &host).await.expect("bound");
        let addr = server.local_addr().tcp().expect("of TCP");
        let (stop, stopped) = oneshot::channel::<()>();
        let (draining, grace) = (engine.clone(), setup.grace);
        let ended = tokio::spawn(server.run_until(async move {
            let _ = stopped.await;
            draining.drain(grace).await;
        }));
        let server = Self { addr, engine, key, dir, stop: Some(stop), ended };
        server.let_in("alice", &server.key, "");
        server
    }

    /// Writes the keys of `user`: this one, with `options` in front.
    pub(crate) fn let_in(&self, user: &str, key: &PrivateKey, options: &str) {
        let line = format!("{options} {}\n", public(key));
        fs::write(self.dir.path().join("keys").join(user), line).expect("written");
    }

    /// A key with which `user` gets in.
    pub(crate) fn new_user(&self, user: &str, options: &str) -> Arc<PrivateKey> {
        let key = key();
        self.let_in(user, &key, options);
        key
    }

    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) async fn socket(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).await.expect("connects");
        stream.set_nodelay(true).expect("set");
        stream
    }

    /// One whose own address is this one of loopback's.
    pub(crate) async fn socket_from(&self, source: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("made");
        socket.bind((source, 0).into()).expect("bound");
        socket.connect(self.addr).await.expect("connects")
    }

    /// A client that has not logged in.
    pub(crate) async fn connect(&self) -> Client {
        self.connect_with(client::Config::default()).await
    }

    pub(crate) async fn connect_with(&self, config: client::Config) -> Client {
        Client::begin(config, self.socket().await).await.expect("a handshake")
    }

    /// As alice.
    pub(crate) async fn login(&self) -> Client {
        self.login_as("alice", &self.key).await
    }

    pub(crate) async fn login_as(&self, user: &str, key: &Arc<PrivateKey>) -> Client {
        let mut client = self.connect().await;
        assert!(client.shows(user, key).await, "{user} is let in");
        client
    }

    pub(crate) fn sessions(&self, user: &str) -> Vec<SessionInfo> {
        let caller = Caller::new(user).expect("a name").with_all_scopes();
        self.engine.sessions().list(&caller)
    }

    pub(crate) fn close(&mut self) {
        self.stop.take().expect("once").send(()).expect("it serves");
    }

    pub(crate) async fn ended(self) {
        timeout(PATIENCE, self.ended).await.expect("in time").expect("no panic");
    }
}

pub(crate) fn key() -> Arc<PrivateKey> {
    Arc::new(PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("a key"))
}

pub(crate) fn public(key: &PrivateKey) -> String {
    key.public_key().to_openssh().expect("a key has a text")
}

/// What comes until the server closes the connection.
pub(crate) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    // It may be reset, where it was closed with something unread.
    drop(end.expect("closed in time"));
    all
}

/// Waits until `is` holds.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// Waits until there is no process `pid`.
pub(crate) async fn gone(pid: &str) {
    assert!(!pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()), "no number");
    let stat = Path::new("/proc").join(pid).join("stat");
    // One whose parent was killed may lie there until somebody reaps it.
    let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    until("a process is gone", is_gone).await;
}

/// What a client's connection tells beside its channels.
pub(crate) struct Trusting {
    over: watch::Sender<Option<String>>,
    exchanges: Arc<AtomicUsize>,
}

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        _: &russh::Names,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.exchanges.fetch_add(1, Relaxed);
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<russh::Error>,
    ) -> Result<(), russh::Error> {
        let words = match &reason {
            DisconnectReason::ReceivedDisconnect(info) => info.message.clone(),
            DisconnectReason::Error(error) => error.to_string(),
        };
        self.over.send_replace(Some(words));
        Ok(())
    }
}

pub(crate) struct Client {
    pub(crate) handle: client::Handle<Trusting>,
    over: watch::Receiver<Option<String>>,
    /// How often keys were agreed on.
    pub(crate) exchanges: Arc<AtomicUsize>,
}

impl Client {
    pub(crate) async fn begin<S>(config: client::Config, stream: S) -> Result<Self, russh::Error>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (told, over) = watch::channel(None);
        let exchanges = Arc::new(AtomicUsize::new(0));
        let handler = Trusting { over: told, exchanges: Arc::clone(&exchanges) };
        let handle = client::connect_stream(Arc::new(config), stream, handler).await?;
        Ok(Self { handle, over, exchanges })
    }

    /// Whether `key` lets it in as `user`.
    pub(crate) async fn shows(&mut self, user: &str, key: &Arc<PrivateKey>) -> bool {
        let key = PrivateKeyWithHashAlg::new(Arc::clone(key), None);
        let shown = timeout(PATIENCE, self.handle.authenticate_publickey(user, key)).await;
        matches!(shown.expect("an answer"), Ok(AuthResult::Success))
    }

    pub(crate) async fn channel(&self) -> Channel<Msg> {
        self.try_channel().await.expect("a channel")
    }

    pub(crate) async fn try_channel(&self) -> Result<Channel<Msg>, russh::Error> {
        timeout(PATIENCE, self.handle.channel_open_session()).await.expect("an answer")
    }

    /// A channel on which `command` runs.
    pub(crate) async fn start(&self, command: impl Into<Vec<u8>>) -> Running {
        let mut running = Running(self.channel().await);
        running.0.exec(true, command).await.expect("sent");
        assert!(running.is_granted().await);
        running
    }

    /// Runs `command` to its end, with nothing on its standard input.
    pub(crate) async fn run(&self, command: impl Into<Vec<u8>>) -> Ran {
        let running = self.start(command).await;
        running.0.eof().await.expect("sent");
        running.ended().await
    }

    /// The words with which its connection was closed.
    pub(crate) async fn over(&mut self) -> String {
        let over = timeout(PATIENCE, self.over.wait_for(Option::is_some)).await;
        over.expect("in time").expect("it says so").clone().unwrap_or_default()
    }
}

/// A channel on which something runs.
pub(crate) struct Running(pub(crate) Channel<Msg>);

/// What it has told, all of it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ran {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// A number, or the name of a signal.
    pub(crate) exit: Option<String>,
}

impl Running {
    pub(crate) async fn next(&mut self) -> Option<ChannelMsg> {
        timeout(PATIENCE, self.0.wait()).await.expect("something in time")
    }

    /// Whether what was asked for is done.
    pub(crate) async fn is_granted(&mut self) -> bool {
        loop {
            match self.next().await {
                Some(ChannelMsg::Success) => return true,
                Some(ChannelMsg::Failure) => return false,
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                other => panic!("no answer but {other:?}"),
            }
        }
    }

    /// Reads until what was printed holds `needle`, and gives all of it.
    pub(crate) async fn shows(&mut self, needle: &str) -> String {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(needle) {
            let next = timeout(PATIENCE, self.0.wait()).await;
            let seen_yet = || String::from_utf8_lossy(&seen);
            match next.unwrap_or_else(|_| panic!("no {needle:?} in {:?}", seen_yet())) {
                Some(ChannelMsg::Data { data }) => seen.extend_from_slice(&data),
                Some(ChannelMsg::ExtendedData { data, .. }) => seen.extend_from_slice(&data),
                None | Some(ChannelMsg::Close) => {
                    panic!("closed before {needle:?}: {}", String::from_utf8_lossy(&seen))
                }
                Some(_) => {}
            }
        }
        String::from_utf8(seen).expect("UTF-8")
    }

    /// The first line of what is printed. More may come with it, and is lost.
    pub(crate) async fn line(&mut self) -> String {
        self.shows("\n").await.lines().next().unwrap_or_default().to_owned()
    }

    pub(crate) async fn types(&self, data: impl Into<Vec<u8>>) {
        self.0.data_bytes(data.into()).await.expect("sent");
    }

    /// Reads to the end, which comes as it must: first all output, then how it ended, once, then
    /// the end of output, then the channel's.
    pub(crate) async fn ended(mut self) -> Ran {
        let mut ran = Ran::default();
        let mut is_eof = false;
        loop {
            let message = self.next().await;
            match message {
                Some(ChannelMsg::Data { data }) if ran.exit.is_none() => {
                    ran.stdout.extend_from_slice(&data);
                }
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) if ran.exit.is_none() => {
                    ran.stderr.extend_from_slice(&data);
                }
                Some(ChannelMsg::ExitStatus { exit_status }) if ran.exit.is_none() => {
                    ran.exit = Some(exit_status.to_string());
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) if ran.exit.is_none() => {
                    ran.exit = Some(format!("{signal_name:?}"));
                }
                Some(ChannelMsg::Eof) if ran.exit.is_some() && !is_eof => is_eof = true,
                Some(ChannelMsg::Close) => {
                    assert!(is_eof, "closed before its end");
                    return ran;
                }
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                other => panic!("out of order: {other:?} after {:?}", ran.exit),
            }
        }
    }
}

impl Ran {
    /// Standard output, standard error, and the end.
    pub(crate) fn told(&self) -> (&str, &str, &str) {
        let text = |bytes| str::from_utf8(bytes).expect("UTF-8");
        (text(&self.stdout), text(&self.stderr), self.exit.as_deref().unwrap_or("no end"))
    }
}
