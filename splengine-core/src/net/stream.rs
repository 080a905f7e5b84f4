//! A connected socket, of either family.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};

use crate::auth::UnixPeer;
use crate::net::listen_addr::ListenAddr;
use crate::net::peer::Peer;

#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls the method that both families have.
macro_rules! of_either {
    ($stream:expr, $name:ident($($argument:expr),*)) => {
        match $stream {
            Self::Tcp(stream) => stream.$name($($argument),*),
            Self::Unix(stream) => stream.$name($($argument),*),
        }
    };
}

impl Stream {
    /// Sends at once what is written, and finds out within 45 s that a peer is gone without a word. To a
    /// UNIX socket both come by themselves.
    pub(crate) fn set_up(&self) {
        // What is written to a socket that its peer has closed shall be an error, and no signal.
        #[cfg(target_vendor = "apple")]
        let _ = sockopt::set_socket_nosigpipe(self, true);
        if let Self::Tcp(stream) = self {
            let _ = stream.set_nodelay(true);
            let _ = sockopt::set_socket_keepalive(stream, true);
            let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(30));
            let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5));
            let _ = sockopt::set_tcp_keepcnt(stream, 3);
        }
    }

    pub(crate) fn peer(&self) -> io::Result<Peer> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(Peer::Tcp),
            Self::Unix(stream) => {
                let peer = stream.peer_cred()?;
                let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
                Ok(Peer::Unix(UnixPeer::new(peer.uid(), peer.gid(), pid)))
            }
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<ListenAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().map(ListenAddr::Tcp),
            Self::Unix(stream) => Ok(ListenAddr::of_unix(&stream.local_addr()?)),
        }
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self, poll_read_ready(cx))
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self, poll_write_ready(cx))
    }

    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        of_either!(self, try_read(buffer))
    }

    pub(crate) fn try_read_buf(&self, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        of_either!(self, try_read_buf(buffer))
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        of_either!(self, try_write(bytes))
    }

    pub(crate) fn try_write_vectored(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        of_either!(self, try_write_vectored(slices))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        of_either!(self, as_fd())
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}
