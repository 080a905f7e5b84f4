use std::path::{Path, PathBuf};
use std::time::Duration;

/// Policy of an engine for sessions: what it grants to them, and how long it keeps them.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::session::SessionPolicy;
///
/// // `EngineBuilder::build` opens and locks the directory.
/// let policy = SessionPolicy::new()
///     .store("/var/lib/my-server/sessions")
///     .detached_timeout(Duration::from_secs(7 * 24 * 3600));
/// # drop(policy);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SessionPolicy {
    pub(crate) shell: Vec<String>,
    pub(crate) store: Option<PathBuf>,
    pub(crate) max_sessions: usize,
    pub(crate) max_per_caller: usize,
    pub(crate) max_clients: usize,
    pub(crate) max_command_bytes: usize,
    /// None: half of what the others leave of that.
    pub(crate) max_command_bytes_per_caller: Option<usize>,
    pub(crate) scrollback: usize,
    pub(crate) max_screen_bytes: usize,
    pub(crate) log_bytes: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) detached_timeout: Option<Duration>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) warning: Duration,
    pub(crate) busy_stays: bool,
    pub(crate) ended_retention: Duration,
    pub(crate) size: SizePolicy,
    pub(crate) recording: Recording,
    pub(crate) max_recording: u64,
    pub(crate) max_read_bytes: usize,
    pub(crate) read_timeout: Duration,
    pub(crate) save_timeout: Duration,
}

/// Choice of the window that decides the size of a session's terminal.
///
/// ```
/// use splengine_core::session::{SessionPolicy, SizePolicy};
///
/// // The output fits the windows of all who may type.
/// let policy = SessionPolicy::new().size(SizePolicy::Smallest);
/// # drop(policy);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizePolicy {
    /// Window of the client in control.
    #[default]
    Controller,
    /// The smallest of those that may type: no client misses anything.
    Smallest,
    /// The largest of those that may type.
    Largest,
    /// The size with which the session was made, whatever the clients have.
    Fixed,
}

/// Choice of what is recorded of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recording {
    /// Neither output nor input.
    Off,
    /// Output of the program.
    #[default]
    Output,
    /// Also what is typed, but not while the terminal does not echo it, as at prompts for passwords.
    OutputAndInput,
}

impl SessionPolicy {
    /// Maximum number of clients that the guest of one share attaches to a session at once: 8. It
    /// bounds how many clients a link that was passed on can attach.
    pub const MAX_CLIENTS_PER_SHARE: usize = 8;

    /// Makes a policy with the defaults.
    pub fn new() -> Self {
        let shell = ["/bin/bash", "/bin/sh"].into_iter().find(|path| Path::new(path).exists());
        Self {
            shell: vec![shell.unwrap_or("/bin/sh").to_owned()],
            store: None,
            max_sessions: 256,
            max_per_caller: 64,
            max_clients: 64,
            max_command_bytes: 64 << 20,
            max_command_bytes_per_caller: None,
            scrollback: 300,
            max_screen_bytes: 128 << 20,
            log_bytes: 1 << 20,
            idle_timeout: None,
            detached_timeout: Some(Duration::from_hours(7 * 24)),
            max_age: None,
            warning: Duration::from_mins(1),
            busy_stays: true,
            ended_retention: Duration::from_mins(10),
            size: SizePolicy::default(),
            recording: Recording::default(),
            max_recording: 16 << 20,
            max_read_bytes: 128 << 20,
            read_timeout: Duration::from_secs(10),
            save_timeout: Duration::from_secs(10),
        }
    }

