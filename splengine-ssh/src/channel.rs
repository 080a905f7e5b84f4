//! One channel of a connection: what its client asks for before it starts something, and what runs.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use russh::server::ChannelOpenHandle;
use splengine_core::execute::{Background, Signal};
use splengine_core::net::Peer;
use splengine_core::quota::CallerPlace;
use splengine_core::terminal::Size;
use splengine_core::{Request, Scope, UserName};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use crate::channel_writer::{Disconnected, Exit, MISUSE, REFUSED, Reply};
use crate::command_line::{self, Wanted};
use crate::context::{Context, Controls, ExecContext};
use crate::forward::Destination;
use crate::login::Login;
use crate::path_memory::PathMemory;
use crate::shell::Window;
use crate::spill_buffer::{SpillReader, SpillWriter};
use crate::users::Grant;
use crate::{exec, rsync, scp, sessions, sftp, shell};

/// What a client may start.
#[derive(Debug, Clone)]
pub(crate) enum Start {
    Shell,
    Command(OsString),
    Sftp(sftp::Options),
}

pub(crate) struct Channel {
    /// Variables that the client has set.
    pub(crate) env: Vec<(String, String)>,
    /// Variables that this server sets.
    pub(crate) server_env: Vec<(String, String)>,
    pub(crate) session: Option<String>,
    pub(crate) window: Option<Window>,
    /// Whether its client names a link before what it leads to.
    pub(crate) links_first: bool,
    /// Whether the client asks that what runs in the background outlives its command.
    pub(crate) keeps_background: bool,
    pub(crate) input: SpillWriter,
    /// What its caller has of all channels; as long as something runs, that has it.
    place: Option<CallerPlace>,
    state: State,
    is_closed: Arc<AtomicBool>,
}

enum State {
    Fresh(Reply, SpillReader),
    Running {
        signals: mpsc::Sender<Signal>,
        size: watch::Sender<Size>,
        flood: Arc<Notify>,
        task: AbortHandle,
    },
    /// Only while it changes.
    Neither,
}

impl Channel {
    pub(crate) fn new(reply: Reply, context: &Context, place: CallerPlace) -> Self {
        let user = place.user().clone();
        let (input, outlet) = crate::spill_buffer::channel(Arc::clone(&context.disk), user);
        Self {
            env: Vec::new(),
            server_env: Vec::new(),
            session: None,
            window: None,
            links_first: false,
            keeps_background: false,
            input,
            place: Some(place),
            is_closed: Arc::clone(&reply.is_closed),
            state: State::Fresh(reply, outlet),
        }
    }

