//! The frames that a client sends, and what is done for each.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::SplitStream;
use splengine_core::auth::Access;
use splengine_core::quota::LargeWorkError;
use splengine_core::session::{Attach, ClientInput, TerminalColors};
use splengine_core::terminal::Size;
use splengine_core::{Caller, Field, SessionError, SessionRequest};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use crate::connection::tell::{Outbound, patience};
use crate::connection::typing::Typed;
use crate::context::Context;
use crate::encode;
use crate::frame::{AccessWord, Binary, ControlOp, Frame, TextFrame};
use crate::frame_memory::{FrameMemory, Socket};

/// What the address of an upgrade asks for.
#[derive(Debug, Default)]
pub(crate) struct AttachQuery {
    pub(crate) session: Option<String>,
    pub(crate) access: Option<AccessWord>,
    pub(crate) window: Option<Size>,
}

/// Reads frames, one after the other.
pub(crate) struct Inbound {
    pub(crate) context: Arc<Context>,
    pub(crate) frame_memory: Arc<FrameMemory>,
    pub(crate) caller: Caller,
    pub(crate) is_v1: bool,
    pub(crate) words: mpsc::Sender<Outbound>,
    pub(crate) typing: mpsc::Sender<Typed>,
    pub(crate) input_permits: Arc<Semaphore>,
    pub(crate) input_handle: Option<(ClientInput, String)>,
    pub(crate) window: Option<Size>,
    pub(crate) colors: Option<TerminalColors>,
    /// The client has said that it goes.
    pub(crate) has_left: bool,
    /// Before that, no further attachment is made.
    pub(crate) next_attach: Option<Instant>,
}

pub(crate) async fn listen(
    mut listener: Inbound,
    stream: &mut SplitStream<Socket>,
    wish: AttachQuery,
    first: Option<Frame>,
    too_large: &AtomicBool,
) {
    let patience = patience(listener.context.options.ping_every);
    if let Flow::Break(()) = listener.begin(stream, wish, first).await {
        return listener.wait_for_close().await;
    }
    loop {
        let message = match timeout(patience, stream.next()).await {
            Err(_) => {
                tracing::debug!("a client gives no sign of life");
                return;
            }
            Ok(None) => return,
            Ok(Some(Err(error))) => return listener.broken(&error, too_large).await,
            Ok(Some(Ok(message))) => message,
        };
        if let Flow::Break(()) = listener.message(message).await {
            return listener.wait_for_close().await;
        }
    }
}

type Flow = ControlFlow<()>;

/// Why a text frame was not read.
enum Misread {
    Wrong {
        problem: String,
        is_object: bool,
    },
    /// It is large, and did not get its turn.
    Busy(LargeWorkError),
}

impl Inbound {
    /// What a client gets that has said nothing yet.
    async fn begin(
        &mut self,
        stream: &mut SplitStream<Socket>,
        wish: AttachQuery,
        first: Option<Frame>,
    ) -> Flow {
        let says = |frame: &Frame| !matches!(frame, Frame::Hello {} | Frame::Unknown);
        if let Some(control) = first.filter(says) {
            return self.control(control).await;
        }
        if let Some(session) = wish.session {
            return self.attach(&session, wish.access, Attach::new, None).await;
        }
        if let Some(guest) = self.caller.guest() {
            let session = guest.session.to_string();
            return self.attach(&session, wish.access, Attach::new, None).await;
        }
        if self.is_v1 {
            // Such clients mostly say at once what they want.
            let deadline = Instant::now() + FIRST_WORD_WITHIN;
            while self.input_handle.is_none() {
                match timeout_at(deadline, stream.next()).await {
                    Err(_) => break,
                    Ok(Some(Ok(message))) => self.message(message).await?,
                    Ok(_) => return Flow::Break(()),
                }
            }
            if self.input_handle.is_some() {
                return Flow::Continue(());
            }
        }
        self.create(SessionRequest::new(), false).await
    }

    async fn message(&mut self, message: Message) -> Flow {
        let length = match &message {
            Message::Text(text) => text.len(),
            Message::Binary(data) => data.len(),
            _ => 0,
        };
        if length > self.context.options.max_message {
            return self.too_large().await;
        }
        match message {
            Message::Text(text) => match self.parse(text).await {
                Ok(frame) => self.control(frame.frame).await,
                Err(Misread::Wrong { problem, is_object: false }) if self.is_v1 => {
                    self.last(encode::error(&problem, "invalid"), 4400, "protocol").await
                }
                Err(Misread::Wrong { problem, .. }) => {
                    self.say(encode::error(&problem, "invalid")).await
                }
                Err(Misread::Busy(error)) => {
                    self.say(encode::error(&error.to_string(), "limit")).await
                }
            },
            Message::Binary(data) if !self.is_v1 => self.input(None, data).await,
            Message::Binary(data) => match Binary::parse(data) {
                Ok(Binary::Input { number, data }) => self.input(Some(number), data).await,
                Ok(Binary::Ack { offset }) => {
                    if let Some((input_handle, _)) = &self.input_handle {
                        input_handle.ack(offset);
                    }
                    Flow::Continue(())
                }
                Err(problem) => {
                    self.last(encode::error(problem, "invalid"), 4400, "protocol").await
                }
            },
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Flow::Continue(()),
            Message::Close(_) => {
                self.has_left = true;
                Flow::Break(())
            }
        }
    }

