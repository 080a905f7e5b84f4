//! Terminals that outlive the engine: a small process holds them, and passes them to the next engine.
//!
//! The PTY host starts the programs, so that it is their parent and has their exit codes. While an
//! engine is connected it reads and types by itself, on the very same terminal; what it has read
//! it notes in a ring that both have. When its connection breaks, for whatever reason, the PTY host
//! reads on into that ring, until an engine connects that names the session.

mod client;
mod protocol;
mod ring;
mod server;

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, MemfdFlags, Mode, OFlags, chmodat, memfd_create, openat, unlinkat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::io::Interest;
use tokio::time::{Instant, sleep};

use crate::local::pty_host::protocol::{Link, Reply, Request};
use crate::process::{above_stdio, start_pty_host, watch};

pub(crate) use client::HeldTerminal;
pub(crate) use protocol::{Cgroup, Start, StartStage, limits_to_wire};
pub use server::{PtyHostError, run_pty_host};

/// A process beside this one that keeps terminals, so that their programs continue when this process
/// ends, is killed or is replaced by a newer one.
///
/// It is this same program, started with arguments of your choice when it is first needed; your `main`
/// checks for these before anything else and calls [`run_pty_host`]:
///
/// ```no_run
/// use splengine_core::{Engine, LocalExecutor};
/// use splengine_core::local::PtyHost;
/// use splengine_core::session::SessionPolicy;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// if std::env::args().nth(1).as_deref() == Some("--hold-terminals") {
///     return Ok(splengine_core::local::run_pty_host()?);
/// }
/// let directory = "/var/lib/my-server/sessions";
/// let executor = LocalExecutor::builder("/srv")
///     .pty_host(PtyHost::new(directory, ["--hold-terminals"])?)
///     .build()?;
/// let sessions = SessionPolicy::new().store(directory);
/// let engine = Engine::builder(executor).sessions(sessions).build()?;
/// // Whatever was left running by the process before this one goes on here.
/// engine.resume().await;
/// # Ok(())
/// # }
/// ```
///
/// Commands run as the same user, and could reach its socket: the PTY host serves no process that a run
/// of an engine started, nor does the engine take such a process for the PTY host. Neither can be
/// traced by others of the same user when both are not dumpable (`PR_SET_DUMPABLE` of prctl(2)):
/// [`run_pty_host`] does this for the PTY host, and your `main` should do so for the engine's process.
/// A program that may raise resource limits (CAP_SYS_RESOURCE) or trace any process is not kept away.
///
/// It runs in the same cgroup and as the same user; under systemd, `KillMode=process` spares it. A
/// program that no engine has taken over for 24 hours is ended, and so are all when the directory
/// is removed. What it prints in the meantime is
/// kept up to its last 1 MiB.
#[derive(Clone)]
pub struct PtyHost(Arc<Inner>);

struct Inner {
    directory: OwnedFd,
    words: Vec<CString>,
    /// Held while a PTY host is being started.
    starting: tokio::sync::Mutex<()>,
}