    /// Whether one more variable may be set.
    pub(crate) fn has_room_for(&self, name: &str, value: &str) -> bool {
        let length = |(name, value): &(String, String)| name.len() + value.len();
        let all = || self.env.iter().chain(&self.server_env);
        let bytes = all().map(length).sum::<usize>() + name.len() + value.len();
        all().count() < MAX_VARIABLES && bytes <= MAX_VARIABLES_BYTES
    }

    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self.state, State::Fresh(..))
    }

    /// Whether what ran on it has ended. russh does not tell of the client's close after our own.
    pub(crate) fn is_over(&self) -> bool {
        self.is_closed.load(Relaxed)
            || matches!(&self.state, State::Running { task, .. } if task.is_finished())
    }

    /// Starts what the client asks for. Says whether it may: once a channel.
    pub(crate) fn start(
        &mut self,
        context: &Arc<Context>,
        peer: Peer,
        login: &Login,
        grant: &Grant,
        start: Start,
    ) -> bool {
        let (mut reply, input) = match std::mem::replace(&mut self.state, State::Neither) {
            State::Fresh(reply, input) => (reply, input),
            other => {
                self.state = other;
                return false;
            }
        };
        let (signals, heard) = mpsc::channel(MAX_WAITING_SIGNALS);
        let (mut env, mut server_env) = (self.env.clone(), self.server_env.clone());
        let of_key = grant.environment.iter().cloned();
        env.extend(of_key.filter(|(name, _)| context.engine.accepts_env(name)));
        let is_text = !matches!(&start, Start::Command(command) if command.to_str().is_none());
        let start = forced(grant, start, &mut server_env);
        // Who may run one command only may not have the shell of a session instead.
        let session = self.session.take().filter(|_| grant.forced_command.is_none());
        let unlogged = context.lines.beginnings.take(grant.caller.user().clone());
        let place = ExecContext {
            caller: grant.caller.clone(),
            session,
            env,
            server_env,
            links_first: self.links_first,
            use_shell: context.engine.may_use_shell(&grant.caller),
            keeps_background: grant.keeps_background.unwrap_or(self.keeps_background),
            is_logged: unlogged.is_some(),
        };
        let refusal = match grant.forced_command.as_deref() {
            Some(_) if !is_text => Some(NOT_TEXT),
            Some(forced) if !place.use_shell && command_line::wants_original(forced) => {
                let user = place.caller.user();
                if let Some(unlogged) = context.lines.refusals.take(user.clone()) {
                    tracing::warn!(%user, unlogged, "a key's command is not run: {NO_ORIGINAL}");
                }
                Some(NO_ORIGINAL)
            }
            _ => None,
        };
        let window = self.window.take().filter(|_| grant.pty);
        reply.in_terminal = window.is_some();
        let (size, sized) =
            watch::channel(window.as_ref().map_or_else(Size::default, |window| window.size));
        let controls = Controls { signals: heard, size: sized };
        let flood = Arc::new(Notify::new());
        let flooded = Arc::clone(&flood);
        let context = Arc::clone(context);
        let what = start.name();
        if let Some(unlogged) = unlogged {
            tracing::info!(user = %place.caller.user(), %peer, what, unlogged, "a channel begins");
        }
        let (user, is_logged) = (place.caller.user().clone(), place.is_logged);
        let mut trail = AuditGuard { user, peer, what, exit: None, is_logged };
        // Files are served for as long as the client likes.
        let running = (!matches!(start, Start::Sftp(_))).then(|| login.running());
        let (taken, activity) = (self.place.take(), login.begin());
        let task = tokio::spawn(async move {
            let (_running, _taken, _activity) = (running, taken, activity);
            let performed = async {
                if let Some(why) = refusal {
                    return Ok(reply.refuse(why, MISUSE).await);
                }
                perform(&context, place, window, start, input, controls, &reply).await
            };
            let exit = tokio::select! {
                done = performed => done.ok(),
                () = flooded.notified() => Some(reply.cut_off(TOO_MUCH).await),
            };
            trail.end(exit);
        });
        self.state = State::Running { signals, size, flood, task: task.abort_handle() };
        true
    }

    /// Connects to `destination`, and passes on what either side sends. The client is answered when it
    /// is known whether that can be done.
    pub(crate) fn forward(
        &mut self,
        context: &Arc<Context>,
        destination: Destination,
        answer: ChannelOpenHandle,
        peer: Peer,
        login: &Login,
        grant: &Grant,
    ) {
        let (reply, input) = match std::mem::replace(&mut self.state, State::Neither) {
            State::Fresh(reply, input) => (reply, input),
            other => {
                self.state = other;
                return;
            }
        };
        let (user, context) = (grant.caller.user().clone(), Arc::clone(context));
        let is_closed = Arc::clone(&self.is_closed);
        let flood = Arc::new(Notify::new());
        let flooded = Arc::clone(&flood);
        let (taken, activity) = (self.place.take(), login.begin());
        let task = tokio::spawn(async move {
            let (_taken, _activity) = (taken, activity);
            let connected = match destination.connect().await {
                Ok(connected) => connected,
                Err(reason) => {
                    is_closed.store(true, Relaxed);
                    answer.reject(reason).await;
                    return;
                }
            };
            if let Some(unlogged) = context.lines.beginnings.take(user.clone()) {
                tracing::info!(%user, %peer, ?destination, unlogged, "a connection is forwarded");
            }
            answer.accept().await;
            tokio::select! {
                () = connected.serve(input, &reply) => {}
                () = flooded.notified() => reply.close().await,
            }
        });
        let (signals, size) = (mpsc::channel(1).0, watch::channel(Size::default()).0);
        self.state = State::Running { signals, size, flood, task: task.abort_handle() };
    }

    /// Ends what runs, since more was sent than is kept for it. Says whether anything runs.
    pub(crate) fn flood(&self) -> bool {
        match &self.state {
            State::Running { flood, .. } => {
                flood.notify_one();
                true
            }
            _ => false,
        }
    }

    /// Beyond their bound signals are dropped: who sends them that fast means the same.
    pub(crate) fn signal(&self, signal: Signal) {
        if let State::Running { signals, .. } = &self.state {
            let _ = signals.try_send(signal);
        }
    }

    pub(crate) fn resize(&mut self, new: Size) {
        match (&self.state, &mut self.window) {
            (State::Running { size, .. }, _) => drop(size.send_replace(new)),
            (_, Some(window)) => window.size = new,
            _ => {}
        }
    }
}

