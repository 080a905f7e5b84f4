//! An executor around another: each command runs in a sandbox, some are refused, and all are written to an
//! audit log. This holds for HTTP, SSH, sessions and batches alike.
//!
//!     mkdir keys && cp ~/.ssh/id_ed25519.pub keys/alice
//!     export ALICE_TOKEN=$(openssl rand -hex 16)
//!     cargo run --example sandbox -- keys host_key \
//!         bwrap --unshare-all --die-with-parent --ro-bind / / --dev /dev --bind . . --
//!     curl -H "Authorization: Bearer $ALICE_TOKEN" --json '{"command": "id"}' http://ADDRESS/execute
//!     ssh -p PORT alice@127.0.0.1 id
//!
//! Any program can take the place of `bwrap` that runs the command which follows its own arguments. The example
//! prints the addresses of HTTP and SSH, the audit log on standard error, and runs until ctrl-c.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use splengine_core::auth::{Secret, StaticTokens};
use splengine_core::engine::Servers;
use splengine_core::execute::{Cancel, Command, Exit, LimitKind, Output, Recover, Stdin};
use splengine_core::terminal::{Size, Terminal};
use splengine_core::{Caller, Engine, Execute, ExecuteError, Field, LocalExecutor};
use splengine_http::HttpServer;
use splengine_ssh::{HostKeys, SshServer, Users};

/// Runs what `inner` runs, behind the words of `sandbox`.
struct Sandboxed<E> {
    inner: E,
    sandbox: Vec<OsString>,
}

impl<E: Execute> Sandboxed<E> {
    /// The command as it is run, if it may be.
    fn wrapped(&self, mut command: Command) -> Result<Command, ExecuteError> {
        if command.argv[0] == "shutdown" {
            let problem = "is not allowed here".to_owned();
            return Err(ExecuteError::Impossible { field: Field::Command, problem });
        }
        command.argv.splice(0..0, self.sandbox.iter().cloned());
        Ok(command)
    }
}

impl<E: Execute> Execute for Sandboxed<E> {
    async fn execute(
        &self,
        command: Command,
        stdin: Stdin,
        output: Output,
        cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        let audited = format!("{} runs {:?}", command.user, command.argv);
        let exit = match self.wrapped(command) {
            Ok(command) => self.inner.execute(command, stdin, output, cancel).await,
            Err(error) => Err(error),
        };
        match &exit {
            Ok(exit) => audit(&format!("{audited}: {:?}", exit.status())),
            Err(error) => audit(&format!("{audited}: {error}")),
        }
        exit
    }

    async fn check(&self, command: &Command) -> Result<(), ExecuteError> {
        self.inner.check(&self.wrapped(command.clone())?).await
    }

    async fn open(&self, command: Command, size: Size) -> Result<Terminal, ExecuteError> {
        audit(&format!("{} opens a terminal with {:?}", command.user, command.argv));
        self.inner.open(self.wrapped(command)?, size).await
    }

    // Whatever else it can do. What is not handed on is lost: orphans after a crash, files, limits.
    fn recovery(&self) -> Option<&impl Recover> {
        self.inner.recovery()
    }

    fn root(&self) -> Option<&Path> {
        self.inner.root()
    }

    fn has_terminals(&self) -> bool {
        self.inner.has_terminals()
    }

    fn enforces(&self, limit: LimitKind) -> bool {
        self.inner.enforces(limit)
    }
}

fn audit(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(keys), Some(host_key)) = (arguments.next(), arguments.next()) else {
        return Err("usage: sandbox KEYS HOST_KEY SANDBOX...".into());
    };
    let executor = Sandboxed { inner: LocalExecutor::new(".")?, sandbox: arguments.collect() };
    let engine = Engine::builder(executor).build()?;

    let mut tokens = StaticTokens::new();
    let alice = Caller::new("alice")?.with_all_scopes();
    tokens.insert(&Secret::new(std::env::var("ALICE_TOKEN")?), alice)?;
    let http = HttpServer::builder(engine.clone()).authenticate(tokens).bind("127.0.0.1:0").await?;
    let host_keys = HostKeys::open_or_create(host_key)?;
    let ssh = SshServer::builder(engine.clone()).users(Users::new().authorized_keys(keys));
    let ssh = ssh.bind("127.0.0.1:0", &host_keys).await?;

    let servers = Servers::new().add(http).add(ssh);
    let addresses: Vec<String> = servers.local_addrs().map(|addr| addr.to_string()).collect();
    writeln!(std::io::stdout(), "{}", addresses.join(" "))?;
    let signal = async { drop(tokio::signal::ctrl_c().await) };
    servers.run_until(signal, &engine, Duration::from_secs(30)).await;
    Ok(())
}
