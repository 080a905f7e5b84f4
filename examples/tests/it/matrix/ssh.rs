//! Channels of SSH, and SFTP on them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use russh::client::{self, Handle, Msg};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use russh::{Channel, ChannelMsg};

use super::{Actor, Operation, Told, key_file};
use crate::conformance::Trusting;
use crate::server::{ssh_key, within};

pub(super) struct Ssh {
    addr: SocketAddr,
    keys: HashMap<String, Arc<PrivateKey>>,
}

/// What came back on a channel.
#[derive(Default)]
struct Heard {
    stdout: Vec<u8>,
    stderr: String,
    exit: Option<u32>,
}

impl Ssh {
    pub(super) fn new(addr: SocketAddr, dir: &Path, actors: &[Actor]) -> Self {
        let key = |actor: &Actor| (actor.user.to_string(), ssh_key(key_file(dir, actor)));
        Self { addr, keys: actors.iter().map(key).collect() }
    }

    pub(super) async fn does(&self, actor: &Actor, operation: Operation) -> Option<Told> {
        let told = match operation {
            Operation::Execute => {
                let (_client, channel) = self.channel(actor, false).await;
                channel.exec(true, "true").await.expect("sent");
                ended(channel).await.told(0)
            }
            // Its client has left before it says anything; by then it was let begin.
            Operation::CopyFiles => {
                let (_client, channel) = self.channel(actor, false).await;
                channel.exec(true, "rsync --server --sender -e.L . known").await.expect("sent");
                channel.eof().await.expect("sent");
                let heard = ended(channel).await;
                let is_refused = heard.exit == Some(255) && heard.stderr.contains("scope `");
                if is_refused { Told::Forbidden } else { Told::Done }
            }
            Operation::CreateSession => {
                let (_client, channel) = self.channel(actor, false).await;
                channel.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
                channel.exec(true, "sh -c 'exit 7'").await.expect("sent");
                ended(channel).await.told(7)
            }
            Operation::ViewSession | Operation::ControlSession => {
                let (_client, mut channel) = self.channel(actor, true).await;
                channel.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
                channel.request_shell(true).await.expect("sent");
                if operation == Operation::ViewSession {
                    attached(&mut channel).await
                } else {
                    // Typed by who may only look, it is not typed: another ends it then.
                    types(channel, super::is_allowed(operation, actor.scopes)).await
                }
            }
            Operation::ReadFile => {
                self.sftp(actor, 3, &[&string(b"known"), &[0, 0, 0, 1], &[0; 4]]).await
            }
            Operation::WriteFile => {
                self.sftp(actor, 3, &[&string(b"of-ssh"), &[0, 0, 0, 0b1010], &[0; 4]]).await
            }
            Operation::ListFiles => self.sftp(actor, 11, &[&string(b".")]).await,
            Operation::ListExecutions
            | Operation::SubmitBatch
            | Operation::ListBatches
            | Operation::ListSessions => return None,
        };
        Some(told)
    }

    /// The client goes with its connection.
    async fn channel(&self, actor: &Actor, in_session: bool) -> (Handle<Trusting>, Channel<Msg>) {
        let config = Arc::new(client::Config::default());
        let mut client = client::connect(config, self.addr, Trusting).await.expect("a handshake");
        let key = Arc::clone(&self.keys[actor.user.as_str()]);
        let user = match in_session {
            true => format!("{}+{}", actor.user, actor.session),
            false => actor.user.to_string(),
        };
        let key = PrivateKeyWithHashAlg::new(key, None);
        let shown = client.authenticate_publickey(user, key).await.expect("an answer");
        assert!(shown.success());
        let channel = client.channel_open_session().await.expect("a channel");
        (client, channel)
    }