impl Drop for Channel {
    /// A run is cancelled with its channel; a session is left. What has ended still says so.
    fn drop(&mut self) {
        if let State::Running { task, .. } = &self.state
            && !self.is_closed.load(Relaxed)
        {
            task.abort();
        }
    }
}

impl Start {
    fn name(&self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Command(_) => "exec",
            Self::Sftp(_) => "sftp",
        }
    }
}

/// Says in the log how a channel has ended, whatever ends it.
struct AuditGuard {
    user: UserName,
    peer: Peer,
    what: &'static str,
    exit: Option<Exit>,
    /// Whether the log tells of the channel.
    is_logged: bool,
}

impl AuditGuard {
    fn end(&mut self, exit: Option<Exit>) {
        self.exit = exit;
    }
}

impl Drop for AuditGuard {
    fn drop(&mut self) {
        let Self { user, peer, what, exit, is_logged } = self;
        match exit {
            _ if !*is_logged => {}
            Some(exit) => tracing::info!(%user, %peer, what, ?exit, "a channel has ended"),
            None => tracing::info!(%user, %peer, what, "a channel's client is gone"),
        }
    }
}

/// What a key's `command=` puts in place of what was asked for.
fn forced(grant: &Grant, asked: Start, env: &mut Vec<(String, String)>) -> Start {
    let Some(command) = &grant.forced_command else { return asked };
    let original = match asked {
        Start::Command(original) => original.into_string().ok(),
        // As sshd calls it.
        Start::Sftp(_) => Some("internal-sftp".to_owned()),
        Start::Shell => None,
    };
    env.extend(original.map(|original| ("SSH_ORIGINAL_COMMAND".to_owned(), original)));
    match sftp::Options::parse(command) {
        Some(options) => Start::Sftp(options),
        None => Start::Command(command.into()),
    }
}

