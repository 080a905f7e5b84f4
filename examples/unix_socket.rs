//! The HTTP server on a UNIX socket, for users of this host: nobody has a token, for the kernel tells who
//! connects.
//!
//!     cargo run --example unix-socket -- /tmp/engine.sock alice=$(id -u)
//!     curl --unix-socket /tmp/engine.sock --json '{"command": "echo hi"}' http://localhost/execute
//!
//! It prints its address, and runs until ctrl-c.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use splengine_core::auth::{
    AuthError, Authenticator, CredentialKind, CredentialSource, Credentials, Scope,
};
use splengine_core::engine::Servers;
use splengine_core::net::{ConnectionLimits, Listener};
use splengine_core::{Caller, Engine, LocalExecutor};
use splengine_http::HttpServer;
use tokio::signal::unix::{SignalKind, signal};

/// Users of this host, by their uids.
struct Users(HashMap<u32, Caller>);

impl Authenticator for Users {
    async fn authenticate(
        &self,
        credentials: Credentials,
        _: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        match credentials {
            Credentials::UnixPeer(peer) => self.0.get(&peer.uid).cloned().ok_or(AuthError::Invalid),
            _ => Err(AuthError::Missing),
        }
    }

    // Without this it would be asked about bearer tokens alone.
    fn accepts(&self, kind: CredentialKind) -> bool {
        kind == CredentialKind::UnixPeer
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "wanted is the path of the socket, and then a USER=UID for each user";
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or(usage)?;
    let mut users = HashMap::new();
    for argument in arguments {
        let (user, uid) = argument.split_once('=').ok_or(usage)?;
        users.insert(uid.parse()?, Caller::new(user)?.with(Scope::Execute));
    }

    let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    // Any user of the host may connect; the file goes when the server ends.
    let listener = Listener::bind_unix(&path, 0o666).await?;
    let server = HttpServer::builder(engine.clone())
        .authenticate(Users(users))
        .listen(listener)?
        // Of connections that have shown nothing, each uid has so many.
        .connection_limits(ConnectionLimits::new().max_unauthenticated_per_address(8));

    let mut interrupt = signal(SignalKind::interrupt())?;
    writeln!(std::io::stdout(), "{}", server.local_addr())?;
    let signal = async {
        interrupt.recv().await;
    };
    Servers::new().add(server).run_until(signal, &engine, Duration::from_secs(30)).await;
    Ok(())
}
