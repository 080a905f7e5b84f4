//! A connection, as russh tells of it.

mod convert;
mod forwarding;
mod variables;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use russh::keys::ssh_key;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{ChannelId, ChannelOpenFailure, Error, MethodSet, Pty, Sig};
use splengine_core::UserName;
use splengine_core::auth::{AuthError, CredentialSource, Secret};
use splengine_core::net::{ListenAddr, Peer};
use splengine_core::terminal::TerminalModes;

use crate::channel::{Channel, Start};
use crate::channel_writer::Reply;
use crate::context::Context;
use crate::forward::Destination;
use crate::login::Login;
use crate::sftp;
use crate::shell::Window;
use crate::users::{Entry, Grant};

use convert::{is_name_of_terminal, known, links_first, size};

pub(crate) struct Client {
    context: Arc<Context>,
    peer: Peer,
    /// What the client has connected to.
    ours: ListenAddr,
    source: CredentialSource,
    login: Login,
    grant: Option<Arc<Grant>>,
    /// Of the session that the user's name has at its end.
    session: Option<String>,
    channels: HashMap<ChannelId, Channel>,
}

impl Client {
    pub(crate) fn new(
        context: Arc<Context>,
        (peer, ours): (Peer, ListenAddr),
        source: CredentialSource,
        login: Login,
    ) -> Self {
        let channels = HashMap::new();
        Self { context, peer, ours, source, login, grant: None, session: None, channels }
    }

    /// The answer to an authentication, successful or not.
    fn let_in(&mut self, user: &str, entry: Option<Entry>) -> Auth {
        let Some(entry) = entry else { return refused(&self.context) };
        let grant = Arc::clone(entry.grant());
        let (_, session) = split(user);
        let user = grant.caller.user();
        if let Some(unlogged) = self.context.lines.logins.take(user.clone()) {
            let (peer, how) = (self.peer, &grant.how);
            tracing::info!(%user, %peer, how, session, unlogged, "logged in");
        }
        self.session = session.map(str::to_owned);
        self.grant = Some(grant);
        self.login.enter(entry);
        Auth::Accept
    }

    /// Whether the log tells that something is refused to this user, and of how many before it did not.
    fn may_log_refusal(&self) -> Option<(&UserName, u64)> {
        let user = self.grant.as_ref()?.caller.user();
        Some((user, self.context.lines.refusals.take(user.clone())?))
    }

    fn start(&mut self, id: ChannelId, start: Start, session: &mut Session) -> Result<(), Error> {
        let started = match (self.channels.get_mut(&id), &self.grant) {
            (Some(channel), Some(grant)) => {
                channel.start(&self.context, self.peer, &self.login, grant, start)
            }
            _ => false,
        };
        reply(id, started, session)
    }

    /// Makes a channel on which something can be started, if there may be one more.
    fn channel(&mut self, channel: russh::Channel<Msg>, session: &Session) -> Option<ChannelId> {
        self.channels.retain(|_, channel| !channel.is_over());
        if self.channels.len() >= self.context.options.max_channels {
            return None;
        }
        let place = self.context.channels.take(self.grant.as_ref()?.caller.user()).ok()?;
        // What comes is taken from `data` below. The reading half, in which russh waits for room,
        // is let go.
        let (_, writer) = channel.split();
        let id = writer.id();
        let mut reply = Reply::new(writer, session.handle());
        reply.signals_as_status = self.context.options.signals_as_status;
        let mut channel = Channel::new(reply, &self.context, place);
        channel.session.clone_from(&self.session);
        channel.links_first = links_first(session.remote_sshid());
        channel.server_env = self.ends();
        self.channels.insert(id, channel);
        Some(id)
    }
}

impl Handler for Client {
    type Error = Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Error> {
        Ok(refused(&self.context))
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        let users = &self.context.users;
        let user = split(user).0;
        let offered = users.offered(user, offer.public_key, offer.algorithm, self.peer);
        match self.login.check(offered).await {
            true => Ok(Auth::Accept),
            false => Ok(refused(&self.context)),
        }
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        let known = self.context.users.by_key(split(user).0, key.public_key, self.peer);
        let entry = self.login.check(known).await;
        Ok(self.let_in(user, entry))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &ssh_key::Certificate,
    ) -> Result<Auth, Error> {
        let known = self.context.users.by_certificate(split(user).0, certificate, self.peer);
        let entry = self.login.check(known).await;
        Ok(self.let_in(user, entry))
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        let (password, name) = (Secret::new(password), split(user).0);
        let Context { users, engine, .. } = &*self.context;
        let known = async {
            let known = users.by_password(name, &password, self.peer).await;
            known.ok_or(AuthError::Invalid)
        };
        let known = engine.check_password(name, &password, &self.source, known);
        let known = self.login.check(known).await;
        if known.is_err() {
            self.login.count_failure();
        }
        Ok(self.let_in(user, known.ok()))
    }

    async fn auth_keyboard_interactive(
        &mut self,
        user: &str,
        _: &str,
        response: Option<Response<'_>>,
    ) -> Result<Auth, Error> {
        let Some(mut response) = response.filter(|_| self.context.users.has_passwords()) else {
            if !self.context.users.has_passwords() {
                return Ok(refused(&self.context));
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
            Err(_) => Ok(refused(&self.context)),
        }
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Error> {
        self.login.succeed();
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
        self.refuse_listening(&format!("listening at {address}:{port}"));
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Error> {
        self.refuse_listening(&format!("listening at {path}"));
        Ok(false)
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, Error> {
        self.refuse_listening("the client's agent");
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
            if let Some((user, unlogged)) = self.may_log_refusal() {
                let peer = self.peer;
                tracing::warn!(
                    %user, %peer, unlogged, "a channel is closed: too much of it was not read"
                );
            }
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
        let taken = self.set_variable(id, name, value);
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
        self.refuse_listening("X11");
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
        if name == "sftp" && self.context.engine.has_files() {
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
fn refused(context: &Context) -> Auth {
    let mut methods = vec![russh::MethodKind::PublicKey];
    if context.users.has_passwords() {
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
