//! A session on a channel: connects the client's terminal with the session's.

use std::ffi::OsString;

use bytes::BytesMut;
use splengine_core::auth::Access;
use splengine_core::execute::{Background, Stream};
use splengine_core::session::{Attach, Attachment, ClientInput, Closed, Notice, Update};
use splengine_core::terminal::{Size, TerminalModes};
use splengine_core::{Caller, Engine, SessionError, SessionRequest};
use tokio::io::AsyncReadExt as _;

use crate::channel_writer::{Disconnected, Exit, REFUSED, Reply};
use crate::context::{Controls, ExecContext};
use crate::exec;
use crate::spill_buffer::SpillReader;

/// What a client says of its terminal.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) term: String,
    pub(crate) size: Size,
    pub(crate) modes: TerminalModes,
}

/// Attaches the client to the session that it names, or to a new one, until the program ends or the
/// client goes. Dropping the future detaches.
pub(crate) async fn run(
    engine: &Engine,
    place: &ExecContext,
    window: Window,
    command: Option<OsString>,
    input: SpillReader,
    controls: Controls,
    reply: &Reply,
) -> Result<Exit, Disconnected> {
    let is_shell = command.is_none();
    let is_new = place.session.is_none();
    // Dropped after the attachment.
    let mut hangup = None;
    let mut attachment = match attach(engine, place, &window, command).await {
        Ok(attachment) => attachment,
        Err(error) => return Ok(reply.refuse(&words(&error), code(&error)).await),
    };
    if place.is_logged {
        let (user, session) = (place.caller.user(), attachment.info().id);
        tracing::info!(%user, %session, "a terminal is attached");
    }
    if is_new && !is_shell && !place.keeps_background {
        hangup = Some(Hangup::new(engine, place, attachment.info().id.to_string()));
    }
    if is_new && is_shell {
        let (id, user) = (attachment.info().id, place.caller.user());
        let words =
            format!("session {id}; hanging up leaves it running, {user}+{id}@… is back in it");
        reply.send(Stream::Stderr, format!("{words}\r\n").into()).await?;
    }
    let input_handle = attachment.input_handle();
    let exit = tokio::select! {
        exit = show(&mut attachment, reply) => exit?,
        never = obey(&input_handle, controls) => never,
        never = type_in(&input_handle, input) => never,
    };
    if let Some(hangup) = hangup {
        hangup.disarm();
    }
    match exit {
        ShellEnd::Ended(exit) => Ok(reply.finish(exit).await),
        ShellEnd::SentAway(why) => Ok(reply.refuse(why, REFUSED).await),
    }
}

/// Ends a command's session when its client hangs up, unless others are attached to it by then.
struct Hangup(Option<(Engine, Caller, String)>);

impl Hangup {
    fn new(engine: &Engine, place: &ExecContext, id: String) -> Self {
        Self(Some((engine.clone(), place.caller.clone(), id)))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Hangup {
    fn drop(&mut self) {
        let Some((engine, caller, id)) = self.0.take() else { return };
        // Where the runtime ends, so do the sessions of this process.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let sessions = engine.sessions();
            if sessions.get(&caller, &id).is_ok_and(|info| info.clients == 0) {
                tracing::info!(session = id, "a command ends: its client has hung up");
                drop(sessions.end(&caller, &id).await);
            }
        });
    }
}