async fn perform(
    context: &Context,
    mut place: ExecContext,
    window: Option<Window>,
    start: Start,
    mut input: SpillReader,
    controls: Controls,
    reply: &Reply,
) -> Result<Exit, Disconnected> {
    let engine = &context.engine;
    let memory = || PathMemory::new(&context.sftp_memory.of(place.caller.accounted_user()));
    let request = match (start, window) {
        (Start::Sftp(options), _) => {
            let options = sftp::Options { links_first: place.links_first, ..options };
            let (files, caller) = (engine.files(), place.caller);
            let wide = context.wide_sftp.take(caller.user()).ok();
            let requests = if wide.is_some() { sftp::MAX_REQUESTS } else { sftp::MIN_REQUESTS };
            let output = reply.writer();
            let budget = context.sftp_memory.of(caller.accounted_user());
            let served = sftp::serve(files, caller, options, input, output, requests, budget).await;
            drop(wide);
            return match served {
                Ok(()) => Ok(reply.finish(Exit::Code(0)).await),
                Err(error) => Ok(reply.refuse(&error.to_string(), 1).await),
            };
        }
        (Start::Command(command), _) if command.to_string_lossy().trim().is_empty() => {
            return Ok(reply.refuse("there is no command to run", REFUSED).await);
        }
        // A user's name with nothing behind its plus sign.
        (start @ (Start::Shell | Start::Command(_)), window)
            if place.session.as_deref() == Some("") =>
        {
            let command = match &start {
                Start::Command(command) => command.as_os_str(),
                _ => OsStr::new("list"),
            };
            return sessions::run(engine, &place.caller, command, window.is_some(), reply).await;
        }
        (Start::Shell, Some(window)) => {
            return shell::run(engine, &place, window, None, input, controls, reply).await;
        }
        (Start::Command(_), Some(_)) if place.session.is_some() => {
            let words = "a session runs already: leave out the command, or the session";
            return Ok(reply.refuse(words, REFUSED).await);
        }
        (Start::Command(command), Some(window)) => {
            let command = Some(command);
            return shell::run(engine, &place, window, command, input, controls, reply).await;
        }
        (Start::Shell, None) => Request::shell(),
        (Start::Command(command), None) => match command_line::read(command) {
            Wanted::Command(command) => {
                let names_its_program = !place.use_shell && !engine.has_program();
                if names_its_program
                    && place.caller.may(Scope::Execute)
                    && let Some(code) = command_line::exit_code(&command)
                {
                    return Ok(reply.finish(Exit::Code(code)).await);
                }
                if command_line::is_push(&command) && !place.keeps_background {
                    place.server_env.extend(foreground_gc());
                }
                Request::new(command).use_shell(place.use_shell)
            }
            Wanted::Rsync(words) => {
                let files = engine.files();
                match rsync::request(&files, &place.caller, words, &mut input, memory()).await {
                    Ok(request) => request,
                    Err(why) => return Ok(reply.refuse(&format!("rsync: {why}"), REFUSED).await),
                }
            }
            Wanted::Scp(options) if context.options.serves_scp => {
                let files = engine.files();
                return scp::run(&files, &place.caller, options, input, reply, memory()).await;
            }
            Wanted::Scp(_) => return scp::refuse(reply).await,
            Wanted::CopyId => {
                let user = place.caller.user();
                let words = format!(
                    "ssh-copy-id: keys are not added by a command here, and those below the home \
                     directory let nobody in: ask the operator of this server to add yours to the \
                     file `{user}` in its directory of authorized keys"
                );
                return Ok(reply.refuse(&words, 1).await);
            }
            Wanted::Refused(why) => return Ok(reply.refuse(&why, REFUSED).await),
        },
    };
    let background = if place.keeps_background { Background::Keep } else { Background::Kill };
    exec::run(engine, &place, request.background(background), input, controls, reply).await
}

/// Has git pack a repository before a push is over, instead of in the background, where that would end
/// with it.
fn foreground_gc() -> impl Iterator<Item = (String, String)> {
    [
        ("GIT_CONFIG_COUNT", "2"),
        ("GIT_CONFIG_KEY_0", "gc.autoDetach"),
        ("GIT_CONFIG_VALUE_0", "false"),
        ("GIT_CONFIG_KEY_1", "maintenance.autoDetach"),
        ("GIT_CONFIG_VALUE_1", "false"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

const NO_ORIGINAL: &str = "the command that this key is bound to has $SSH_ORIGINAL_COMMAND in it, \
    which only a shell puts in place, and none reads it here: let the program read that variable, \
    or put a shell into command=, as in sh -c '…'";
const NOT_TEXT: &str = "the command is not UTF-8; the command that this key is bound to is told only of those \
    that are";
/// Maximum number of a client's signals that wait to be sent to a program; further ones are dropped.
const MAX_WAITING_SIGNALS: usize = 32;
/// Maximum number of variables of one channel, with those that are set for it; more are refused.
const MAX_VARIABLES: usize = 64;
/// Maximum length of all their names and values together.
const MAX_VARIABLES_BYTES: usize = 32 << 10;
const TOO_MUCH: &str = "more was sent than is kept of you, or than there is room for on the disk, for a program that does \
     not read it";
