//! One session that lives: its state, shared by the tasks that serve it and the clients on it.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::ids::SessionId;
use crate::net::LogBudget;
use crate::os::ExitStatus;
use crate::quota::InputReservation;
use crate::screen::Screen;
use crate::session::live_state::{InputSender, LiveState, Versions};
use crate::session::log::Log;
use crate::session::recording::{Recorder, RecordingMark};
use crate::session::recording_writer::{RecordingWriter, Stopped};
use crate::session::render_pool::{Painted, RenderPool};
use crate::session::resize_policy::{Window, decide};
use crate::session::screen_memory::{ScreenMemory, ScreenShortage};
use crate::session::snapshot_memory::LastSnapshot;
use crate::session::{
    Closed, Notice, SessionError, SessionInfo, SessionPolicy, SessionState, SizePolicy,
    TerminalColors,
};
use crate::terminal::Size;
use crate::terminal::{Gone, Terminal};
use crate::user_name::UserName;

pub(crate) struct LiveSession {
    pub(crate) id: SessionId,
    pub(crate) user: UserName,
    pub(crate) created: SystemTime,
    /// Of sizes for which there is no memory.
    size_log: LogBudget,
    pub(crate) begun_at: Instant,
    /// Changes when offsets begin anew.
    pub(crate) epoch: String,
    terminal: Mutex<Terminal>,
    pub(crate) launch: Launch,
    pub(crate) policy: Arc<SessionPolicy>,
    /// It was loaded.
    is_restored: bool,
    /// The offset that the screen stands for that it was loaded with, and that screen, if it is small
    /// enough to be kept.
    pub(crate) restored: Option<(u64, Option<(Size, Bytes)>)>,
    state: Mutex<LiveState>,
    pub(super) screen: Mutex<Painted>,
    /// What the screen may take.
    pub(crate) memory: Arc<ScreenMemory>,
    pub(super) render_pool: RenderPool,
    pub(super) last_snapshot: LastSnapshot,
    /// The session is about to be forgotten, and nothing waits for its screen.
    is_discarded: watch::Sender<bool>,
    recorder: Mutex<Option<Recorder>>,
    /// Of the recording, also when that has ended.
    pub(crate) recording_writer: Option<Arc<RecordingWriter>>,
    /// Counts what clients should look at.
    changed: watch::Sender<u64>,
    pub(crate) ack_notify: Notify,
    /// A client wants the terminal's modes back at their defaults.
    pub(crate) reset_asked: Notify,
    pub(crate) resized: Notify,
    /// Some window has another size, and nothing has come of it yet.
    pub(crate) resize_pending: AtomicBool,
    pub(crate) input: mpsc::Sender<Typed>,
    pub(crate) input_permits: Semaphore,
    /// Whether what was printed last took long to draw.
    pub(super) is_costly: AtomicBool,
}

/// What a session was started with.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The memory of the words and variables, where that is counted.
    pub(crate) _held: Option<InputReservation>,
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) workdir: Option<String>,
}

/// What the input task is to type.
#[derive(Debug)]
pub(crate) enum Typed {
    Client(u64, Bytes),
    Reply(Vec<u8>),
    Left(u64),
}

/// What a session begins with.
pub(crate) struct SessionInit {
    pub(crate) id: SessionId,
    pub(crate) user: UserName,
    pub(crate) name: Option<String>,
    pub(crate) created: SystemTime,
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    pub(crate) size: Size,
    pub(crate) terminal: Terminal,
    /// Memory of a screen of this size.
    pub(crate) memory: Arc<ScreenMemory>,
    pub(crate) launch: Launch,
    /// What its screen shows already.
    pub(crate) screen: Option<Screen>,
    /// The bytes that draw that, for clients that attach from the start.
    pub(crate) first: Option<Bytes>,
    /// It was loaded, now or by the engine that it was adopted from.
    pub(crate) restored: bool,
    pub(crate) recorder: Option<Recorder>,
    /// What an engine before this one knew of it.
    pub(crate) adopted: Option<ResumeData>,
}

/// State with which an adopted session continues.
pub(crate) struct ResumeData {
    pub(crate) synthetic_bytes: u64,
    pub(crate) last_activity: SystemTime,
    /// How old it was, and how long idle, when that was written down.
    pub(crate) age: Duration,
    pub(crate) idle: Duration,
    pub(crate) inputs: VecDeque<InputSender>,
}

