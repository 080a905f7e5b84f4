//! A connection, as russh tells of it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use russh::keys::ssh_key;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{ChannelId, ChannelOpenFailure, Error, MethodSet, Pty, Sig};
use splengine_core::{AuthError, CredentialSource, Scope, Secret, Signal, Size, TerminalModes};
use tokio::sync::watch;

use crate::channel::{Channel, Start};
use crate::forward::Destination;
use crate::reply::Reply;
use crate::server::Shared;
use crate::sftp;
use crate::terminal::Window;
use crate::users::{Entry, Grant, Users};

/// How far the login of a connection has come, and what runs on it since.
#[derive(Clone)]
pub(crate) struct Login(Arc<LoginState>);

/// Held while something runs whose end its client is to hear of.
pub(crate) struct Running(Login);

struct LoginState {
    succeeded: watch::Sender<bool>,
    /// What somebody was let in with.
    entry: OnceLock<Entry>,
    tried: AtomicBool,
    checking: AtomicBool,
    /// Whether a failure was counted already.
    counted: AtomicBool,
    running: watch::Sender<usize>,
}

pub(crate) struct Client {
    shared: Arc<Shared>,
    peer: SocketAddr,
    /// That the client has connected to.
    ours: SocketAddr,
    source: CredentialSource,
    login: Login,
    grant: Option<Arc<Grant>>,
    /// Of the session that the user's name has at its end.
    session: Option<String>,
    channels: HashMap<ChannelId, Channel>,
}

impl Login {
    pub(crate) fn new() -> Self {
        Self(Arc::new(LoginState {
            succeeded: watch::channel(false).0,
            entry: OnceLock::new(),
            tried: AtomicBool::new(false),
            checking: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            running: watch::channel(0).0,
        }))
    }

    pub(crate) fn running(&self) -> Running {
        self.0.running.send_modify(|count| *count += 1);
        Running(self.clone())
    }

    /// Waits until nothing runs any more.
    pub(crate) async fn idle(&self) {
        drop(self.0.running.subscribe().wait_for(|count| *count == 0).await);
    }

    pub(crate) async fn succeeded(&self) {
        // The sender lives in `self`: the wait can't fail.
        drop(self.0.succeeded.subscribe().wait_for(|succeeded| *succeeded).await);
    }

    /// Waits until whoever logged in may be here no longer: their rights were taken back, or `users`
    /// would not let them in any more. `rechecks` is from before they were let in.
    pub(crate) async fn taken_back(&self, users: &Users, mut rechecks: watch::Receiver<u64>) {
        let Some(entry) = self.0.entry.get() else { return std::future::pending().await };
        let refused = async {
            loop {
                if rechecks.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                if !users.would_let_in(entry).await {
                    return;
                }
            }
        };
        tokio::select! {
            () = entry.grant().caller.revoked() => {}
            () = refused => {}
        }
    }

    pub(crate) fn has_been_tried(&self) -> bool {
        self.0.tried.load(Relaxed)
    }

    /// Whether somebody tried to log in, nobody succeeded, and none of it was counted as a failure:
    /// who has several keys offers one after the other, and only all of them together tell anything.
    pub(crate) fn has_failed_uncounted(&self) -> bool {
        self.has_been_tried() && !*self.0.succeeded.borrow() && !self.0.counted.load(Relaxed)
    }

    pub(crate) fn is_checking(&self) -> bool {
        self.0.checking.load(Relaxed)
    }

    async fn check<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.checking.store(true, Relaxed);
        let done = work.await;
        self.0.checking.store(false, Relaxed);
        self.0.tried.store(true, Relaxed);
        done
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.send_modify(|count| *count -= 1);
    }
}

impl Client {
    pub(crate) fn new(
        shared: Arc<Shared>,
        [peer, ours]: [SocketAddr; 2],
        source: CredentialSource,
        login: Login,
    ) -> Self {
        let channels = HashMap::new();
        Self { shared, peer, ours, source, login, grant: None, session: None, channels }
    }