impl PtyHost {
    /// Makes a PTY host that listens on a socket in `directory`, which is made if it does not exist,
    /// and that is started as this program with `words`. One engine uses it at a time; the directory of
    /// a [store](crate::session::SessionPolicy::store) is a good place, since that is locked.
    ///
    /// # Errors
    ///
    /// When the directory can't be made or opened, or a word holds a NUL.
    pub fn new(
        directory: impl AsRef<Path>,
        words: impl IntoIterator<Item = impl Into<String>>,
    ) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = above_stdio(openat(CWD, directory.as_ref(), flags, Mode::empty())?)?;
        let words = words.into_iter().map(|word| CString::new(word.into()));
        let words = [CString::new("splengine-pty-host")]
            .into_iter()
            .chain(words)
            .collect::<Result<_, _>>()?;
        let starting = tokio::sync::Mutex::new(());
        Ok(Self(Arc::new(Inner { directory, words, starting })))
    }

    /// A connection to the PTY host; `None` when none runs.
    async fn meet(&self) -> io::Result<Option<Link>> {
        let address = SocketAddrUnix::new(self.path())?;
        let deadline = Instant::now() + MEET_WITHIN;
        loop {
            let socket = unix_socket()?;
            match connect(&socket, &address) {
                Ok(()) => match Link::new(socket) {
                    // Some other process listens there, or the PTY host ends at this moment.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        tracing::warn!("the socket of the PTY host is not the PTY host's");
                        return Ok(None);
                    }
                    link => return link.map(Some),
                },
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => return Ok(None),
                // So many want it at once.
                Err(rustix::io::Errno::AGAIN) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A connection to the PTY host, which is started when none runs.
    async fn meet_or_start(&self) -> io::Result<Link> {
        if let Some(link) = self.meet().await? {
            return Ok(link);
        }
        let _starting = self.0.starting.lock().await;
        if let Some(link) = self.meet().await? {
            return Ok(link);
        }
        self.start().await?;
        self.meet().await?.ok_or_else(|| io::Error::other("the PTY host is gone"))
    }

    /// Starts the PTY host. It gets its socket from us, so that there is nothing to wait for.
    async fn start(&self) -> io::Result<()> {
        let _ = unlinkat(&self.0.directory, SOCKET, AtFlags::empty());
        let listener = above_stdio(unix_socket()?)?;
        bind(&listener, &SocketAddrUnix::new(self.path())?)?;
        // Under whatever umask.
        chmodat(&self.0.directory, SOCKET, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        listen(&listener, BACKLOG)?;
        let inner = Arc::clone(&self.0);
        let started = tokio::task::spawn_blocking(move || {
            start_pty_host(&inner.words, [listener.as_fd(), inner.directory.as_fd()])
        });
        let pidfd = watch(started.await.map_err(io::Error::other)??, Interest::READABLE)?;
        tokio::spawn(async move {
            if pidfd.readable().await.is_ok() {
                let _ = waitid(WaitId::PidFd(pidfd.get_ref().as_fd()), WaitIdOptions::EXITED);
            }
        });
        Ok(())
    }

    /// Starts a program: `texts` are its path, its words and its variables.
    pub(crate) async fn open(
        &self,
        start: Start,
        texts: &[CString],
        workdir: OwnedFd,
        root: PathBuf,
    ) -> io::Result<Result<HeldTerminal, (StartStage, io::Error)>> {
        let texts = file_of(texts)?;
        let request = Request::Start(Box::new(start));
        // One that nobody needed may be about to end.
        for _ in 0..3 {
            let link = self.meet_or_start().await?;
            if link.send(&request, &[texts.as_fd(), workdir.as_fd()]).await.is_err() {
                continue;
            }
            return match link.receive().await? {
                Some((Reply::Failed { step, errno }, _)) => {
                    Ok(Err((step, io::Error::from_raw_os_error(errno))))
                }
                Some((Reply::Running { pid, tag }, fds)) => {
                    let (terminal, _) = HeldTerminal::new(link, pid, &tag, fds, root, 0)?;
                    Ok(Ok(terminal))
                }
                Some((reply, _)) => Err(unexpected(&reply)),
                None => continue,
            };
        }
        Err(io::Error::other("the PTY host ends as soon as it is started"))
    }

    /// The session of this name, of whose output `read` bytes are known, if the PTY host has it; and
    /// how many of those that follow are lost.
    pub(crate) async fn adopt(
        &self,
        session: String,
        read: u64,
        root: PathBuf,
    ) -> io::Result<Option<(HeldTerminal, u64)>> {
        let Some(link) = self.meet().await? else { return Ok(None) };
        link.send(&Request::Adopt { session }, &[]).await?;
        match link.receive().await? {
            Some((Reply::Running { pid, tag }, fds)) => {
                HeldTerminal::new(link, pid, &tag, fds, root, read).map(Some)
            }
            Some((Reply::Unknown, _)) | None => Ok(None),
            Some((reply, _)) => Err(unexpected(&reply)),
        }
    }

    /// Ends all sessions but these.
    pub(crate) async fn keep_only(&self, sessions: Vec<String>) -> io::Result<()> {
        let Some(link) = self.meet().await? else { return Ok(()) };
        let names: Vec<CString> =
            sessions.into_iter().filter_map(|name| CString::new(name).ok()).collect();
        link.send(&Request::Only, &[file_of(&names)?.as_fd()]).await?;
        let _: Option<(Reply, _)> = link.receive().await?;
        Ok(())
    }

    /// The socket's path by way of the directory's descriptor: addresses have room for 107 bytes.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}/{SOCKET}", self.0.directory.as_raw_fd())
    }
}

impl fmt::Debug for PtyHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PtyHost").finish_non_exhaustive()
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// The texts in a file without a name, each ended by a NUL.
fn file_of(texts: &[CString]) -> io::Result<OwnedFd> {
    use std::io::Write as _;
    let mut file = fs::File::from(memfd_create("splengine-texts", MemfdFlags::CLOEXEC)?);
    let whole: Vec<u8> = texts.iter().flat_map(|text| text.as_bytes_with_nul()).copied().collect();
    file.write_all(&whole)?;
    Ok(file.into())
}

fn unexpected(reply: &Reply) -> io::Error {
    io::Error::other(format!("the PTY host said {reply:?}"))
}

const SOCKET: &str = "holder.sock";
const BACKLOG: i32 = 256;
const MEET_WITHIN: Duration = Duration::from_secs(10);