    /// Whether a request of SFTP gets a handle, or is refused by the code for it.
    async fn sftp(&self, actor: &Actor, kind: u8, parts: &[&[u8]]) -> Told {
        let (_client, mut channel) = self.channel(actor, false).await;
        channel.request_subsystem(true, "sftp").await.expect("sent");
        let packet = |kind: u8, body: &[u8]| {
            let length = u32::try_from(body.len() + 1).expect("short").to_be_bytes();
            [&length[..], &[kind], body].concat()
        };
        let request = packet(kind, &[&[0, 0, 0, 7], &parts.concat()[..]].concat());
        let all = [packet(1, &[0, 0, 0, 3]), request].concat();
        channel.data_bytes(all).await.expect("sent");
        let mut came = Vec::new();
        loop {
            // Behind the version comes the answer: its kind, the request's number, and the code.
            let version =
                came.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize);
            let answer = version.and_then(|length| came.get(4 + length..));
            if let Some(answer) = answer.filter(|answer| answer.len() >= 13) {
                return match (answer[4], &answer[9..13]) {
                    (102, _) => Told::Done,
                    (101, [0, 0, 0, 3]) => Told::Forbidden,
                    other => panic!("{other:?}"),
                };
            }
            match within("a message of SSH", channel.wait()).await {
                Some(ChannelMsg::Data { data }) => came.extend_from_slice(&data),
                Some(_) => {}
                None => panic!("closed"),
            }
        }
    }
}

impl Heard {
    /// What the exit status says, of something that ends with `done` where it may begin.
    fn told(&self, done: u32) -> Told {
        match self.exit {
            Some(255) => {
                let said = format!("{}{}", self.stderr, String::from_utf8_lossy(&self.stdout));
                assert!(said.contains("scope `"), "{said}");
                Told::Forbidden
            }
            exit => {
                assert_eq!(exit, Some(done), "{}", self.stderr);
                Told::Done
            }
        }
    }
}

async fn ended(mut channel: Channel<Msg>) -> Heard {
    let mut heard = Heard::default();
    while let Some(message) = within("a message of SSH", channel.wait()).await {
        match message {
            ChannelMsg::Data { data } => heard.stdout.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => {
                heard.stderr += &String::from_utf8_lossy(&data)
            }
            ChannelMsg::ExitStatus { exit_status } => heard.exit = Some(exit_status),
            _ => {}
        }
    }
    heard
}

/// Whether a terminal shows anything before it is closed.
async fn attached(channel: &mut Channel<Msg>) -> Told {
    loop {
        match within("a message of SSH", channel.wait()).await {
            Some(ChannelMsg::Data { data }) if !data.is_empty() => return Told::Done,
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                let said = String::from_utf8_lossy(&data).into_owned();
                assert!(said.contains("scope `") || said.contains("no such session"), "{said}");
                return Told::Forbidden;
            }
            Some(_) => {}
            None => panic!("closed without a word"),
        }
    }
}

/// Whether what is typed into a terminal is. Of a client that may only look nothing tells: the session
/// is then as it was.
async fn types(mut channel: Channel<Msg>, is_allowed: bool) -> Told {
    if attached(&mut channel).await == Told::Forbidden {
        return Told::Forbidden;
    }
    channel.data_bytes(&b"echo ty''ped\n"[..]).await.expect("sent");
    let mut seen = String::new();
    let typed = async {
        loop {
            match within("a message of SSH", channel.wait()).await {
                Some(ChannelMsg::Data { data }) => seen += &String::from_utf8_lossy(&data),
                Some(_) => {}
                None => panic!("closed: {seen}"),
            }
            if seen.contains("typed") {
                return;
            }
        }
    };
    // That nothing comes can only be waited for; what is to come may take its time.
    let time = std::time::Duration::from_secs(if is_allowed { 60 } else { 2 });
    match tokio::time::timeout(time, typed).await {
        Ok(()) => Told::Done,
        Err(_) => Told::Forbidden,
    }
}

fn string(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).expect("short").to_be_bytes()[..], text].concat()
}
