//! Over a UNIX socket: as over TCP, but that nobody has an address.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use splengine_core::auth::{
    AuthError, Authenticator, CredentialKind, CredentialSource, Credentials, UnixPeer,
};
use splengine_core::net::Listener;
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_ssh::{HostKeys, SshServer, Users};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{Client, PATIENCE, key, public};

/// Lets in everybody by whatever key, and keeps the peers that it is told of.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Option<UnixPeer>>>>);

impl Authenticator for Asked {
    async fn authenticate(
        &self,
        credentials: Credentials,
        source: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        self.0.lock().expect("no panic").push(source.unix_peer());
        match credentials {
            Credentials::PublicKey { user, .. } => {
                Ok(Caller::new(&user).map_err(|_| AuthError::Invalid)?.with_all_scopes())
            }
            _ => Err(AuthError::Invalid),
        }
    }

    fn accepts(&self, kind: CredentialKind) -> bool {
        matches!(kind, CredentialKind::PublicKey | CredentialKind::UnixPeer)
    }
}

struct Local {
    engine: Engine,
    path: PathBuf,
    directory: TempDir,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

async fn open(users: impl FnOnce(&std::path::Path) -> Users) -> Local {
    let directory = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::new(directory.path()).expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let path = directory.path().join("ssh.sock");
    let listener = Listener::bind_unix(&path, 0o600).await.expect("bound");
    let keys = HostKeys::open_or_create(directory.path().join("host_key")).expect("made");
    let builder = SshServer::builder(engine.clone()).users(users(directory.path()));
    let server = builder.listen(listener, &keys).expect("bound");
    assert_eq!(server.local_addr().unix_path(), Some(&*path));
    let (stop, stopped) = oneshot::channel::<()>();
    let draining = engine.clone();
    let ended = tokio::spawn(server.run_until(async move {
        drop(stopped.await);
        draining.drain(PATIENCE).await;
    }));
    Local { engine, path, directory, stop, ended }
}

async fn connect(local: &Local) -> Client {
    let stream = UnixStream::connect(&local.path).await.expect("connects");
    Client::begin(russh::client::Config::default(), stream).await.expect("a handshake")
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_until_the_server_ends() {
    let asked = Asked::default();
    let users = Users::new().authenticator(asked.clone());
    let local = open(|_| users).await;
    let mut client = connect(&local).await;
    assert!(client.shows("alice", &key()).await);
    let ran = client.run("sh -c 'echo ${SSH_CONNECTION-none} ${SSH_CLIENT-none}'").await;
    assert_eq!(ran.told(), ("none none\n", "", "0"), "there are no addresses");
    {
        let asked = asked.0.lock().expect("no panic");
        let own = std::process::id();
        assert!(!asked.is_empty());
        assert!(asked.iter().all(|peer| peer.is_some_and(|peer| peer.pid == Some(own))));
    }
    let running = client
        .start("sh -c 'touch begun; while [ ! -e go ]; do sleep 0.02; done; echo whole'")
        .await;
    let root = local.directory.path().to_owned();
    crate::support::until("it runs", || root.join("begun").exists()).await;
    local.stop.send(()).expect("it serves");
    local.engine.closed().await;
    std::fs::write(root.join("go"), "").expect("written");
    assert_eq!(running.ended().await.told(), ("whole\n", "", "0"));
    drop(client);
    timeout(PATIENCE, local.ended).await.expect("in time").expect("no panic");
    assert!(!local.path.exists());
}

/// A key is shown all the same, and one that is bound to addresses is none here.
#[tokio::test(flavor = "multi_thread")]
async fn keys_let_in_unless_they_are_of_an_address() {
    let [alice, bob, stranger] = [(); 3].map(|()| key());
    let local = open(|directory| {
        let keys = directory.join("keys");
        std::fs::create_dir(&keys).expect("made");
        std::fs::write(keys.join("alice"), public(&alice)).expect("written");
        let line = format!("from=\"*\" {}", public(&bob));
        std::fs::write(keys.join("bob"), line).expect("written");
        Users::new().authorized_keys(&keys)
    })
    .await;
    let mut client = connect(&local).await;
    assert!(client.shows("alice", &alice).await);
    assert_eq!(client.run("echo hi").await.told(), ("hi\n", "", "0"));
    for (user, key) in [("bob", &bob), ("alice", &stranger)] {
        assert!(!connect(&local).await.shows(user, key).await, "{user}");
    }
    // What runs ends with its client.
    let running = client.start("sleep 600").await;
    crate::support::until("it runs", || local.engine.stats().running == 1).await;
    drop(running);
    drop(client);
    let gone = async {
        while local.engine.stats().running > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("in time");
}
