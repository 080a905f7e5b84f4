//! A program in a pseudo-terminal of this host.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, Winsize, tcgetattr, tcgetpgrp, tcsetattr, tcsetwinsize,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::execute::ExitStatus;
use crate::process::{Leader, above_stdio, watch};
use crate::session::{Session, SessionStatus, Size};

/// The two sides of a pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) ours: OwnedFd,
    pub(crate) theirs: OwnedFd,
}

/// A program that runs in one.
pub(crate) struct LocalTerminal {
    ours: AsyncFd<OwnedFd>,
    leader: Leader,
    status: OnceCell<ExitStatus>,
    grace: Duration,
    /// As the kernel names it.
    root: PathBuf,
}

impl Pair {
    /// A new terminal, set up as people expect one, for text in UTF-8.
    pub(crate) fn open(size: Size) -> io::Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = above_stdio(ioctl_tiocgptpeer(&ours, flags)?)?;
        let ours = above_stdio(ours)?;
        let mut modes = tcgetattr(&theirs)?;
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&theirs, OptionalActions::Now, &modes)?;
        tcsetwinsize(&theirs, winsize(size))?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok(Self { ours, theirs })
    }
}

impl LocalTerminal {
    /// The program `leader`, started with the other side of `ours`.
    pub(crate) fn new(
        ours: OwnedFd,
        leader: Leader,
        grace: Duration,
        root: PathBuf,
    ) -> io::Result<Self> {
        let ours = watch(ours, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { ours, leader, status: OnceCell::new(), grace, root })
    }
}

impl Session for LocalTerminal {
    async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        buffer.reserve(CHUNK);
        let before = buffer.len();
        let mut patience = PATIENCE;
        loop {
            let mut ready = self.ours.readable().await?;
            // A terminal gives at most a page at a time; a frame for each would be dear.
            while buffer.len() - before < CHUNK {
                match rustix::io::read(&self.ours, rustix::buffer::spare_capacity(buffer)) {
                    Ok(0) => return Ok(buffer.len() - before),
                    Ok(_) => {}
                    // In the midst of a flood the next page is on its way.
                    Err(rustix::io::Errno::AGAIN)
                        if buffer.len() - before >= PAGE && patience > 0 =>
                    {
                        patience -= 1;
                        tokio::task::yield_now().await;
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    // What Linux answers when nobody holds the other side any more.
                    Err(rustix::io::Errno::IO) => return Ok(buffer.len() - before),
                    Err(error) => return Err(error.into()),
                }
            }
            if buffer.len() > before {
                return Ok(buffer.len() - before);
            }
        }
    }

    async fn write(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let mut ready = self.ours.writable().await?;
            match rustix::io::write(&self.ours, data) {
                Ok(length) => data = &data[length..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn resize(&self, size: Size) -> io::Result<()> {
        Ok(tcsetwinsize(self.ours.get_ref(), winsize(size))?)
    }

    async fn ended(&self) -> ExitStatus {
        let reaped = async {
            if let Err(error) = self.leader.ended().await {
                tracing::error!(%error, "the end of a session's program can't be awaited");
            }
            self.leader.tree().sweep().await;
            self.leader.reap().unwrap_or_else(|error| {
                tracing::error!(%error, "how a session's program ended isn't known");
                ExitStatus::Code(UNKNOWN)
            })
        };
        *self.status.get_or_init(|| reaped).await
    }

    async fn end(&self) {
        if self.status.initialized() {
            return;
        }
        let tree = self.leader.tree();
        tree.hang_up().await;
        if timeout(self.grace, self.ended()).await.is_err() {
            tree.kill().await;
        }
    }

    fn kill(&self) {
        // Once it is reaped its number may be another's.
        if !self.status.initialized() {
            self.leader.tree().kill_now();
        }
    }

    fn status(&self) -> SessionStatus {
        let leader = self.leader.tree().leader;
        let workdir = std::fs::read_link(format!("/proc/{}/cwd", leader.as_raw_nonzero()));
        let foreground = tcgetpgrp(self.ours.get_ref());
        let modes = tcgetattr(self.ours.get_ref());
        let workdir = workdir.ok().filter(|path| path.is_dir());
        SessionStatus {
            is_outside: workdir.as_ref().is_some_and(|path| !path.starts_with(&self.root)),
            workdir,
            busy: foreground.is_ok_and(|group| group != leader),
            echo: modes.is_ok_and(|modes| modes.local_modes.contains(LocalModes::ECHO)),
        }
    }
}

impl fmt::Debug for LocalTerminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTerminal").field("leader", &self.leader).finish_non_exhaustive()
    }
}

fn winsize(size: Size) -> Winsize {
    Winsize { ws_row: size.rows(), ws_col: size.cols(), ws_xpixel: 0, ws_ypixel: 0 }
}

/// As much as the kernel hands on at a time.
const PAGE: usize = 4000;
const PATIENCE: u32 = 16;
const CHUNK: usize = 64 * 1024;
/// What shells give for a command of which they know nothing.
const UNKNOWN: i32 = 125;
