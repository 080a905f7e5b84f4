//! The PTY host's own process.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, statat};
use rustix::net::{SocketFlags, accept_with};
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};

use crate::local::pty::{Pair, Pty};
use crate::local::pty_host::protocol::{
    Cgroup, Link, Reply, Request, Start, StartStage, limits_from_wire,
};
use crate::local::pty_host::ring::Ring;
use crate::local::pty_host::{BACKLOG, SOCKET};
use crate::local::terminal::LocalTerminal;
use crate::process::{self, Cgroups, Spawn, SpawnError, watch};
use crate::spare_thread::SpareThread;
use crate::terminal::{Session as _, Size, TerminalModes};

/// Reason for which a PTY host can't serve.
#[derive(Debug, thiserror::Error)]
#[error("a PTY host can't serve: {what}")]
#[non_exhaustive]
pub struct PtyHostError {
    what: &'static str,
    #[source]
    source: io::Error,
}

/// Serves as a [`PtyHost`](crate::local::PtyHost), which starts the program that calls this with a
/// socket as its standard input, and the socket's directory as its output. Returns 10 to 20 s after the
/// last engine has disconnected and the last program has ended. Call it first in `main`, before
/// anything starts threads or opens files.
///
/// ```no_run
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     // Of this same program, started by the engine with these words: see `PtyHost::new`.
///     if std::env::args().nth(1).as_deref() == Some("--hold-terminals") {
///         return Ok(splengine_core::local::run_pty_host()?);
///     }
///     // Else the server is started.
///     Ok(())
/// }
/// ```
///
/// # Errors
///
/// [`PtyHostError`] when standard input is not such a socket, or processes can't be contained here.
pub fn run_pty_host() -> Result<(), PtyHostError> {
    let failed = |what| move |source| PtyHostError { what, source };
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(failed("standard input"))?;
    let listens = rustix::net::sockopt::socket_acceptconn(&listener);
    if !listens.is_ok_and(|listens| listens) {
        let what = "standard input is no listening socket; it is started by an engine, not by hand";
        return Err(failed(what)(io::ErrorKind::InvalidInput.into()));
    }
    let directory = io::stdout().as_fd().try_clone_to_owned().map_err(failed("standard output"))?;
    let place = statat(&directory, SOCKET, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| failed("standard output is not its directory")(error.into()))?;
    // From here on `SO_PEERCRED` shows clients that this process listens.
    rustix::net::listen(&listener, BACKLOG).map_err(|error| failed("its socket")(error.into()))?;
    // No program of the same user may trace this process, which has all terminals.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|error| failed("PR_SET_DUMPABLE")(error.into()))?;
    let listening = Listener { listener, directory, inode: place.st_ino };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| failed("PR_SET_CHILD_SUBREAPER")(error.into()))?;
    process::start_reaper(true).map_err(failed("a thread"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(failed("a runtime"))?.block_on(serve(listening)).map_err(failed("its socket"))
}

/// The socket to which engines connect.
struct Listener {
    listener: OwnedFd,
    directory: OwnedFd,
    inode: u64,
}

impl Listener {
    /// Whether an engine could still find it.
    fn is_there(&self) -> bool {
        statat(&self.directory, SOCKET, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|place| place.st_ino == self.inode)
    }
}

/// What all sessions share.
struct Keeper {
    null: File,
    cgroups: OnceLock<Option<Arc<Cgroups>>>,
    /// Where a connection that wants a session goes; and how many connections there are.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<String, mpsc::Sender<SessionCommand>>,
    links: usize,
}

/// What a session is told from outside its own connection.
enum SessionCommand {
    Adopt(Link),
    End,
}

async fn serve(listening: Listener) -> io::Result<()> {
    let _spare = SpareThread::keep();
    let listener = watch(listening.listener.try_clone()?, Interest::READABLE)?;
    let null = File::open("/dev/null")?;
    let keeper = Arc::new(Keeper { null, cgroups: OnceLock::new(), state: Mutex::default() });
    let mut looks = interval(IDLE_TIMEOUT);
    let mut was_idle = false;
    loop {
        let mut ready = tokio::select! {
            ready = listener.readable() => ready?,
            _ = looks.tick() => {
                if !listening.is_there() {
                    keeper.end_all_but(&HashSet::new()).await;
                }
                let is_idle = keeper.state().is_idle();
                if is_idle && was_idle {
                    return Ok(());
                }
                was_idle = is_idle;
                continue;
            }
        };
        was_idle = false;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match accept_with(&listener, flags) {
            Ok(socket) => match Link::new(socket) {
                Err(error) => tracing::warn!(%error, "a connection is refused"),
                Ok(link) => {
                    keeper.state().links += 1;
                    let keeper = Arc::clone(&keeper);
                    tokio::spawn(async move {
                        greet(&keeper, link).await;
                        keeper.state().links -= 1;
                    });
                }
            },
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            // Out of descriptors or memory, which passes, or a peer that has left.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The first word of a connection tells what it is for.
async fn greet(keeper: &Arc<Keeper>, link: Link) {
    match link.receive::<Request>().await {
        Ok(Some((Request::Start(start), fds))) => begin(keeper, link, *start, fds).await,
        Ok(Some((Request::Adopt { session }, _))) => {
            let to = keeper.state().sessions.get(&session).cloned();
            let refused = match to {
                Some(to) => match to.send(SessionCommand::Adopt(link)).await {
                    Ok(()) => return,
                    Err(mpsc::error::SendError(SessionCommand::Adopt(link))) => link,
                    Err(_) => return,
                },
                None => link,
            };
            let _ = refused.send(&Reply::Unknown, &[]).await;
        }
        Ok(Some((Request::Only, fds))) => {
            let Some(Ok(texts)) = fds.into_iter().next().map(texts_of) else { return };
            let kept: HashSet<String> =
                texts.iter().map(|text| text.to_string_lossy().into_owned()).collect();
            keeper.end_all_but(&kept).await;
            let _ = link.send(&Reply::Done, &[]).await;
        }
        _ => {}
    }
}

async fn begin(keeper: &Arc<Keeper>, link: Link, start: Start, fds: Vec<OwnedFd>) {
    let session = start.session.clone();
    let starter = Arc::clone(keeper);
    let started = tokio::task::spawn_blocking(move || starter.start(&start, fds)).await;
    let failed = |step, error: &io::Error| Reply::Failed {
        step,
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    };
    let refusal = match started {
        Ok(Ok((terminal, ring))) => {
            let (to, words) = mpsc::channel(WORDS);
            keeper.state().sessions.insert(session.clone(), to);
            let held =
                HeldSession { terminal: Arc::new(terminal), ring, ended: None, is_ours: false };
            if held.hand_over(&link).await.is_ok() {
                held.keep(link, words).await;
            } else {
                held.terminal.end().await;
            }
            keeper.state().sessions.remove(&session);
            return;
        }
        Ok(Err(SpawnError::Clone(error))) => failed(StartStage::Clone, &error),
        Ok(Err(SpawnError::Prepare(error))) => failed(StartStage::Prepare, &error),
        Ok(Err(SpawnError::Exec(error))) => failed(StartStage::Exec, &error),
        Err(error) => failed(StartStage::Clone, &io::Error::other(error)),
    };
    let _ = link.send(&refusal, &[]).await;
}

impl Keeper {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn end_all_but(&self, kept: &HashSet<String>) {
        let others: Vec<_> = self
            .state()
            .sessions
            .iter()
            .filter(|(session, _)| !kept.contains(*session))
            .map(|(_, to)| to.clone())
            .collect();
        for other in others {
            let _ = other.send(SessionCommand::End).await;
        }
    }

    /// Starts a program. Blocks until it is loaded.
    fn start(&self, start: &Start, fds: Vec<OwnedFd>) -> Result<(LocalTerminal, Ring), SpawnError> {
        let wrong = |problem: &'static str| SpawnError::Clone(io::Error::other(problem));
        let mut fds = fds.into_iter();
        let (Some(texts), Some(workdir)) = (fds.next(), fds.next()) else {
            return Err(wrong("a start without its files"));
        };
        let mut texts = texts_of(texts).map_err(SpawnError::Clone)?.into_iter();
        let program = texts.next().ok_or(wrong("a start without a program"))?;
        let argv: Vec<CString> = texts.by_ref().take(start.words).collect();
        let mut env: Vec<CString> = texts.collect();
        let size = Size::clamped(start.cols, start.rows);
        let pair = Pair::open(size, &TerminalModes::new(start.modes.iter().copied()))
            .map_err(SpawnError::Clone)?;
        if let Some(name) = &start.tty_variable {
            pair.name_in(&mut env, name).map_err(SpawnError::Clone)?;
        }
        let Pair { ours, theirs } = pair;
        let limits = limits_from_wire(&start.limits);
        let cgroups = self.cgroups.get_or_init(|| match &start.cgroup {
            Cgroup::Off => None,
            Cgroup::Auto => Cgroups::below_own(),
            Cgroup::At(path) => Cgroups::below(path).ok(),
        });
        let group = cgroups.as_ref().map(|cgroups| cgroups.group(&limits)).transpose();
        let spawn = Spawn {
            program: &program,
            argv: &argv,
            env: &env,
            workdir: workdir.as_fd(),
            null: self.null.as_fd(),
            feed: false,
            limits: &limits,
            attributes: &start.attributes,
            tag: None,
            group: group.map_err(SpawnError::Clone)?,
            runs: None,
        };
        let ring = Ring::new(RING).map_err(SpawnError::Clone)?;
        let pty = Pty::new(ours).map_err(SpawnError::Clone)?;
        let leader = spawn.start_in(theirs.as_fd())?;
        let grace = Duration::from_millis(start.grace_ms);
        let terminal = LocalTerminal::new(pty, leader, grace, PathBuf::from("/"));
        Ok((terminal.keeping_background(start.keeps_background), ring))
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.links == 0
    }
}

/// One session.
struct HeldSession {
    terminal: Arc<LocalTerminal>,
    ring: Ring,
    ended: Option<crate::os::ExitStatus>,
    /// Some engine has said that it knows of it.
    is_ours: bool,
}

impl HeldSession {
    async fn hand_over(&self, link: &Link) -> io::Result<()> {
        let tree = self.terminal.leader().tree();
        let running = Reply::Running {
            pid: tree.leader.as_raw_nonzero().get(),
            tag: tree.run.tag.to_string(),
        };
        link.send(&running, &[self.terminal.pty().as_fd(), self.ring.as_fd()]).await?;
        match self.ended {
            Some(status) => link.send(&Reply::ended(status), &[]).await,
            None => Ok(()),
        }
    }

    /// Serves one engine after another, and reads what the program prints while there is none,
    /// until the session is forgotten.
    async fn keep(mut self, link: Link, mut words: mpsc::Receiver<SessionCommand>) {
        let mut link = Some(link);
        let mut buffer = Vec::new();
        let mut is_read = false;
        let mut alone_since = Instant::now();
        loop {
            let terminal = Arc::clone(&self.terminal);
            tokio::select! {
                status = terminal.ended(), if self.ended.is_none() => {
                    self.ended = Some(status);
                    if let Some(link) = &link {
                        let _ = link.send(&Reply::ended(status), &[]).await;
                    } else if !self.is_ours {
                        return;
                    }
                }
                word = words.recv() => match word {
                    Some(SessionCommand::Adopt(new)) => {
                        self.note(&mut buffer);
                        link = self.hand_over(&new).await.is_ok().then_some(new);
                        alone_since = Instant::now();
                    }
                    Some(SessionCommand::End) | None => {
                        self.terminal.end().await;
                        return;
                    }
                },
                said = said_on(&link) => match said {
                    Some(Request::Taken) => self.is_ours = true,
                    Some(Request::End) => {
                        tokio::spawn(async move { terminal.end().await });
                    }
                    Some(Request::Kill) => terminal.kill(),
                    Some(Request::Forget) if self.ended.is_some() => return,
                    Some(_) => {}
                    None => {
                        link = None;
                        alone_since = Instant::now();
                        let _ = self.ring.reload();
                        if !self.is_ours {
                            terminal.kill();
                        }
                    }
                },
                read = terminal.read(&mut buffer), if link.is_none() && !is_read => {
                    is_read = !matches!(read, Ok(1..));
                    self.note(&mut buffer);
                }
                () = sleep_until(alone_since + KEPT_FOR), if link.is_none() => {
                    self.terminal.end().await;
                    return;
                }
            }
        }
    }

    fn note(&mut self, buffer: &mut Vec<u8>) {
        // Its memory is all used up; the program goes on.
        let _ = self.ring.append(buffer);
        buffer.clear();
        buffer.shrink_to(0);
    }
}

/// What the engine says next; `None` when it has gone.
async fn said_on(link: &Option<Link>) -> Option<Request> {
    match link {
        Some(link) => Some(link.receive().await.ok()??.0),
        None => std::future::pending().await,
    }
}

/// The texts in a file, each ended by a NUL.
fn texts_of(file: OwnedFd) -> io::Result<Vec<CString>> {
    let mut file = File::from(file);
    file.rewind()?;
    let mut whole = Vec::new();
    file.take(MAX_TEXT_BYTES).read_to_end(&mut whole)?;
    whole
        .split_inclusive(|byte| *byte == 0)
        .map(|text| CString::from_vec_with_nul(text.to_vec()).map_err(io::Error::other))
        .collect()
}

/// Minimum time for which it waits for an engine, and interval at which it checks that its socket
/// exists.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long without an engine a program is ended.
const KEPT_FOR: Duration = Duration::from_hours(24);
/// How much of what is printed without an engine is kept.
const RING: u64 = 1 << 20;
/// Number of messages to a session that it has not taken yet; beyond it senders wait.
const WORDS: usize = 4;
/// More than the kernel lets a program have.
const MAX_TEXT_BYTES: u64 = 16 << 20;
