//! The protocol between an engine and its PTY host: packets of JSON over a Unix socket that keeps their
//! bounds, with file descriptors. One connection is one session.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::local::CgroupMode;
use crate::os::{ExitStatus, LimitKind, Limits, Signal};
use crate::process::{Attributes, comes_from_a_run, watch};

/// What the engine says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Start a program, whose words and variables come in a file beside this, with its directory.
    Start(Box<Start>),
    /// Give me the session of this name.
    Adopt { session: String },
    /// End all sessions but those whose names come in a file beside this.
    Only,
    /// The session is mine: until then it is killed when the connection ends.
    Taken,
    /// Ask the program to end, and kill it after its grace.
    End,
    /// Kill it.
    Kill,
    /// Forget the session, which has ended.
    Forget,
}

/// A program to start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) session: String,
    pub(crate) cols: u16,
    pub(crate) rows: u16,
    #[serde(default)]
    pub(crate) modes: Vec<(u8, u32)>,
    #[serde(default)]
    pub(crate) tty_variable: Option<String>,
    /// What runs in the background when the program exits is let be.
    #[serde(default)]
    pub(crate) keeps_background: bool,
    pub(crate) grace_ms: u64,
    /// How many of the texts are words; the first is the program's path, the rest are variables.
    pub(crate) words: usize,
    /// As by [`limits_to_wire`].
    pub(crate) limits: Vec<Option<u64>>,
    pub(crate) cgroup: Cgroup,
    pub(crate) attributes: Attributes,
}

/// [`CgroupMode`] on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Cgroup {
    Off,
    Auto,
    At(std::path::PathBuf),
}

/// What the PTY host says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It runs; the terminal and what it printed lately come beside this.
    Running { pid: i32, tag: String },
    /// It could not be started: at this step, for this error number.
    Failed { step: StartStage, errno: i32 },
    /// There is no such session.
    Unknown,
    /// All others are told to end.
    Done,
    /// The program has ended, and with it all that it started.
    Ended { code: i32, signal: Option<i32> },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum StartStage {
    Clone,
    Prepare,
    Exec,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Link(AsyncFd<OwnedFd>);

impl Link {
    /// Takes a socket that does not block, whose other end must be this user's or root's, and no
    /// process of a run: those are this user's, too, and could have the terminals of others, or pass
    /// for the PTY host. A secret in a file would not keep them away, since they may read what this
    /// user may.
    ///
    /// The other end is who connected, or who has listened last; it is looked at at once, so that its
    /// number can't have gone to another process in the meantime.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let peer = socket_peercred(&socket)?;
        let own = rustix::process::geteuid();
        if peer.uid != own && !peer.uid.is_root() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let can_be_known = peer.uid == own && peer.pid != rustix::process::getpid();
        if can_be_known && comes_from_a_run(peer.pid) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self(watch(socket, Interest::READABLE | Interest::WRITABLE)?))
    }

    /// Says something.
    pub(crate) async fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        loop {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|_| self.send_now(message, fds)) {
                Ok(sent) => return sent,
                Err(_would_block) => {}
            }
        }
    }

    /// The same without waiting; an error where it would have to.
    pub(crate) fn send_now<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(io::Error::other("a message to or of a PTY host is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, flags)?;
        Ok(())
    }

    /// Waits for what the other end says; `None` when it has gone.
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn receive<T: DeserializeOwned>(
        &self,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|socket| receive_now(socket.get_ref().as_fd())) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(None);
                }
                Ok(received) => return received,
                Err(_would_block) => {}
            }
        }
    }
}

fn receive_now<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let length = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?.bytes;
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&text[..length])?, fds)))
}

impl Reply {
    pub(crate) fn ended(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Code(code) => Self::Ended { code, signal: None },
            ExitStatus::Signal(signal) => Self::Ended { code: 0, signal: Some(signal.number()) },
        }
    }
}

/// The place of a limit on the wire. The two ends may be of different versions, since the PTY host goes on
/// when its engine is replaced: a new kind gets the next place, and none changes its own.
fn wire_index(kind: LimitKind) -> usize {
    match kind {
        LimitKind::CpuTime => 0,
        LimitKind::Memory => 1,
        LimitKind::OpenFiles => 2,
        LimitKind::Processes => 3,
        LimitKind::FileSize => 4,
        LimitKind::AddressSpace => 5,
    }
}

pub(crate) fn limits_to_wire(limits: &Limits) -> Vec<Option<u64>> {
    let mut values = vec![None; LimitKind::ALL.len()];
    for &kind in LimitKind::ALL {
        values[wire_index(kind)] = limits.value(kind);
    }
    values
}

pub(crate) fn limits_from_wire(values: &[Option<u64>]) -> Limits {
    let value = |kind| values.get(wire_index(kind)).copied().flatten();
    let given = LimitKind::ALL.iter().filter_map(|&kind| Some((kind, value(kind)?)));
    given.fold(Limits::default(), |limits, (kind, value)| limits.with(kind, value))
}

/// How a program ended of which these were told.
pub(crate) fn exit_status(code: i32, signal: Option<i32>) -> ExitStatus {
    signal.and_then(Signal::from_number).map_or(ExitStatus::Code(code), ExitStatus::Signal)
}

impl From<&CgroupMode> for Cgroup {
    fn from(mode: &CgroupMode) -> Self {
        match mode {
            CgroupMode::Off => Self::Off,
            CgroupMode::Auto => Self::Auto,
            CgroupMode::At(path) => Self::At(path.clone()),
        }
    }
}

/// Bytes of a message; what may be longer goes into a file.
const MAX_MESSAGE_BYTES: usize = 16 << 10;
const MAX_FDS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// A PTY host and an engine of different versions must mean the same.
    #[test]
    fn every_limit_keeps_its_place_on_the_wire() {
        let wire = serde_json::json!([1000, 2, 3, 4, 5, 6]);
        let values: Vec<Option<u64>> = serde_json::from_value(wire.clone()).expect("a list");
        let limits = limits_from_wire(&values);
        for (kind, value) in [
            (LimitKind::CpuTime, 1000),
            (LimitKind::Memory, 2),
            (LimitKind::OpenFiles, 3),
            (LimitKind::Processes, 4),
            (LimitKind::FileSize, 5),
            (LimitKind::AddressSpace, 6),
        ] {
            assert_eq!(limits.value(kind), Some(value), "{kind:?}");
        }
        assert_eq!(serde_json::to_value(limits_to_wire(&limits)).expect("a list"), wire);
        // An earlier version knows fewer, a later one more.
        assert_eq!(limits_from_wire(&values[..1]).value(LimitKind::Memory), None);
        assert_eq!(limits_from_wire(&[&values[..], &[Some(7)]].concat()), limits);
    }

    #[test]
    fn no_two_limits_have_one_place_on_the_wire() {
        for &kind in LimitKind::ALL {
            let limits = Limits::default().with(kind, 1);
            assert_eq!(limits_from_wire(&limits_to_wire(&limits)), limits, "{kind:?}");
        }
    }
}