    /// Sets the command of a session whose request names none, as words. Default: bash, or sh where
    /// there is no bash.
    pub fn shell(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.shell = words.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the directory in which sessions are kept: for saving and loading them, for recordings, and
    /// for telling after a crash what was lost. When the engine is
    /// [built](crate::engine::EngineBuilder::build), it is opened, or made when it is not there, and
    /// locked, since one engine uses it at a time. Default: none, and sessions are neither saved nor
    /// recorded.
    ///
    /// Of the sessions that were lost 256 stay listed, or as many as [may run](Self::max_sessions) if
    /// that is more. Beyond that, [`Engine::resume`](crate::Engine::resume), or else the first session
    /// that is started, removes the oldest of the caller who has most, with their recordings.
    pub fn store(mut self, directory: impl AsRef<Path>) -> Self {
        self.store = Some(directory.as_ref().to_owned());
        self
    }

    /// Sets the maximum number of sessions at once. Default 256.
    pub fn max_sessions(mut self, count: usize) -> Self {
        self.max_sessions = count;
        self
    }

    /// Sets the maximum number of one caller's sessions at once. Default 64.
    pub fn max_sessions_per_caller(mut self, count: usize) -> Self {
        self.max_per_caller = count;
        self
    }

    /// Sets the maximum number of clients that are attached to one session at once; the next one is
    /// refused ([`SessionError::ClientsFull`](crate::SessionError::ClientsFull)). Default 64. Guests have
    /// three quarters of these at most, rounded down, those of one share
    /// [`MAX_CLIENTS_PER_SHARE`](Self::MAX_CLIENTS_PER_SHARE): the rest is kept for the owner, so that
    /// with 1 no guest attaches.
    pub fn max_clients(mut self, count: usize) -> Self {
        self.max_clients = count;
        self
    }

    /// Sets the maximum number of bytes that the commands of all sessions hold in memory: their
    /// arguments and variables, until the session is forgotten. The next session is refused
    /// ([`SessionError::InputFull`](crate::session::SessionError::InputFull)), but where there is no
    /// other; a session that is [resumed](crate::Engine::resume) counts, and is never refused. What has
    /// less than 4 KiB does not count. Default 64 MiB.
    pub fn max_command_bytes(mut self, bytes: usize) -> Self {
        self.max_command_bytes = bytes;
        self
    }

    /// Sets the maximum number of bytes that the commands of one caller's sessions hold in memory; the
    /// caller's next one is refused
    /// ([`SessionError::CallerLimit`](crate::session::SessionError::CallerLimit)), but where there is no other.
    /// Default: half of what the others leave of what [all may](Self::max_command_bytes).
    pub fn max_command_bytes_per_caller(mut self, bytes: usize) -> Self {
        self.max_command_bytes_per_caller = Some(bytes);
        self
    }

    /// Sets how many lines above the screen are kept, as far as [memory](Self::max_screen_bytes) allows.
    /// Default 300. A line takes 16 to 20 bytes a cell, up to the last that something was written to.
    pub fn scrollback(mut self, lines: usize) -> Self {
        self.scrollback = lines;
        self
    }

    /// Sets how many bytes of memory the screens of all sessions take together. Default 128 MiB. Each
    /// cell counts 40 bytes, since there are two screens, and each line above the screen what it takes.
    /// The first 512 KiB of each session that runs are not counted: those of 200 columns and 60 rows.
    ///
    /// A caller may have half of what the others leave: one alone gets half of all, two a third each, and
    /// so on; with lines above screens, which leave memory to screens that come later, a third of that.
    /// A session, or a change of its size, for which there is no memory is refused
    /// ([`SessionError::CallerScreens`](crate::session::SessionError::CallerScreens),
    /// [`SessionError::ScreensFull`](crate::session::SessionError::ScreensFull)), after sessions that have ended
    /// were forgotten for it, the oldest first: those of the caller, and where these are not enough, those
    /// of callers who have more. Where there is none for a line above a screen, such lines of sessions
    /// that have ended go, and then the oldest of that screen: its log and its program are not touched.
    ///
    /// Screens that are drawn for clients and not dropped yet may take half as many bytes, of which the
    /// clients of one user's sessions have half of what others leave; one that waits for such memory for
    /// 5 s is sent away ([`Closed::Memory`](crate::session::Closed::Memory)). What is written to the
    /// [store](Self::store) has an eighth of its own.
    pub fn max_screen_bytes(mut self, bytes: usize) -> Self {
        self.max_screen_bytes = bytes;
        self
    }

    /// Sets how many bytes of output are kept for clients to resume from, at least 128 KiB. Default 1
    /// MiB. A client that is further behind gets the screen instead.
    pub fn log_bytes(mut self, bytes: usize) -> Self {
        self.log_bytes = bytes.max(128 << 10);
        self
    }

    /// Ends a session in which nothing was typed or printed for this time; zero is off. Default off.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = Some(time).filter(|time| !time.is_zero());
        self
    }