    /// What is answered to somebody who has shown who they are, or has not.
    fn let_in(&mut self, user: &str, entry: Option<Entry>) -> Auth {
        let Some(entry) = entry else { return refused(&self.shared) };
        let grant = Arc::clone(entry.grant());
        let (_, session) = split(user);
        tracing::info!(
            user = %grant.caller.user(), peer = %self.peer, how = grant.how, session, "logged in"
        );
        self.session = session.map(str::to_owned);
        self.grant = Some(grant);
        let _ = self.login.0.entry.set(entry);
        Auth::Accept
    }

    fn start(&mut self, id: ChannelId, start: Start, session: &mut Session) -> Result<(), Error> {
        let started = match (self.channels.get_mut(&id), &self.grant) {
            (Some(channel), Some(grant)) => {
                channel.start(&self.shared, self.peer, &self.login, grant, start)
            }
            _ => false,
        };
        reply(id, started, session)
    }

    /// The places of both ends, as sshd tells commands of them.
    fn ends(&self) -> Vec<(String, String)> {
        let (from, to) = (self.peer, self.ours);
        let [from_ip, to_ip] = [from, to].map(|end| end.ip().to_canonical());
        let (from_port, to_port) = (from.port(), to.port());
        let shell = self.shared.engine.shell().first().cloned().unwrap_or_default();
        [
            ("SSH_CLIENT", format!("{from_ip} {from_port} {to_port}")),
            ("SSH_CONNECTION", format!("{from_ip} {from_port} {to_ip} {to_port}")),
            ("SHELL", shell),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Makes a channel on which something can be started, if there may be one more.
    fn channel(&mut self, channel: russh::Channel<Msg>, session: &Session) -> Option<ChannelId> {
        self.channels.retain(|_, channel| !channel.is_over());
        if self.channels.len() >= self.shared.options.max_channels {
            return None;
        }
        let user = self.grant.as_ref()?.caller.user().clone();
        // What comes is taken from `data` below. The reading half, in which russh waits for room,
        // is let go.
        let (_, writer) = channel.split();
        let id = writer.id();
        let mut reply = Reply::new(writer, session.handle());
        reply.signals_as_status = self.shared.options.signals_as_status;
        let mut channel = Channel::new(reply, &self.shared, user);
        channel.session.clone_from(&self.session);
        channel.links_first = links_first(session.remote_sshid());
        channel.env = self.ends();
        self.channels.insert(id, channel);
        Some(id)
    }

    /// Forwards a connection to where that is allowed.
    async fn forward(
        &mut self,
        channel: russh::Channel<Msg>,
        destination: Option<Destination>,
        shown: &str,
        answer: ChannelOpenHandle,
        session: &mut Session,
    ) {
        let Some((grant, destination)) = self.grant.clone().zip(destination) else {
            answer.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return;
        };
        let policy = if !grant.forwarding || grant.view_only {
            Err("an option of the key forbids forwarding")
        } else if !grant.caller.may(Scope::Execute) {
            Err("the caller lacks the scope `execute`")
        } else {
            let (targets, why) = match &grant.permit_open {
                Some(targets) => (targets, "it is no target of the key's permitopen="),
                None => {
                    (&self.shared.options.permit_open, "it is no target that is permitted here")
                }
            };
            let is_allowed = match &destination {
                Destination::Tcp(host, port) => targets.allow_tcp(host, u32::from(*port)),
                Destination::Socket(path) => targets.allow_socket(path),
            };
            if is_allowed { Ok(()) } else { Err(why) }
        };
        if let Err(why) = policy {
            self.refuse_forwarding(shown, why);
            answer.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return;
        }
        let Some(id) = self.channel(channel, session) else {
            answer.reject(ChannelOpenFailure::ResourceShortage).await;
            return;
        };
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.forward(destination, answer, self.peer, &grant);
        }
    }

    fn refuse_forwarding(&self, what: &str, why: &str) {
        let what: String = what.chars().take(MAX_SHOWN_CHARS).collect();
        let user = self.grant.as_ref().map(|grant| grant.caller.user().as_str());
        tracing::info!(user, peer = %self.peer, what, why, "a forwarding is refused");
    }

    fn takes(&self, name: &str) -> bool {
        let named = |pattern: &str| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        };
        !NEVER.iter().any(|pattern| named(pattern))
            && self.shared.options.accept_env.iter().any(|pattern| named(pattern))
            && self.shared.engine.accepts_env(name)
    }
}

