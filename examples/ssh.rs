//! The SSH server alone: commands, terminals that outlive their clients, and files by SFTP and scp.
//!
//!     mkdir keys work && cp ~/.ssh/id_ed25519.pub keys/alice
//!     cargo run --example ssh -- work keys host_key
//!     ssh -p PORT alice@127.0.0.1 echo hi
//!
//! It prints its address, and runs until ctrl-c.

use std::io::Write as _;
use std::time::Duration;

use splengine_core::engine::Servers;
use splengine_core::files::FilePolicy;
use splengine_core::{Engine, LocalExecutor};
use splengine_ssh::{HostKeys, SshServer, Users};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, keys, host_key] = &arguments[..] else {
        return Err("usage: ssh ROOT KEYS HOST_KEY".into());
    };

    // Commands start below root, and SFTP reaches no file outside it. Keep the keys elsewhere.
    let engine = Engine::builder(LocalExecutor::new(root)?).files(FilePolicy::new()).build()?;

    // The file `alice` of this directory has the public keys that let alice in. A file that is changed,
    // added or removed counts from the next login on.
    let users = Users::new().authorized_keys(keys);

    // What clients know the server by: made at the first start, and the same from then on.
    let host_keys = HostKeys::open_or_create(host_key)?;

    let server = SshServer::builder(engine.clone()).users(users);
    let server = server.bind("127.0.0.1:0", &host_keys).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    writeln!(std::io::stdout(), "{}", server.local_addr())?;
    // No new work; what runs has 30 s to end by itself, and its clients are told how it ended.
    let signal = async {
        interrupt.recv().await;
    };
    Servers::new().add(server).run_until(signal, &engine, Duration::from_secs(30)).await;
    Ok(())
}