    /// Ends a session to which no client was attached for this time; zero is off. Default 7 days.
    pub fn detached_timeout(mut self, time: Duration) -> Self {
        self.detached_timeout = Some(time).filter(|time| !time.is_zero());
        self
    }

    /// Ends a session that is this old; zero is off. Default off.
    pub fn max_age(mut self, time: Duration) -> Self {
        self.max_age = Some(time).filter(|time| !time.is_zero());
        self
    }

    /// Sets how long before such an end a session's clients are warned. Default one minute.
    pub fn warning(mut self, time: Duration) -> Self {
        self.warning = time;
        self
    }

    /// Sets whether a program that runs in the foreground of the shell holds the idle and detached
    /// ends back. Default true.
    pub fn busy_stays(mut self, stays: bool) -> Self {
        self.busy_stays = stays;
        self
    }

    /// Sets how long a session whose program has ended stays in the list. Default 10 minutes. Of
    /// one caller no more of them stay than may run; the oldest go first, also where the caller needs
    /// their [memory](Self::max_screen_bytes) for another session.
    pub fn ended_retention(mut self, time: Duration) -> Self {
        self.ended_retention = time;
        self
    }

    /// Sets whose window decides the size. Default: that of the client in control.
    pub fn size(mut self, policy: SizePolicy) -> Self {
        self.size = policy;
        self
    }

    /// Sets what is recorded, where there is a [`store`](Self::store). Default: the output.
    ///
    /// A recording is written apart from the runtime's workers. While more than 256 KiB of it wait for
    /// the disk, the program's output is not read, as with a client in control that is slow. Where the
    /// disk accepts no writes for 10 s, or fails, the recording ends with its last whole event, the
    /// clients are notified by [`Notice::RecordingStopped`](crate::session::Notice::RecordingStopped),
    /// and the session goes on.
    pub fn recording(mut self, recording: Recording) -> Self {
        self.recording = recording;
        self
    }

    /// Sets how many bytes a recording may take; over it the recording stops, and the session
    /// continues. Default 16 MiB.
    pub fn max_recording(mut self, bytes: u64) -> Self {
        self.max_recording = bytes;
        self
    }

    /// Sets the maximum memory in bytes of screens that are read: as they are, as they were at some
    /// time of a recording, or saved ones. Each caller has half of what the others leave, and one read at
    /// a time may go beyond. As much again is for what is written of sessions. Default 128 MiB.
    pub fn max_read_bytes(mut self, bytes: usize) -> Self {
        self.max_read_bytes = bytes;
        self
    }

    /// Sets how long a read waits for such memory, and for its turn: of saved sessions and recordings
    /// one is read at a time for each caller, and two for all. It is then refused with
    /// [`SessionError::Busy`](crate::session::SessionError::Busy). Default 10 s.
    pub fn read_timeout(mut self, time: Duration) -> Self {
        self.read_timeout = time;
        self
    }

    /// Sets how long all sessions together have to be saved at the end of the engine, where the grace
    /// of [`Engine::drain`](crate::Engine::drain) is shorter. Sessions that are not saved by then are
    /// logged. Default 10 s.
    pub fn save_timeout(mut self, time: Duration) -> Self {
        self.save_timeout = time;
        self
    }
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self::new()
    }
}
