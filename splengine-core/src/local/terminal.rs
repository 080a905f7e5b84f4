//! A program in a pseudo-terminal of this host.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::execute::Reason;
use crate::local::pty::Pty;
use crate::os::ExitStatus;
use crate::process::Leader;
use crate::terminal::{Session, SessionStatus, Size};

/// A program in a terminal, as a child of this process, with which it ends.
pub(crate) struct LocalTerminal {
    pty: Pty,
    leader: Leader,
    status: OnceCell<ExitStatus>,
    grace: Duration,
    /// What runs in the background when the program exits by itself is let be.
    keeps_background: bool,
    /// It was told to end.
    is_stopped: AtomicBool,
    /// As the kernel names it.
    root: PathBuf,
}

impl LocalTerminal {
    /// The program `leader`, started with the other side of `pty`.
    pub(crate) fn new(pty: Pty, leader: Leader, grace: Duration, root: PathBuf) -> Self {
        let (keeps_background, is_stopped) = (false, AtomicBool::new(false));
        let status = OnceCell::new();
        Self { pty, leader, status, grace, keeps_background, is_stopped, root }
    }

    /// The same with what becomes of its background processes when it exits by itself.
    pub(crate) fn keeping_background(mut self, keeps: bool) -> Self {
        self.keeps_background = keeps;
        self
    }

    /// Ends what is left of the program, unless that is to be kept.
    async fn sweep(&self) {
        let tree = self.leader.tree();
        if !self.keeps_background || self.is_stopped.load(Relaxed) {
            tree.sweep().await;
        } else if let Some(group) = &tree.group
            && let Err(error) = group.keep()
        {
            tracing::warn!(%error, "the next engine will end what this session left running");
        }
    }

    pub(crate) fn pty(&self) -> &Pty {
        &self.pty
    }

    pub(crate) fn leader(&self) -> &Leader {
        &self.leader
    }
}

impl Session for LocalTerminal {
    async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.pty.read(buffer).await
    }

    async fn write(&self, data: &[u8]) -> io::Result<()> {
        self.pty.write(data).await
    }

    fn resize(&self, size: Size) -> io::Result<()> {
        self.pty.resize(size)
    }

    async fn ended(&self) -> ExitStatus {
        let reaped = async {
            if let Err(error) = self.leader.ended().await {
                tracing::error!(%error, "the end of a session's program can't be awaited");
            }
            self.sweep().await;
            let reaped = self.leader.reap().map(|(status, _)| status);
            reaped.unwrap_or_else(|error| {
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
        self.is_stopped.store(true, Relaxed);
        let tree = self.leader.tree();
        tree.hang_up().await;
        if timeout(self.grace, self.ended()).await.is_err() {
            tree.kill().await;
        }
    }

    fn kill(&self) {
        // Once it is reaped its number may be another's.
        if !self.status.initialized() {
            self.is_stopped.store(true, Relaxed);
            self.leader.tree().kill_now();
        }
    }

    fn status(&self) -> SessionStatus {
        self.pty.status(self.leader.tree().leader, &self.root)
    }

    fn mark(&self) -> Option<String> {
        Some(self.leader.tree().run.tag.to_string())
    }
}

impl fmt::Debug for LocalTerminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTerminal").field("leader", &self.leader).finish_non_exhaustive()
    }
}

/// What shells give for a command of which they know nothing.
pub(crate) const UNKNOWN: i32 = Reason::Lost.exit_code();
