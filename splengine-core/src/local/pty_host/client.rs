//! A terminal that a PTY host keeps, as its engine drives it.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Pid;
use tokio::sync::OnceCell;

use crate::local::pty::{CHUNK, Pty};
use crate::local::pty_host::protocol::{Link, Reply, Request, exit_status};
use crate::local::pty_host::ring::Ring;
use crate::local::terminal::UNKNOWN;
use crate::os::ExitStatus;
use crate::process::{Tag, kill_tagged};
use crate::terminal::{Session, SessionStatus, Size};

/// A program in a terminal, as a child of the PTY host. Dropping it lets go of it.
pub(crate) struct HeldTerminal {
    link: Link,
    leader: Pid,
    tag: Tag,
    pty: Pty,
    ring: Mutex<Ring>,
    /// What was printed while nobody was there, and not read since.
    missed: Mutex<Vec<u8>>,
    status: OnceCell<ExitStatus>,
    root: PathBuf,
}

impl HeldTerminal {
    /// The one on `link`, of whose output `read` bytes are known; and how many of those that
    /// follow are lost.
    pub(crate) fn new(
        link: Link,
        pid: i32,
        tag: &str,
        fds: Vec<OwnedFd>,
        root: PathBuf,
        read: u64,
    ) -> io::Result<(Self, u64)> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let mut fds = fds.into_iter();
        let (Some(ours), Some(ring)) = (fds.next(), fds.next()) else { return Err(wrong()) };
        let ring = Ring::open(ring)?;
        let (lost, missed) = ring.since(read)?;
        let terminal = Self {
            leader: Pid::from_raw(pid).ok_or_else(wrong)?,
            tag: tag.parse().map_err(|_| wrong())?,
            pty: Pty::new(ours)?,
            ring: Mutex::new(ring),
            missed: Mutex::new(missed),
            status: OnceCell::new(),
            root,
            link,
        };
        terminal.link.send_now(&Request::Taken, &[])?;
        Ok((terminal, lost))
    }

    /// Waits for the PTY host to tell the end.
    async fn told(&self) -> ExitStatus {
        loop {
            match self.link.receive().await {
                Ok(Some((Reply::Ended { code, signal }, _))) => return exit_status(code, signal),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    tracing::error!("the PTY host of a session's terminal is gone");
                    kill_tagged(HashSet::from([self.tag])).await;
                    return ExitStatus::Code(UNKNOWN);
                }
            }
        }
    }

    fn say(&self, request: &Request) {
        if !self.status.initialized()
            && let Err(error) = self.link.send_now(request, &[])
        {
            tracing::warn!(%error, "the PTY host of a session's terminal can't be told");
        }
    }

    fn missed(&self) -> MutexGuard<'_, Vec<u8>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session for HeldTerminal {
    async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        {
            let mut missed = self.missed();
            if !missed.is_empty() {
                let piece = missed.len().min(CHUNK);
                buffer.extend(missed.drain(..piece));
                missed.shrink_to(0);
                return Ok(piece);
            }
        }
        let noted = Noted { from: buffer.len(), buffer, ring: &self.ring };
        self.pty.read(&mut *noted.buffer).await
    }

    async fn write(&self, data: &[u8]) -> io::Result<()> {
        self.pty.write(data).await
    }

    fn resize(&self, size: Size) -> io::Result<()> {
        self.pty.resize(size)
    }

    async fn ended(&self) -> ExitStatus {
        *self.status.get_or_init(|| self.told()).await
    }

    async fn end(&self) {
        self.say(&Request::End);
        // It has asked, waited for the grace and killed by then.
        self.ended().await;
    }

    fn kill(&self) {
        self.say(&Request::Kill);
    }

    fn status(&self) -> SessionStatus {
        self.pty.status(self.leader, &self.root)
    }

    fn mark(&self) -> Option<String> {
        Some(self.tag.to_string())
    }

    fn outlives(&self) -> bool {
        true
    }
}

impl Drop for HeldTerminal {
    fn drop(&mut self) {
        if self.status.initialized() {
            let _ = self.link.send_now(&Request::Forget, &[]);
        }
    }
}

impl fmt::Debug for HeldTerminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldTerminal").field("leader", &self.leader).finish_non_exhaustive()
    }
}

/// Notes in the ring what was read, also when the read is given up.
struct Noted<'a> {
    buffer: &'a mut Vec<u8>,
    from: usize,
    ring: &'a Mutex<Ring>,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let new = &self.buffer[self.from..];
        if new.is_empty() {
            return;
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = ring.append(new) {
            tracing::error!(%error, "what a program printed can't be kept for the next engine");
        }
    }
}