    /// Reads a text frame, apart from the runtime's workers if it is large.
    async fn parse(&self, text: Utf8Bytes) -> Result<TextFrame, Misread> {
        let work = self.context.engine.large_work();
        let permit = work.permit(self.caller.accounted_user(), text.len()).await;
        let parse = move || {
            TextFrame::parse(&text).map_err(|problem| {
                let is_object = text.trim_start().starts_with('{');
                Misread::Wrong { problem, is_object }
            })
        };
        permit.map_err(Misread::Busy)?.run(parse).await.map_err(Misread::Busy)?
    }

    async fn control(&mut self, frame: Frame) -> Flow {
        match frame {
            Frame::Hello {} | Frame::Unknown => Flow::Continue(()),
            Frame::Input { data } => self.input(None, Bytes::from(data)).await,
            Frame::Resize { cols, rows } => {
                self.window = size(Some(cols), Some(rows));
                if let (Some(size), Some((input_handle, _))) = (self.window, &self.input_handle) {
                    input_handle.resize(size);
                }
                Flow::Continue(())
            }
            Frame::Colors { foreground, background, cursor } => {
                let colors = TerminalColors::new(foreground.0, background.0);
                let colors = cursor.map_or(colors, |cursor| colors.cursor(cursor.0));
                self.colors = Some(colors);
                if let Some((input_handle, _)) = &self.input_handle {
                    input_handle.set_colors(colors);
                }
                Flow::Continue(())
            }
            Frame::NewSession { command, args, workdir, name, cols, rows } => {
                self.window = size(cols, rows).or(self.window);
                let mut request = SessionRequest::new();
                if let Some(command) = command {
                    request = request.command(command);
                }
                request = request.args(args.into_iter().flatten());
                if let Some(workdir) = workdir {
                    request = request.workdir(workdir);
                }
                if let Some(name) = name {
                    request = request.name(name);
                }
                self.create(request, false).await
            }
            Frame::Attach { session_id, access, epoch, offset, client, cols, rows } => {
                self.window = size(cols, rows).or(self.window);
                let resumes = epoch.is_some();
                let shape = move |access| {
                    let mut attach = Attach::new(access);
                    if let (Some(epoch), Some(offset)) = (epoch, offset) {
                        attach = attach.resume(epoch, offset);
                    }
                    match client {
                        Some(client) => attach.client(client),
                        None => attach,
                    }
                };
                self.attach(&session_id, access, shape, Some(resumes)).await
            }
            Frame::SaveSession { name } => {
                let Some((_, id)) = self.input_handle.clone() else { return self.nothing().await };
                match self.context.engine.sessions().save(&self.caller, &id, name).await {
                    Ok(saved) => self.say(encode::saved(&saved)).await,
                    Err(error) => self.refuse(&error).await,
                }
            }
            Frame::LoadSession { saved_id } => {
                self.create(SessionRequest::new().restore(&saved_id), true).await
            }
            Frame::CloseSession {} => {
                let Some((input_handle, id)) = self.input_handle.clone() else {
                    return self.nothing().await;
                };
                if input_handle.access() == Access::View {
                    let problem =
                        "this client may only look; attach with control to end the session";
                    return self.refuse(&SessionError::Forbidden(problem)).await;
                }
                match self.context.engine.sessions().end(&self.caller, &id).await {
                    Ok(()) => Flow::Continue(()),
                    Err(error) => self.refuse(&error).await,
                }
            }
            Frame::Reset {} => {
                let Some((input_handle, _)) = &self.input_handle else {
                    return self.nothing().await;
                };
                match input_handle.reset() {
                    Ok(()) => Flow::Continue(()),
                    Err(error) => self.refuse(&error).await,
                }
            }
            Frame::Control { op, to } => {
                let Some((input_handle, _)) = &self.input_handle else {
                    return self.nothing().await;
                };
                let done = match (op, to) {
                    (ControlOp::Take, _) => input_handle.take_control(),
                    (ControlOp::Release, _) => input_handle.release_control(),
                    (ControlOp::Grant, Some(to)) => input_handle.grant_control(&to),
                    (ControlOp::Grant, None) => Err(SessionError::Malformed {
                        field: Field::To,
                        problem: "must name the client that is to have control".to_owned(),
                    }),
                };
                match done {
                    Ok(()) => Flow::Continue(()),
                    Err(error) => self.refuse(&error).await,
                }
            }
            Frame::Ping { t } => self.say(encode::pong(t)).await,
        }
    }

