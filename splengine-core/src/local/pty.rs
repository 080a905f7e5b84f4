//! The terminal of a program on this host.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, Winsize, tcgetattr, tcgetpgrp, tcsetattr, tcsetwinsize,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::local::termios;
use crate::process::{above_stdio, watch};
use crate::terminal::{SessionStatus, Size, TerminalModes};

/// The two sides of a pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) ours: OwnedFd,
    pub(crate) theirs: OwnedFd,
}

/// Our side of one.
pub(crate) struct Pty(AsyncFd<OwnedFd>);

impl Pair {
    /// A new terminal, set up as people expect one, for text in UTF-8.
    pub(crate) fn open(size: Size, wanted: &TerminalModes) -> io::Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = above_stdio(ioctl_tiocgptpeer(&ours, flags)?)?;
        let ours = above_stdio(ours)?;
        let mut modes = tcgetattr(&theirs)?;
        modes.input_modes |= InputModes::IUTF8;
        termios::set(&mut modes, wanted);
        tcsetattr(&theirs, OptionalActions::Now, &modes)?;
        tcsetwinsize(&theirs, winsize(size))?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok(Self { ours, theirs })
    }

    /// Puts the path of the terminal into the variable `name` of `env`, which execve(2) takes.
    pub(crate) fn name_in(&self, env: &mut Vec<CString>, name: &str) -> io::Result<()> {
        let path = ptsname(&self.ours, Vec::new())?;
        let name = [name.as_bytes(), b"="].concat();
        env.retain(|entry| !entry.as_bytes().starts_with(&name));
        env.push(CString::new([&name, path.as_bytes()].concat())?);
        Ok(())
    }
}

impl Pty {
    /// Takes `ours`, which does not block.
    pub(crate) fn new(ours: OwnedFd) -> io::Result<Self> {
        Ok(Self(watch(ours, Interest::READABLE | Interest::WRITABLE)?))
    }

    /// As [`Session::read`](crate::Session::read); what it had got when it is dropped is in
    /// `buffer`.
    pub(crate) async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        buffer.reserve(CHUNK);
        let before = buffer.len();
        let mut patience = PATIENCE;
        loop {
            let mut ready = self.0.readable().await?;
            // A terminal gives at most a page at a time; a frame for each would be dear.
            while buffer.len() - before < CHUNK {
                match rustix::io::read(&self.0, rustix::buffer::spare_capacity(buffer)) {
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

    /// As [`Session::write`](crate::Session::write).
    pub(crate) async fn write(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let mut ready = self.0.writable().await?;
            match rustix::io::write(&self.0, data) {
                Ok(length) => data = &data[length..],
                Err(rustix::io::Errno::INTR) => {}
                // Nobody holds the other side any more. That is never cleared, and to wait for room
                // would keep the thread, without a point at which anything else gets it.
                Err(rustix::io::Errno::AGAIN) if ready.ready().is_write_closed() => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(crate) fn resize(&self, size: Size) -> io::Result<()> {
        Ok(tcsetwinsize(self.0.get_ref(), winsize(size))?)
    }

    /// What the program is at whose first process is `leader`, with `root` as the kernel names it.
    pub(crate) fn status(&self, leader: Pid, root: &Path) -> SessionStatus {
        let workdir = std::fs::read_link(format!("/proc/{}/cwd", leader.as_raw_nonzero()));
        let foreground = tcgetpgrp(self.0.get_ref());
        let modes = tcgetattr(self.0.get_ref());
        let workdir = workdir.ok().filter(|path| path.is_dir());
        SessionStatus {
            is_outside: workdir.as_ref().is_some_and(|path| !path.starts_with(root)),
            workdir,
            busy: foreground.is_ok_and(|group| group != leader),
            echo: modes.is_ok_and(|modes| modes.local_modes.contains(LocalModes::ECHO)),
        }
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

fn winsize(size: Size) -> Winsize {
    Winsize { ws_row: size.rows(), ws_col: size.cols(), ws_xpixel: 0, ws_ypixel: 0 }
}

/// As much as the kernel hands on at a time.
const PAGE: usize = 4000;
const PATIENCE: u32 = 16;
pub(crate) const CHUNK: usize = 64 * 1024;
