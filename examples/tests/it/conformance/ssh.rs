//! The SSH server: as much of an end as its protocol can tell.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, client};
use serde_json::Value;
use splengine_core::Engine;
use splengine_ssh::{HostKeys, SshServer, Users};
use tempfile::TempDir;

use super::{Actor, Told};
use crate::server::{ssh_key, within};

/// What a client of SSH is told of an execution.
#[derive(Debug, PartialEq)]
pub(super) struct Heard {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// A number, or a signal's name.
    end: String,
}

pub(super) struct Ssh {
    usual: SocketAddr,
    /// Of an engine that ends everything soon: a request over SSH has no place for a time limit.
    hasty: SocketAddr,
    key: Arc<PrivateKey>,
    _dir: TempDir,
}

/// What is to be heard where the engine itself tells this.
pub(super) fn as_told_by(told: &Told) -> Heard {
    match told {
        Told::Ended { exit_code, reason, signal, stdout, stderr, truncated } => {
            let end = match signal {
                Some(Value::String(signal)) if reason.as_deref() == Some("signaled") => {
                    signal.trim_start_matches("SIG").to_owned()
                }
                _ => exit_code.to_string(),
            };
            // Output that is passed on as it comes has no limit.
            let all = "\u{20ac}".repeat(800_000).into_bytes();
            let stdout = if *truncated == Some(true) { all } else { stdout.clone() };
            Heard { stdout, stderr: stderr.clone(), end }
        }
        Told::Refused(kind, text) => {
            let (end, text) = match *kind {
                "no program" => ("127", text.as_str()),
                // As a shell that can't read a command.
                "malformed" if text.contains("only a shell acts on") => ("2", text.as_str()),
                "inside" => ("254", "the engine failed to run the command"),
                _ => ("255", text.as_str()),
            };
            let stderr = format!("{text}\n").into_bytes();
            Heard { stdout: Vec::new(), stderr, end: end.to_owned() }
        }
    }
}

impl Ssh {
    pub(super) async fn open(engine: &Engine) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = dir.path().join("keys");
        fs::create_dir(&keys).expect("made");
        let key = ssh_key(keys.join("guest"));
        let host = HostKeys::open_or_create(dir.path().join("host_key")).expect("made");
        let server = async |engine: Engine| {
            let users = Users::new().authorized_keys(&keys);
            let server = SshServer::builder(engine).users(users);
            let server = server.bind("127.0.0.1:0", &host).await.expect("bound");
            let addr = server.local_addr().tcp().expect("of TCP");
            tokio::spawn(async { server.await });
            addr
        };
        let hasty = Engine::builder(Actor).default_timeout(Duration::from_millis(50));
        Self {
            usual: server(engine.clone()).await,
            hasty: server(hasty.build().expect("built")).await,
            key,
            _dir: dir,
        }
    }

    /// What is heard of `command`, if it can be asked for.
    pub(super) async fn tells(&self, command: &str, timeout: Option<u64>) -> Option<Heard> {
        let addr = match timeout {
            None => self.usual,
            Some(50) => self.hasty,
            Some(_) => return None,
        };
        let config = Arc::new(client::Config::default());
        let mut client = client::connect(config, addr, Trusting).await.expect("a handshake");
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.key), None);
        let shown = client.authenticate_publickey("guest", key).await.expect("an answer");
        assert!(shown.success());
        let mut channel = client.channel_open_session().await.expect("a channel");
        channel.exec(true, command).await.expect("sent");
        channel.eof().await.expect("sent");
        let mut heard = Heard { stdout: Vec::new(), stderr: Vec::new(), end: String::new() };
        while let Some(message) = within("a message of SSH", channel.wait()).await {
            match message {
                ChannelMsg::Data { data } => heard.stdout.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, .. } => heard.stderr.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => heard.end += &exit_status.to_string(),
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    heard.end += &format!("{signal_name:?}");
                }
                _ => {}
            }
        }
        Some(heard)
    }
}

/// Takes any server for the right one.
pub(crate) struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}