    async fn create(&mut self, request: SessionRequest, loads: bool) -> Flow {
        let request = match self.window {
            Some(size) => request.size(size),
            None => request,
        };
        let made = self.context.engine.sessions().create(&self.caller, request).await;
        match made {
            Ok(session) => {
                let id = session.id.to_string();
                // A plain client has all that the program printed, also before it was attached.
                let from_start = loads || !self.is_v1;
                let shape = move |access| {
                    let attach = Attach::new(access);
                    if from_start { attach.from_start() } else { attach }
                };
                self.attach(&id, None, shape, None).await
            }
            Err(error) => self.refuse(&error).await,
        }
    }

    async fn attach(
        &mut self,
        id: &str,
        access: Option<AccessWord>,
        shape: impl FnOnce(Access) -> Attach,
        resumes: Option<bool>,
    ) -> Flow {
        let access = match access {
            Some(AccessWord::View) => Access::View,
            _ => Access::Control,
        };
        let mut attach = shape(access);
        if let Some(size) = self.window {
            attach = attach.window(size);
        }
        if let Some(colors) = self.colors {
            attach = attach.colors(colors);
        }
        // A screen is drawn for each, and all other clients are told.
        if let Some(next) = self.next_attach {
            sleep_until(next).await;
        }
        self.next_attach = Some(Instant::now() + ATTACH_INTERVAL);
        match self.context.engine.sessions().attach(&self.caller, id, attach) {
            Ok(attachment) => {
                let input_handle = attachment.input_handle();
                let number = (self.is_v1 && resumes.is_some()).then(|| input_handle.next_number());
                self.input_handle = Some((input_handle, id.to_owned()));
                self.tell(Outbound::Session(Box::new(attachment), number)).await
            }
            Err(error) => self.refuse(&error).await,
        }
    }

    async fn input(&mut self, number: Option<u64>, data: Bytes) -> Flow {
        let Some((input_handle, _)) = &self.input_handle else { return self.nothing().await };
        let input_handle = input_handle.clone();
        let wanted = u32::try_from(data.len().min(MAX_INPUT_BYTES)).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.input_permits).acquire_many_owned(wanted).await.ok();
        // What small messages take is not counted: there are no more of them than there is room.
        let reservation = self.frame_memory.take_reservation();
        let typed =
            Typed { input_handle, number, data, _permits: permits, _reservation: reservation };
        match self.typing.send(typed).await {
            Ok(()) => Flow::Continue(()),
            Err(_) => Flow::Break(()),
        }
    }

    /// Without a session there is nothing to do this with.
    async fn nothing(&self) -> Flow {
        self.say(encode::error("no session is attached", "no_session")).await
    }

    /// Says why not. A client that has no session is closed: there is nothing else to do for it.
    async fn refuse(&self, error: &SessionError) -> Flow {
        let (message, code, reason) = encode::refusal(error);
        if self.input_handle.is_some() {
            self.say(message).await
        } else {
            self.last(message, code, reason).await
        }
    }

    async fn broken(&self, error: &tungstenite::Error, too_large: &AtomicBool) {
        let text = error_chain(error);
        let flow = if let Some(shortage) = self.frame_memory.shortage() {
            too_large.store(true, Relaxed);
            let (code, word) = encode::shortage_code(shortage);
            self.last(encode::error(&shortage.to_string(), word), code, word).await
        } else if text.contains("too long") || text.contains("too big") {
            too_large.store(true, Relaxed);
            self.too_large().await
        } else {
            tracing::debug!(%error, "a WebSocket broke");
            return;
        };
        if let Flow::Break(()) = flow {
            self.wait_for_close().await;
        }
    }

    async fn too_large(&self) -> Flow {
        let message = format!("a message is over {} bytes", self.context.options.max_message);
        self.last(encode::error(&message, "too_large"), 4413, "too large").await
    }

    async fn say(&self, message: Message) -> Flow {
        self.tell(Outbound::Say(message)).await
    }

    async fn last(&self, message: Message, code: u16, reason: &'static str) -> Flow {
        let _ = self.tell(Outbound::Last(message, code, reason)).await;
        Flow::Break(())
    }

    async fn tell(&self, word: Outbound) -> Flow {
        match self.words.send(word).await {
            Ok(()) => Flow::Continue(()),
            Err(_) => Flow::Break(()),
        }
    }

    /// Leaves the teller the time to say its last.
    async fn wait_for_close(&self) {
        if self.has_left {
            return;
        }
        let _ = timeout(LAST_WORDS, self.words.closed()).await;
    }
}

/// A size from two numbers that a client sent; the nearest that there can be.
pub(crate) fn size(cols: Option<u64>, rows: Option<u64>) -> Option<Size> {
    let clamp = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
    let default = Size::default();
    if cols.is_none() && rows.is_none() {
        return None;
    }
    Some(Size::clamped(cols.map_or(default.cols(), clamp), rows.map_or(default.rows(), clamp)))
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string().to_lowercase();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &error.to_string().to_lowercase();
        cause = error.source();
    }
    text
}

/// Minimum time from one attachment of a client to its next.
const ATTACH_INTERVAL: Duration = Duration::from_millis(100);
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(1);
/// Bytes of input that wait to be typed; beyond them no frame is read.
pub(crate) const MAX_INPUT_BYTES: usize = 4 << 20;
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);