impl Handler for Client {
    type Error = Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Error> {
        Ok(refused(&self.shared))
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        let users = &self.shared.users;
        let (user, ip) = (split(user).0, self.peer.ip());
        let offered = users.offered(user, offer.public_key, offer.algorithm, ip);
        match self.login.check(offered).await {
            true => Ok(Auth::Accept),
            false => Ok(refused(&self.shared)),
        }
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        let known = self.shared.users.by_key(split(user).0, key.public_key, self.peer.ip());
        let entry = self.login.check(known).await;
        Ok(self.let_in(user, entry))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &ssh_key::Certificate,
    ) -> Result<Auth, Error> {
        let known = self.shared.users.by_certificate(split(user).0, certificate, self.peer.ip());
        let entry = self.login.check(known).await;
        Ok(self.let_in(user, entry))
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        let (password, name) = (Secret::new(password), split(user).0);
        let Shared { users, engine, .. } = &*self.shared;
        let known = async {
            let known = users.by_password(name, &password, self.peer.ip()).await;
            known.ok_or(AuthError::Invalid)
        };
        let known = engine.check_password(name, &password, &self.source, known);
        let known = self.login.check(known).await;
        if known.is_err() {
            self.login.0.counted.store(true, Relaxed);
        }
        Ok(self.let_in(user, known.ok()))
    }

