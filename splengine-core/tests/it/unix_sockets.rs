//! UNIX sockets: their files, and the bounds on those who connect.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;
use splengine_core::auth::{
    AuthError, Authenticator, CredentialKind, CredentialSource, Credentials, Secret, StaticTokens,
    UnixPeer,
};
use splengine_core::net::{
    BindError, ConnectionLimits, ListenAddr, Listener, Peer, serve_connections,
};
use splengine_core::{Caller, Engine, LocalExecutor};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::skipped::{Need, skip};

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory in which other users find a socket.
fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let path = directory.path().join("engine.sock");
    (directory, path)
}

fn in_use(bound: Result<Listener, BindError>) -> String {
    let error = bound.expect_err("it is in use");
    assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse, "{error}");
    format!("{error}: {}", error.source)
}

/// Connects as another user, which takes being root.
fn connect_as(uid: u32, path: &Path) -> StdStream {
    let path = path.to_owned();
    let connecting = std::thread::spawn(move || {
        // Of this thread alone.
        let uid = Uid::from_raw(uid);
        set_thread_res_uid(uid, uid, uid).expect("this is root");
        StdStream::connect(path).expect("connects")
    });
    connecting.join().expect("no panic")
}

fn tokio_stream(stream: StdStream) -> UnixStream {
    stream.set_nonblocking(true).expect("set");
    UnixStream::from_std(stream).expect("a socket")
}

const NOBODY: u32 = 65_534;

async fn is_closed(stream: &mut UnixStream) {
    let read = timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

async fn says(stream: &mut UnixStream, byte: u8) {
    stream.write_all(&[byte]).await.expect("sent");
    let answer = timeout(PATIENCE, stream.read_u8()).await.expect("in time");
    assert_eq!(answer.expect("answered"), byte);
}

#[tokio::test]
async fn a_socket_has_its_permissions_and_goes_with_its_listener() {
    let (_directory, path) = directory();
    for mode in [0o600, 0o666] {
        let listener = Listener::bind_unix(&path, mode).await.expect("bound");
        assert_eq!(listener.local_addr().expect("bound"), ListenAddr::Unix(path.clone()));
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, mode);
        drop(listener);
        assert!(!path.exists());
    }
    // What has taken its place is not removed.
    let listener = Listener::bind_unix(&path, 0o600).await.expect("bound");
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "another's").expect("written");
    drop(listener);
    assert_eq!(fs::read_to_string(&path).expect("there"), "another's");
}

#[tokio::test]
async fn a_socket_is_replaced_only_if_nobody_listens_on_it() {
    let (_directory, path) = directory();
    // As a process leaves it that was killed.
    drop(StdListener::bind(&path).expect("bound"));
    assert!(path.exists());
    let listener = Listener::bind_unix(&path, 0o600).await.expect("bound");

    let error = in_use(Listener::bind_unix(&path, 0o600).await);
    assert_eq!(error, format!("can't listen on unix:{}: somebody listens there", path.display()));
    StdStream::connect(&path).expect("it is the first one's still");
    drop(listener);

    fs::write(&path, "a file").expect("written");
    let error = in_use(Listener::bind_unix(&path, 0o600).await);
    assert!(error.ends_with("there is a file that is no socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("there"), "a file");

    let nowhere = path.join("x").join("engine.sock");
    Listener::bind_unix(&nowhere, 0o600).await.expect_err("there is no such directory");
    let long = path.with_file_name("x".repeat(200));
    Listener::bind_unix(&long, 0o600).await.expect_err("it is too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_one_gets_the_address() {
    let (_directory, path) = directory();
    drop(StdListener::bind(&path).expect("bound"));
    let all: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { Listener::bind_unix(&path, 0o600).await })
        })
        .collect();
    let mut bound = Vec::new();
    for one in all {
        bound.extend(one.await.expect("no panic").ok());
    }
    assert_eq!(bound.len(), 1);
    StdStream::connect(&path).expect("somebody listens");
}

#[tokio::test]
async fn connections_are_served_to_the_end() {
    let (_directory, path) = directory();
    let listener = Listener::bind_unix(&path, 0o600).await.expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let peers = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&peers);
    let serving = tokio::spawn(serve_connections(
        listener,
        ConnectionLimits::new(),
        PATIENCE,
        shutdown,
        move |mut connection, mut closing| {
            told.lock().expect("no panic").push(connection.peer().expect("known"));
            Some(async move {
                let first = connection.read_u8().await?;
                connection.write_all(&[first]).await?;
                closing.closed().await;
                connection.write_all(b"bye").await
            })
        },
    ));
    let mut client = UnixStream::connect(&path).await.expect("connects");
    says(&mut client, b'1').await;
    stop.send(()).expect("it serves");
    let mut last = String::new();
    timeout(PATIENCE, client.read_to_string(&mut last)).await.expect("in time").expect("read");
    assert_eq!(last, "bye");
    timeout(PATIENCE, serving).await.expect("in time").expect("no panic");
    assert!(!path.exists());
    let peers = peers.lock().expect("no panic");
    let [Peer::Unix(peer)] = peers[..] else { panic!("{peers:?}") };
    let pid = std::process::id();
    assert_eq!((peer.uid, peer.pid), (geteuid().as_raw(), Some(pid)));
    assert_eq!(peers[0].credential_source("test").unix_peer(), Some(peer));
    assert_eq!(peers[0].credential_source("test").address(), None);
}