impl LiveSession {
    pub(crate) fn new(
        beginning: SessionInit,
        policy: Arc<SessionPolicy>,
        render_pool: RenderPool,
    ) -> (Arc<Self>, mpsc::Receiver<Typed>) {
        let SessionInit { id, user, name, created, epoch, offset, size, .. } = beginning;
        let mut screen = beginning
            .screen
            .unwrap_or_else(|| Screen::new(size.cols(), size.rows(), policy.scrollback));
        screen.count_history(beginning.memory.clone());
        // What was asked back then was answered back then.
        let _ = screen.take_replies();
        let log = Log::new(policy.log_bytes, offset);
        let (input, typed) = mpsc::channel(INPUT_PIECES);
        let now = Instant::now();
        let is_adopted = beginning.adopted.is_some();
        let before = beginning.adopted.unwrap_or_else(|| ResumeData {
            synthetic_bytes: 0,
            last_activity: SystemTime::now(),
            age: Duration::ZERO,
            idle: Duration::ZERO,
            inputs: VecDeque::new(),
        });
        let state = LiveState {
            synthetic_bytes: before.synthetic_bytes,
            clients: BTreeMap::new(),
            next_client: 1,
            input_sequences: before.inputs,
            controller: None,
            size,
            refused_size: None,
            colors: TerminalColors::default(),
            name,
            title: screen.title().to_owned(),
            versions: Versions::default(),
            last_activity: before.last_activity,
            active: now.checked_sub(before.idle).unwrap_or(now),
            detached: Some(now),
            warned: None,
            cursor_queries: screen.cursor_queries(),
            recording: beginning.recorder.is_some(),
            end: None,
            closed: None,
            is_settled: false,
            log,
        };
        let recording_writer = beginning.recorder.as_ref().map(|to| Arc::clone(to.writer()));
        let is_loaded = beginning.restored && !is_adopted;
        let restored = is_loaded.then(|| (offset, beginning.first.map(|first| (size, first))));
        let cursor = state.log.end();
        let live = Self {
            id,
            user,
            created,
            size_log: LogBudget::new(1),
            begun_at: now.checked_sub(before.age).unwrap_or(now),
            epoch,
            terminal: Mutex::new(beginning.terminal),
            launch: beginning.launch,
            policy,
            is_restored: beginning.restored,
            restored,
            state: Mutex::new(state),
            screen: Mutex::new(Painted { screen, cursor, spent: 0 }),
            memory: beginning.memory,
            render_pool,
            last_snapshot: LastSnapshot::new(),
            is_discarded: watch::channel(false).0,
            recorder: Mutex::new(beginning.recorder),
            recording_writer,
            changed: watch::channel(0).0,
            ack_notify: Notify::new(),
            resized: Notify::new(),
            reset_asked: Notify::new(),
            resize_pending: AtomicBool::new(false),
            input,
            input_permits: Semaphore::new(INPUT_BYTES),
            is_costly: AtomicBool::new(true),
        };
        (Arc::new(live), typed)
    }