enum ShellEnd {
    Ended(Exit),
    SentAway(&'static str),
}

async fn attach(
    engine: &Engine,
    place: &ExecContext,
    window: &Window,
    command: Option<OsString>,
) -> Result<Attachment, SessionError> {
    let sessions = engine.sessions();
    let attach = Attach::new(Access::Control).window(window.size);
    let (id, attach) = match &place.session {
        Some(id) => (id.clone(), attach),
        None => {
            let mut request =
                SessionRequest::new().size(window.size).terminal_modes(window.modes.clone());
            if !window.term.is_empty() {
                request = request.server_env("TERM", &window.term);
            }
            request = request.tty_variable("SSH_TTY");
            for (name, value) in &place.env {
                request = request.env(name, value);
            }
            for (name, value) in &place.server_env {
                request = request.server_env(name, value);
            }
            request = request.login_shell(command.is_none());
            if let Some(command) = command {
                request = request.command(command).use_shell(place.use_shell);
                if place.keeps_background {
                    request = request.background(Background::Keep);
                }
            }
            // Whoever logs in keeps what their terminal shows.
            (sessions.create(&place.caller, request).await?.id.to_string(), attach.from_start())
        }
    };
    sessions.attach(&place.caller, &id, attach)
}

/// Shows what the program prints.
async fn show(attachment: &mut Attachment, reply: &Reply) -> Result<ShellEnd, Disconnected> {
    let input_handle = attachment.input_handle();
    loop {
        let drawn = match attachment.next().await {
            Some(Update::Output { offset, data }) => {
                let end = offset + data.len() as u64;
                reply.send(Stream::Stdout, data).await?;
                end
            }
            Some(Update::Snapshot { offset, data, .. }) => {
                reply.send(Stream::Stdout, data).await?;
                offset
            }
            Some(Update::Notice(notice)) => {
                tell(&notice, reply).await?;
                continue;
            }
            Some(Update::Exit(status)) => return Ok(ShellEnd::Ended(status.into())),
            Some(Update::Closed(why)) => return Ok(ShellEnd::SentAway(closing_line(why))),
            Some(_) => continue,
            None => return Err(Disconnected),
        };
        input_handle.ack(drawn);
    }
}

async fn tell(notice: &Notice, reply: &Reply) -> Result<(), Disconnected> {
    let words = match notice {
        Notice::IdleWarning { seconds } => {
            format!("this session ends in {seconds} s unless something happens in it")
        }
        Notice::SizeRefused { size, reason } => {
            let (cols, rows) = (size.cols(), size.rows());
            format!("the terminal does not become {cols} columns by {rows} rows: {reason}")
        }
        Notice::Restart => "the server is shutting down".to_owned(),
        _ => return Ok(()),
    };
    reply.send(Stream::Stderr, format!("\r\n{words}\r\n").into()).await
}

fn closing_line(why: Closed) -> &'static str {
    match why {
        Closed::Expired => "the session was ended: it was idle, or too old",
        Closed::Revoked => "the right to this session was taken back",
        Closed::CredentialsRevoked => "the right to be here was taken back",
        Closed::Restart => "the server is shutting down",
        Closed::Replaced => "the same client has attached anew",
        Closed::Memory(shortage) => shortage.of_answer(),
        _ => "the session was closed",
    }
}

async fn obey(input_handle: &ClientInput, controls: Controls) -> ! {
    let Controls { mut signals, mut size } = controls;
    loop {
        // What has the terminal hears of a signal as of a key.
        let key = tokio::select! {
            Ok(()) = size.changed() => {
                input_handle.resize(*size.borrow_and_update());
                continue;
            }
            Some(signal) = signals.recv() => match signal.number() {
                2 => b"\x03",
                3 => b"\x1c",
                20 => b"\x1a",
                _ => continue,
            },
            else => std::future::pending().await,
        };
        drop(input_handle.input(bytes::Bytes::from_static(key)).await);
    }
}

/// Types what the client sends. Its end is not the session's: whoever closes standard input wants to
/// look on.
async fn type_in(input_handle: &ClientInput, mut input: SpillReader) -> ! {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(4096);
        match input.read_buf(&mut buffer).await {
            Ok(1..) => {}
            _ => std::future::pending().await,
        }
        // Who may only look is not told so at each key.
        drop(input_handle.input(buffer.split().freeze()).await);
    }
}

fn code(error: &SessionError) -> u32 {
    match error {
        SessionError::Start(error) => exec::code(error),
        _ => REFUSED,
    }
}

fn words(error: &SessionError) -> String {
    match error {
        SessionError::NoSession(id) => format!("no such session: {id}"),
        other => other.to_string(),
    }
}