    async fn auth_keyboard_interactive(
        &mut self,
        user: &str,
        _: &str,
        response: Option<Response<'_>>,
    ) -> Result<Auth, Error> {
        let Some(mut response) = response.filter(|_| self.shared.users.has_passwords()) else {
            if !self.shared.users.has_passwords() {
                return Ok(refused(&self.shared));
            }
            return Ok(Auth::Partial {
                name: Cow::Borrowed(""),
                instructions: Cow::Borrowed(""),
                prompts: Cow::Borrowed(&[(Cow::Borrowed("Password: "), false)]),
            });
        };
        let answer = response.next().unwrap_or_default();
        match str::from_utf8(&answer) {
            Ok(password) => self.auth_password(user, password).await,
            Err(_) => Ok(refused(&self.shared)),
        }
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Error> {
        self.login.0.succeeded.send_replace(true);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: russh::Channel<Msg>,
        answer: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        if self.grant.is_none() {
            answer.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        if self.channel(channel, session).is_none() {
            answer.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        answer.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: russh::Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        answer: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        let number = u16::try_from(port).ok();
        let destination = number.map(|number| Destination::Tcp(host.to_owned(), number));
        let shown = format!("a connection to {host}:{port}");
        self.forward(channel, destination, &shown, answer, session).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: russh::Channel<Msg>,
        path: &str,
        answer: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        let destination = Some(Destination::Socket(path.to_owned()));
        let shown = format!("a connection to {path}");
        self.forward(channel, destination, &shown, answer, session).await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, Error> {
        self.refuse_forwarding(&format!("listening at {address}:{port}"), NO_LISTENING);
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Error> {
        self.refuse_forwarding(&format!("listening at {path}"), NO_LISTENING);
        Ok(false)
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, Error> {
        self.refuse_forwarding("the client's agent", NO_LISTENING);
        Ok(false)
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        let is_alone = self.channels.values().filter(|channel| !channel.is_over()).count() == 1;
        let Some(channel) = self.channels.get(&id) else { return Ok(()) };
        if channel.input.push(data).is_err() {
            tracing::warn!(peer = %self.peer, "a channel is closed: too much of it was not read");
            if !channel.flood() {
                self.channels.remove(&id);
                return session.close(id);
            }
            return Ok(());
        }
        if is_alone {
            channel.input.pace().await;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        if let Some(channel) = self.channels.get(&id) {
            channel.input.end();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let takes = self.takes(name) && name.len() <= MOST_NAME && value.len() <= MOST_VALUE;
        let taken = match self.channels.get_mut(&id).filter(|channel| channel.is_fresh()) {
            Some(channel) if name == "SPL_SESSION_ID" && value.len() <= MOST_VALUE => {
                channel.session = Some(value.to_owned());
                true
            }
            Some(channel) if name == "SPL_BACKGROUND" => match value {
                "keep" | "kill" => {
                    channel.keeps_background = value == "keep";
                    true
                }
                _ => false,
            },
            Some(channel) if takes && channel.env.len() < MOST_ENV => {
                channel.env.push((name.to_owned(), value.to_owned()));
                true
            }
            _ => false,
        };
        reply(id, taken, session)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        let may = self.grant.as_ref().is_some_and(|grant| grant.pty);
        let window = Window {
            term: Some(term)
                .filter(|term| is_name_of_terminal(term))
                .unwrap_or_default()
                .to_owned(),
            size: size(cols, rows),
            modes: TerminalModes::new(modes.iter().map(|(mode, value)| (*mode as u8, *value))),
        };
        let given = match self.channels.get_mut(&id) {
            Some(channel) if may && channel.is_fresh() => {
                channel.window = Some(window);
                true
            }
            _ => false,
        };
        reply(id, given, session)
    }

    /// russh would leave the client waiting.
    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.refuse_forwarding("X11", NO_LISTENING);
        reply(id, false, session)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        cols: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Error> {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.resize(size(cols, rows));
        }
        Ok(())
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _: &mut Session) -> Result<(), Error> {
        if let Some((channel, signal)) = self.channels.get(&id).zip(known(&signal)) {
            channel.signal(signal);
        }
        Ok(())
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.start(id, Start::Shell, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        let command = OsStr::from_bytes(command).to_owned();
        self.start(id, Start::Command(command), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        if name == "sftp" && self.shared.engine.has_files() {
            self.start(id, Start::Sftp(sftp::Options::default()), session)
        } else {
            reply(id, false, session)
        }
    }
}

fn reply(id: ChannelId, is_done: bool, session: &mut Session) -> Result<(), Error> {
    if is_done { session.channel_success(id) } else { session.channel_failure(id) }
}

/// A refusal after which a client may try anything again.
fn refused(shared: &Shared) -> Auth {
    let mut methods = vec![russh::MethodKind::PublicKey];
    if shared.users.has_passwords() {
        methods.extend([russh::MethodKind::Password, russh::MethodKind::KeyboardInteractive]);
    }
    Auth::Reject {
        proceed_with_methods: Some(MethodSet::from(&methods[..])),
        partial_success: false,
    }
}

/// The user, and the session that is named after a plus sign, which no user's name has in it.
fn split(user: &str) -> (&str, Option<&str>) {
    match user.split_once('+') {
        Some((user, session)) => (user, Some(session)),
        None => (user, None),
    }
}

fn size(cols: u32, rows: u32) -> Size {
    let short = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    // What has no size of its own, such as a script, says 0.
    if cols == 0 || rows == 0 { Size::default() } else { Size::clamped(short(cols), short(rows)) }
}

fn is_name_of_terminal(term: &str) -> bool {
    term.len() <= 64 && term.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+._".contains(&b))
}

/// RFC 4254, section 6.10, and what OpenSSH sends beside it.
fn known(signal: &Sig) -> Option<Signal> {
    let number = match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(name) if name == "USR2" => 12,
        Sig::Custom(_) => return None,
    };
    Signal::from_number(number)
}

/// Whether this client names a link before what it leads to, as the draft has it. OpenSSH's server
/// takes them the other way round, and so do most clients; these ask who the server is.
fn links_first(client: &[u8]) -> bool {
    const ASK: [&[u8]; 5] = [
        b"SSH-2.0-AsyncSSH",
        b"SSH-2.0-WinSCP",
        b"SSH-2.0-libssh_",
        b"SSH-2.0-ssh2js",
        b"SSH-2.0-phpseclib",
    ];
    ASK.iter().any(|name| client.starts_with(name))
}

/// What tells a loader, a shell or an interpreter what to run, or where from.
const NEVER: &[&str] = &[
    "LD_*",
    "DYLD_*",
    "PATH",
    "BASH_ENV",
    "ENV",
    "IFS",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "NODE_OPTIONS",
    "PYTHON*",
    "PERL5*",
    "RUBY*",
    "SPL_*",
];
const NO_LISTENING: &str = "only connections to permitted targets are forwarded here";
/// Of what a client asks for, in the log.
const MAX_SHOWN_CHARS: usize = 300;
const MOST_ENV: usize = 64;
const MOST_NAME: usize = 256;
const MOST_VALUE: usize = 4096;