/// What serves a connection, while it does not read: whoever leaves is found out all the same.
#[tokio::test]
async fn peers_that_left_are_noticed() {
    struct Gone(Option<oneshot::Sender<()>>);

    impl Drop for Gone {
        fn drop(&mut self) {
            drop(self.0.take());
        }
    }

    let (_directory, path) = directory();
    let listener = Listener::bind_unix(&path, 0o600).await.expect("bound");
    let (gone, is_gone) = oneshot::channel::<()>();
    let mut gone = Some(Gone(Some(gone)));
    tokio::spawn(serve_connections(
        listener,
        ConnectionLimits::new(),
        PATIENCE,
        std::future::pending(),
        move |mut connection, _| {
            let gone = gone.take();
            Some(async move {
                let _gone = gone;
                connection.handle().allow_half_close();
                let activity = connection.handle().begin();
                connection.write_all(b"!").await?;
                std::future::pending::<()>().await;
                drop(activity);
                Ok(())
            })
        },
    ));
    let mut client = UnixStream::connect(&path).await.expect("connects");
    client.read_u8().await.expect("served");
    drop(client);
    timeout(PATIENCE, is_gone).await.expect("noticed").expect_err("it was dropped");
}

#[tokio::test]
async fn places_are_counted_by_uid() {
    if !geteuid().is_root() {
        return skip(Need::Root, "only root can connect as another user");
    }
    let (_directory, path) = directory();
    let listener = Listener::bind_unix(&path, 0o666).await.expect("bound");
    let limits = ConnectionLimits::new().max_unauthenticated(3);
    let pending = std::future::pending();
    tokio::spawn(serve_connections(listener, limits, PATIENCE, pending, |mut connection, _| {
        Some(async move {
            loop {
                let byte = connection.read_u8().await?;
                connection.write_all(&[byte]).await?;
            }
        })
    }));
    let mut others = tokio_stream(connect_as(NOBODY, &path));
    says(&mut others, b'0').await;
    let mut ours = Vec::new();
    for _ in 0..3 {
        let mut stream = UnixStream::connect(&path).await.expect("connects");
        says(&mut stream, b'1').await;
        ours.push(stream);
    }
    // The oldest of those who have most, not the oldest of all.
    is_closed(&mut ours[0]).await;
    says(&mut others, b'2').await;
    says(&mut ours[1], b'3').await;
}

/// Lets in one user, and tells what it was asked about.
struct ByUid(u32, Mutex<Vec<Credentials>>);

impl Authenticator for ByUid {
    async fn authenticate(
        &self,
        credentials: Credentials,
        source: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        self.1.lock().expect("no panic").push(credentials.clone());
        match credentials {
            Credentials::UnixPeer(peer) if peer.uid == self.0 => {
                assert_eq!(source.unix_peer(), Some(peer));
                Caller::new("alice").map_err(|_| AuthError::Invalid)
            }
            Credentials::None => Err(AuthError::Missing),
            _ => Err(AuthError::Invalid),
        }
    }

    fn accepts(&self, kind: CredentialKind) -> bool {
        kind == CredentialKind::UnixPeer
    }
}

#[tokio::test]
async fn a_peer_that_shows_nothing_is_known_by_its_uid() {
    let executor = LocalExecutor::new(".").expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let of = |uid| CredentialSource::unix("test", UnixPeer::new(uid, 1, Some(1)));
    let by_uid = ByUid(7, Mutex::default());
    let known = engine.authenticate(&by_uid, Credentials::None, &of(7)).await;
    assert_eq!(known.expect("let in").user().as_str(), "alice");
    for _ in 0..50 {
        let refused = engine.authenticate(&by_uid, Credentials::None, &of(8)).await;
        assert!(matches!(refused, Err(AuthError::Invalid)), "it is no guess: {refused:?}");
    }
    assert!(engine.stats().authentication_failures.is_empty());
    // One that shows something else is known by nothing else.
    let shown = Credentials::password("alice", Secret::new("correct-horse"));
    let refused = engine.authenticate(&by_uid, shown, &of(7)).await;
    assert!(matches!(refused, Err(AuthError::Unsupported)), "{refused:?}");
    let over_tcp = CredentialSource::new("test", None);
    let refused = engine.authenticate(&by_uid, Credentials::None, &over_tcp).await;
    assert!(matches!(refused, Err(AuthError::Missing)), "{refused:?}");
    // Whoever does not accept uids is not asked about any.
    let guest = Caller::new("guest").expect("a name");
    let tokens = StaticTokens::new().allow_anonymous(guest.clone());
    let known = engine.authenticate(&tokens, Credentials::None, &of(7)).await;
    assert_eq!(known.expect("let in"), guest);
}

#[tokio::test(start_paused = true)]
async fn who_guesses_over_a_unix_socket_is_blocked_by_uid() {
    let executor = LocalExecutor::new(".").expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let of = |uid, pid| CredentialSource::unix("test", UnixPeer::new(uid, 1, Some(pid)));
    let tokens = StaticTokens::new();
    // Some of the penalty runs off while answers are held back.
    for guess in 0..8 {
        let shown = Credentials::Bearer(Secret::new(format!("guess {guess}")));
        engine.authenticate(&tokens, shown, &of(7, guess)).await.expect_err("it is none");
    }
    assert!(engine.blocked_for(&of(7, 99)).is_some());
    assert!(engine.blocked_for(&of(8, 0)).is_none());
    assert!(engine.blocked_for(&CredentialSource::new("test", None)).is_none());
}