    pub(crate) fn terminal(&self) -> Terminal {
        self.terminal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of a terminal whose program has ended, and of all that it takes of this process: the
    /// session is kept for a while.
    pub(crate) fn let_go_of_terminal(&self) {
        if let Some((status, _)) = self.state().end {
            let mut terminal = self.terminal.lock().unwrap_or_else(PoisonError::into_inner);
            *terminal = Terminal::new(Gone(status));
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Makes every client look.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Ends the wait for what the program printed to be drawn, since the session is about to be forgotten.
    pub(crate) fn discard(&self) {
        self.is_discarded.send_replace(true);
    }

    /// Waits until the session is [discarded](Self::discard).
    pub(crate) async fn discarded(&self) {
        let _ = self.is_discarded.subscribe().wait_for(|is_discarded| *is_discarded).await;
    }

    /// The clients may come to another size now.
    pub(crate) fn unsettle(&self) {
        self.resize_pending.store(true, Relaxed);
        self.resized.notify_one();
    }

    /// Gives the terminal the size that its clients come to.
    pub(crate) fn settle_size(&self) {
        self.resize_pending.store(false, Relaxed);
        // Clients are told.
        let _ = self.settle_from(None);
    }

    /// The same, on the wish of somebody without a window, which stands where clients have no say. If
    /// there is no memory for a screen of that size, it stays as it is.
    pub(crate) fn settle_from(&self, wish: Option<Size>) -> Result<(), ScreenShortage> {
        let mut state = self.state();
        let present = wish.filter(|_| self.policy.size != SizePolicy::Fixed).unwrap_or(state.size);
        let windows = state.clients.iter().filter(|(_, client)| client.may_type());
        let windows = windows.filter_map(|(key, client)| {
            Some(Window { size: client.window?, in_control: state.controller == Some(*key) })
        });
        let size = decide(self.policy.size, present, windows);
        if size == state.size || state.end.is_some() {
            state.refused_size = None;
            return Ok(());
        }
        if let Err(shortage) = self.memory.grow_to(size) {
            // The caller that asked for it gets it as the answer.
            if wish.is_none() && state.refused_size.replace(size) != Some(size) {
                let reason = SessionError::from(shortage).to_string();
                if let Some(unlogged) = self.size_log.take(()) {
                    tracing::info!(session = %self.id, reason, unlogged, "a terminal keeps its size");
                }
                state.notify_typists(&Notice::SizeRefused { size, reason });
                drop(state);
                self.wake();
            }
            return Err(shortage);
        }
        state.refused_size = None;
        state.size = size;
        state.log.push_size(size);
        if let Err(error) = self.terminal().resize(size) {
            tracing::debug!(%error, session = %self.id, "a terminal can't be resized");
        }
        drop(state);
        self.record(|recorder| recorder.resize(size));
        self.wake();
        Ok(())
    }

    /// Does something with the recording, if there is one; an error ends it.
    pub(crate) fn record<T>(
        &self,
        write: impl FnOnce(&mut Recorder) -> Result<T, Stopped>,
    ) -> Option<T> {
        let done = self.recorder().as_mut().map(write)?;
        match done {
            Ok(done) => Some(done),
            Err(stopped) => {
                self.stop_recording(stopped);
                None
            }
        }
    }

    /// Ends the recording, and tells clients; the session goes on.
    pub(crate) fn stop_recording(&self, stopped: Stopped) {
        *self.recorder() = None;
        let mut state = self.state();
        if !std::mem::replace(&mut state.recording, false) {
            return;
        }
        state.notify(Notice::RecordingStopped { reason: stopped.name() });
        drop(state);
        tracing::warn!(session = %self.id, reason = ?stopped, "a recording stopped");
        self.wake();
    }

    /// Gives up what is recorded and not written yet, since the session is about to be forgotten.
    pub(crate) fn discard_recording(&self) {
        *self.recorder() = None;
        if let Some(writer) = &self.recording_writer {
            writer.give_up(Stopped::Failed);
        }
    }

    /// Waits until there is room for more of the recording, for a while at most.
    pub(crate) async fn recording_room(&self) {
        let Some(writer) = &self.recording_writer else { return };
        let room = tokio::select! {
            biased;
            room = writer.room() => room,
            () = self.discarded() => return,
        };
        if let Err(stopped) = room {
            self.stop_recording(stopped);
            writer.give_up(stopped);
        }
    }

    /// How far the recording has come, all of it handed to the operating system.
    pub(crate) async fn recording_mark(&self) -> Option<RecordingMark> {
        let (mark, write) = self.record(Recorder::mark)?;
        self.recording_writer.as_ref()?.done(write).await.then_some(mark)
    }

    /// Hands everything that is recorded so far to the operating system.
    pub(crate) async fn write_recording(&self) {
        self.record(Recorder::flush);
        if let Some(writer) = &self.recording_writer {
            writer.written().await;
        }
    }

    fn recorder(&self) -> MutexGuard<'_, Option<Recorder>> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program has ended.
    pub(crate) fn finish(&self, status: ExitStatus) {
        {
            let mut state = self.state();
            state.end = Some((status, Instant::now()));
            state.touch();
        }
        *self.recorder() = None;
        self.wake();
        self.ack_notify.notify_waiters();
    }

    /// Ends the program, and waits until everything it printed is known, for a while.
    pub(crate) async fn end(&self) {
        let mut changed = self.subscribe();
        if self.state().end.is_none() {
            self.terminal().end().await;
        }
        let told = async {
            while !self.state().is_settled {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(END_WITHIN, told).await;
    }

    /// Sends every client away, for this reason.
    pub(crate) fn close(&self, closed: Closed) {
        self.state().closed.get_or_insert(closed);
        self.wake();
    }

    pub(crate) fn info(&self) -> SessionInfo {
        let status = self.terminal().status();
        let state = self.state();
        SessionInfo {
            id: self.id.clone(),
            user: self.user.clone(),
            name: state.name.clone(),
            title: state.title.clone(),
            created: self.created,
            last_activity: state.last_activity,
            size: state.size,
            workdir: status
                .workdir
                .map(|path| path.to_string_lossy().into_owned())
                .or_else(|| self.launch.workdir.clone()),
            clients: state.clients.len(),
            state: if state.end.is_some() { SessionState::Exited } else { SessionState::Running },
            exit: state.end.map(|(status, _)| status),
            restored: self.is_restored,
            recording: state.recording,
        }
    }
}

impl std::fmt::Debug for LiveSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How long the end of a session may take to be told and written down.
const END_WITHIN: Duration = Duration::from_secs(20);
/// Pieces and bytes of input that wait to be typed; beyond them senders wait.
const INPUT_PIECES: usize = 256;
pub(crate) const INPUT_BYTES: usize = 1 << 20;
/// What a piece of input counts for at least, since it takes more than its bytes while it waits.
const MIN_INPUT_BYTES: usize = 256;

/// Permits of [`LiveSession::input_permits`] that a piece of input takes.
pub(crate) fn permits_of(data: &[u8]) -> usize {
    data.len().clamp(MIN_INPUT_BYTES, INPUT_BYTES)
}
