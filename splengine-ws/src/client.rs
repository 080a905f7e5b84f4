//! One WebSocket: three hands that work at the same time. One reads frames, one tells updates, one
//! types, so that a program that does not read holds up no acknowledgement, and a client that does
//! not read holds up no input.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use splengine_core::{
    Access, Attach, Attachment, AuthError, Caller, ConnectionHandle, Reservation, SessionError,
    SessionRequest, Size, TerminalColors, Typist,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, interval, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::app::App;
use crate::entry::Entrant;
use crate::frame::{AccessWord, Binary, ControlOp, Frame, TextFrame};
use crate::login;
use crate::meter::{Gate, MAX_UNKNOWN, MEMORY_TIMEOUT};
use crate::speech::{self, Plain, Speech, close, text};
use crate::upgrade::Socket;

/// What the address of an upgrade asks for.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    pub(crate) session: Option<String>,
    pub(crate) access: Option<AccessWord>,
    pub(crate) window: Option<Size>,
}

/// What the teller is to do besides telling updates.
enum Word {
    /// Tells of this session from now on.
    Session(Box<Attachment>, Option<u64>),
    Say(Message),
    /// Says it, and closes.
    Last(Message, u16, &'static str),
}

/// Input on its way, and the room that it takes up.
struct Typed {
    typist: Typist,
    number: Option<u64>,
    data: Bytes,
    _room: Option<OwnedSemaphorePermit>,
    _reservation: Reservation,
}

/// What a client sent first that has shown nothing yet.
enum First {
    Frame(TextFrame),
    /// More than such a client may.
    TooLarge,
    Nothing,
}

pub(crate) async fn serve(
    app: Arc<App>,
    socket: Socket,
    gate: Arc<Gate>,
    is_v1: bool,
    entrant: Entrant,
    wish: Wish,
    connection: Option<ConnectionHandle>,
) {
    let (mut sink, mut stream) = socket.split();
    let mut first = None;
    let (caller, login) = match entrant {
        Entrant::Known(caller, login) => (caller, login),
        Entrant::WithTicket(source) => {
            let shown = match timeout(TICKET_WITHIN, first_frame(&mut stream, &gate)).await {
                Ok(First::Frame(TextFrame { ticket: Some(ticket), frame })) => {
                    first = Some(frame);
                    login::redeem(&app, ticket, &source).await.map_err(|error| refusal(&error))
                }
                Ok(First::TooLarge) => {
                    let problem = format!("a message before a ticket may have {MAX_UNKNOWN} bytes");
                    Err((speech::error(&problem, "too_large"), close(4413, "too large")))
                }
                _ => Err(refusal(&AuthError::Missing)),
            };
            match shown {
                Ok(caller) => {
                    if let Some(connection) = &connection {
                        connection.set_authenticated(&caller);
                    }
                    (caller, None)
                }
                Err((message, close)) => {
                    gate.throw_away();
                    let _ = timeout(LAST_WORDS, async {
                        sink.send(message).await?;
                        sink.send(close).await?;
                        // Nothing more comes of it, but its end.
                        while let Some(Ok(_)) = stream.next().await {}
                        Ok::<_, tungstenite::Error>(())
                    })
                    .await;
                    return;
                }
            }
        }
    };
    gate.open();
    let (held, until) = (caller.clone(), login.as_ref().map(|login| login.until));
    let logged_out = async {
        tokio::select! {
            () = held.revoked() => {}
            () = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    };
    let (words, told) = mpsc::channel(64);
    let (typing, typed) = mpsc::channel(64);
    let speech = if is_v1 { Speech::V1 } else { Speech::Plain(Plain::default()) };
    let listener = Listener {
        app: Arc::clone(&app),
        gate,
        caller,
        is_v1,
        words: words.clone(),
        typing,
        room: Arc::new(Semaphore::new(INPUT_ROOM)),
        typist: None,
        window: wish.window,
        colors: None,
        has_left: false,
    };
    let too_large = AtomicBool::new(false);
    let mut closing = app.closing.subscribe();
    let leaving = async {
        let _ = closing.wait_for(|closing| *closing).await;
    };
    tokio::select! {
        () = tell(sink, told, speech, app.options.ping_every) => {}
        () = listen(listener, &mut stream, wish, first, &too_large) => {}
        () = type_all(typed, words.clone()) => {}
        () = async {
            leaving.await;
            let _ = words.send(Word::Last(text(&json!({"type": "notice", "kind": "restart"})), 1001, "going away")).await;
            std::future::pending::<()>().await;
        } => {}
        () = async {
            logged_out.await;
            let error = speech::error("the login is over", "credentials");
            let _ = words.send(Word::Last(error, 4401, "credentials")).await;
            std::future::pending::<()>().await;
        } => {}
    }
    drop(login);
    // The client's own close frame, and all that it sent before: a connection that is closed with
    // something unread is reset, and what was told last may then never be read.
    let _ = timeout(LAST_WORDS, async {
        while let Some(Ok(_)) = stream.next().await {}
        if too_large.load(Relaxed) {
            // The rest of it is not read, and a reset would overtake the word that it is too large.
            std::future::pending::<()>().await;
        }
    })
    .await;
}

/// The first frame of a client that has shown nothing yet.
async fn first_frame(stream: &mut SplitStream<Socket>, gate: &Gate) -> First {
    loop {
        let message = tokio::select! {
            // What is small is before what is held back.
            biased;
            message = stream.next() => message,
            () = gate.refused() => return First::TooLarge,
        };
        match message {
            Some(Ok(Message::Text(text))) => {
                return TextFrame::parse(&text).map_or(First::Nothing, First::Frame);
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return First::Nothing,
        }
    }
}

/// What is said last to a client that nobody knows.
fn refusal(error: &AuthError) -> (Message, Message) {
    match error {
        AuthError::Throttled { .. } => {
            (speech::error(&error.to_string(), "throttled"), close(4429, "throttled"))
        }
        _ => {
            let text = "credentials are required";
            (speech::error(text, "credentials"), close(4401, "credentials"))
        }
    }
}

/// Reads frames, one after the other.
struct Listener {
    app: Arc<App>,
    gate: Arc<Gate>,
    caller: Caller,
    is_v1: bool,
    words: mpsc::Sender<Word>,
    typing: mpsc::Sender<Typed>,
    room: Arc<Semaphore>,
    typist: Option<(Typist, String)>,
    window: Option<Size>,
    colors: Option<TerminalColors>,
    /// The client has said that it goes.
    has_left: bool,
}

async fn listen(
    mut listener: Listener,
    stream: &mut SplitStream<Socket>,
    wish: Wish,
    first: Option<Frame>,
    too_large: &AtomicBool,
) {
    let patience = patience(listener.app.options.ping_every);
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

impl Listener {
    /// What a client gets that has said nothing yet.
    async fn begin(
        &mut self,
        stream: &mut SplitStream<Socket>,
        wish: Wish,
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
            while self.typist.is_none() {
                match timeout_at(deadline, stream.next()).await {
                    Err(_) => break,
                    Ok(Some(Ok(message))) => self.message(message).await?,
                    Ok(_) => return Flow::Break(()),
                }
            }
            if self.typist.is_some() {
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
        if length > self.app.options.max_message {
            return self.too_large().await;
        }
        match message {
            Message::Text(text) => match TextFrame::parse(&text) {
                Ok(frame) => self.control(frame.frame).await,
                Err(problem) if self.is_v1 && !text.trim_start().starts_with('{') => {
                    self.last(speech::error(&problem, "invalid"), 4400, "protocol").await
                }
                Err(problem) => self.say(speech::error(&problem, "invalid")).await,
            },
            Message::Binary(data) if !self.is_v1 => self.input(None, data).await,
            Message::Binary(data) => match Binary::parse(data) {
                Ok(Binary::Input { number, data }) => self.input(Some(number), data).await,
                Ok(Binary::Ack { offset }) => {
                    if let Some((typist, _)) = &self.typist {
                        typist.ack(offset);
                    }
                    Flow::Continue(())
                }
                Err(problem) => {
                    self.last(speech::error(problem, "invalid"), 4400, "protocol").await
                }
            },
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Flow::Continue(()),
            Message::Close(_) => {
                self.has_left = true;
                Flow::Break(())
            }
        }
    }

    async fn control(&mut self, frame: Frame) -> Flow {
        match frame {
            Frame::Hello {} | Frame::Unknown => Flow::Continue(()),
            Frame::Input { data } => self.input(None, Bytes::from(data)).await,
            Frame::Resize { cols, rows } => {
                self.window = size(Some(cols), Some(rows));
                if let (Some(size), Some((typist, _))) = (self.window, &self.typist) {
                    typist.resize(size);
                }
                Flow::Continue(())
            }
            Frame::Colors { foreground, background, cursor } => {
                let colors = TerminalColors::new(foreground.0, background.0);
                let colors = cursor.map_or(colors, |cursor| colors.cursor(cursor.0));
                self.colors = Some(colors);
                if let Some((typist, _)) = &self.typist {
                    typist.set_colors(colors);
                }
                Flow::Continue(())
            }
            Frame::NewSession { command, args, workdir, name, cols, rows } => {
                self.window = size(cols, rows).or(self.window);
                let mut request = SessionRequest::new();
                if let Some(command) = command {
                    request = request.command(command);
                }
                request = args.into_iter().flatten().fold(request, SessionRequest::arg);
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
                let Some((_, id)) = self.typist.clone() else { return self.nothing().await };
                match self.app.engine.sessions().save(&self.caller, &id, name).await {
                    Ok(saved) => self.say(speech::saved(&saved)).await,
                    Err(error) => self.refuse(&error).await,
                }
            }
            Frame::LoadSession { saved_id } => {
                self.create(SessionRequest::new().from(saved_id), true).await
            }
            Frame::CloseSession {} => {
                let Some((typist, id)) = self.typist.clone() else { return self.nothing().await };
                if typist.access() == Access::View {
                    let problem =
                        "this client may only look; attach with control to end the session";
                    return self.refuse(&SessionError::Forbidden(problem)).await;
                }
                match self.app.engine.sessions().end(&self.caller, &id).await {
                    Ok(()) => Flow::Continue(()),
                    Err(error) => self.refuse(&error).await,
                }
            }
            Frame::Reset {} => {
                let Some((typist, _)) = &self.typist else { return self.nothing().await };
                match typist.reset() {
                    Ok(()) => Flow::Continue(()),
                    Err(error) => self.refuse(&error).await,
                }
            }
            Frame::Control { op, to } => {
                let Some((typist, _)) = &self.typist else { return self.nothing().await };
                let done = match (op, to) {
                    (ControlOp::Take, _) => typist.take_control(),
                    (ControlOp::Release, _) => typist.release_control(),
                    (ControlOp::Grant, Some(to)) => typist.grant_control(&to),
                    (ControlOp::Grant, None) => Err(SessionError::Malformed {
                        field: "to",
                        problem: "must name the client that is to have control".to_owned(),
                    }),
                };
                match done {
                    Ok(()) => Flow::Continue(()),
                    Err(error) => self.refuse(&error).await,
                }
            }
            Frame::Ping { t } => {
                let mut pong = json!({"type": "pong"});
                if let Some(t) = t {
                    pong["t"] = t;
                }
                self.say(text(&pong)).await
            }
        }
    }

    async fn create(&mut self, request: SessionRequest, loads: bool) -> Flow {
        let request = match self.window {
            Some(size) => request.size(size),
            None => request,
        };
        let made = self.app.engine.sessions().create(&self.caller, request).await;
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
        match self.app.engine.sessions().attach(&self.caller, id, attach) {
            Ok(attachment) => {
                let typist = attachment.typist();
                let number = (self.is_v1 && resumes.is_some()).then(|| typist.next_number());
                self.typist = Some((typist, id.to_owned()));
                self.tell(Word::Session(Box::new(attachment), number)).await
            }
            Err(error) => self.refuse(&error).await,
        }
    }

    async fn input(&mut self, number: Option<u64>, data: Bytes) -> Flow {
        let Some((typist, _)) = &self.typist else { return self.nothing().await };
        let typist = typist.clone();
        let wanted = u32::try_from(data.len().min(INPUT_ROOM)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(wanted).await.ok();
        let mut reservation = self.app.budget.reservation().allowance(INPUT_ALLOWANCE);
        if timeout(MEMORY_TIMEOUT, reservation.resize(data.len())).await.is_err() {
            return self.starved().await;
        }
        let typed = Typed { typist, number, data, _room: room, _reservation: reservation };
        match self.typing.send(typed).await {
            Ok(()) => Flow::Continue(()),
            Err(_) => Flow::Break(()),
        }
    }

    /// Without a session there is nothing to do this with.
    async fn nothing(&self) -> Flow {
        self.say(speech::error("no session is attached", "no_session")).await
    }

    /// Says why not. A client that has no session is closed: there is nothing else to do for it.
    async fn refuse(&self, error: &SessionError) -> Flow {
        let (message, code, reason) = speech::refusal(error);
        if self.typist.is_some() {
            self.say(message).await
        } else {
            self.last(message, code, reason).await
        }
    }

    async fn broken(&self, error: &tungstenite::Error, too_large: &AtomicBool) {
        let text = error_chain(error);
        let flow = if self.gate.is_starved() {
            too_large.store(true, Relaxed);
            self.starved().await
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
        let message = format!("a message is over {} bytes", self.app.options.max_message);
        self.last(speech::error(&message, "too_large"), 4413, "too large").await
    }

    async fn starved(&self) -> Flow {
        let message = "the server has no memory left for this message; try again in a second";
        self.last(speech::error(message, "busy"), 1013, "busy").await
    }

    async fn say(&self, message: Message) -> Flow {
        self.tell(Word::Say(message)).await
    }

    async fn last(&self, message: Message, code: u16, reason: &'static str) -> Flow {
        let _ = self.tell(Word::Last(message, code, reason)).await;
        Flow::Break(())
    }

    async fn tell(&self, word: Word) -> Flow {
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

/// Types what was read, in order, and says how far it came.
async fn type_all(mut typed: mpsc::Receiver<Typed>, words: mpsc::Sender<Word>) {
    while let Some(Typed { typist, number, data, _room, _reservation }) = typed.recv().await {
        let done = match number {
            None => typist.input(data).await.map(|()| None),
            Some(number) => typist.numbered_input(number, data).await.map(Some),
        };
        let word = match done {
            Ok(None) => continue,
            Ok(Some(number)) => Word::Say(text(&json!({"type": "input_ack", "number": number}))),
            // The session's own end says it better.
            Err(SessionError::Ended) => continue,
            Err(error @ SessionError::Gap { .. }) => {
                let (message, code, _) = speech::refusal(&error);
                Word::Last(message, code, "protocol")
            }
            Err(SessionError::Forbidden(problem)) => {
                let read_only = json!({"type": "notice", "kind": "read_only"});
                if words.send(Word::Say(text(&read_only))).await.is_err() {
                    return;
                }
                Word::Say(speech::error(problem, "read_only"))
            }
            Err(error) => Word::Say(speech::refusal(&error).0),
        };
        if words.send(word).await.is_err() {
            return;
        }
    }
}

/// Tells updates, and whatever else there is to say.
async fn tell(
    mut sink: SplitSink<Socket, Message>,
    mut told: mpsc::Receiver<Word>,
    mut speech: Speech,
    ping_every: Duration,
) {
    let patience = patience(ping_every);
    let mut attachment: Option<Box<Attachment>> = None;
    let mut pings = interval(ping_every);
    pings.tick().await;
    loop {
        let update = async {
            match &mut attachment {
                Some(attachment) => attachment.next().await,
                None => std::future::pending().await,
            }
        };
        let mut frames = Vec::new();
        tokio::select! {
            biased;
            word = told.recv() => match word {
                None => return,
                Some(Word::Say(message)) => frames.push(message),
                Some(Word::Session(new, number)) => {
                    frames.push(speech.session(&new));
                    if matches!(speech, Speech::Plain(_)) {
                        new.delivered();
                    }
                    attachment = Some(new);
                    if let Some(number) = number {
                        frames.push(text(&json!({"type": "input_ack", "number": number})));
                    }
                }
                Some(Word::Last(message, code, reason)) => {
                    frames.extend([message, close(code, reason)]);
                }
            },
            _ = pings.tick() => frames.push(Message::Ping(Bytes::new())),
            update = update => match update {
                None => attachment = None,
                Some(update) => frames.extend(speech.update(update)),
            },
        }
        // What is ready goes out together; a lone key's echo goes at once. A client that takes
        // nothing for so long is gone.
        let sent = timeout(patience, async {
            let mut sent = 0;
            loop {
                for frame in frames.drain(..) {
                    let closes = matches!(frame, Message::Close(_));
                    sink.feed(frame).await?;
                    if closes {
                        sink.flush().await?;
                        return Ok::<_, tungstenite::Error>(ControlFlow::Break(()));
                    }
                }
                sent += 1;
                if !told.is_empty() || sent >= AT_ONCE {
                    break;
                }
                match attachment.as_mut().and_then(|attachment| attachment.ready()) {
                    Some(update) => frames.extend(speech.update(update)),
                    None => break,
                }
            }
            sink.flush().await?;
            // It has no word of its own for how far it is.
            if let (Speech::Plain(_), Some(attachment)) = (&speech, &attachment) {
                attachment.delivered();
            }
            Ok(ControlFlow::Continue(()))
        });
        if !matches!(sent.await, Ok(Ok(ControlFlow::Continue(())))) {
            return;
        }
    }
}

/// How long a client may give no sign of life.
fn patience(ping_every: Duration) -> Duration {
    ping_every * 2 + Duration::from_secs(10)
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

const TICKET_WITHIN: Duration = Duration::from_secs(10);
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(1);
/// So many updates go out before the next look at what else there is to say.
const AT_ONCE: usize = 16;
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Of what waits to be typed, so much of each piece is not counted.
const INPUT_ALLOWANCE: usize = 16 << 10;
/// Bytes of input that wait to be typed; beyond them no frame is read.
const INPUT_ROOM: usize = 4 << 20;
