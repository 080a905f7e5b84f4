use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use tokio::net::{TcpListener, ToSocketAddrs, UnixListener};

use crate::net::bind::{BindError, bind};
use crate::net::listen_addr::ListenAddr;
use crate::net::socket_file::SocketFile;
use crate::net::stream::Stream;

/// A listening socket, of TCP or of the UNIX family, from which a server accepts its connections. All
/// servers take one, and treat both alike: an address of TCP counts as a uid does of a UNIX socket.
///
/// [`TcpListener`] and [`UnixListener`] become one by `into`, so that inherited ones do.
///
/// ```
/// use splengine_core::net::{ListenAddr, Listener};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tcp = Listener::bind("127.0.0.1:0").await?;
/// assert!(tcp.local_addr()?.tcp().is_some());
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("engine.sock");
/// let unix = Listener::bind_unix(&path, 0o600).await?;
/// assert_eq!(unix.local_addr()?.unix_path(), Some(&*path));
/// drop(unix);
/// assert!(!path.exists());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Listener {
    socket: ListeningSocket,
    /// Removed when the listener is closed.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens on an address of TCP; port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// [`BindError`] when the address is not available.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases the address.
    pub async fn bind(address: impl ToSocketAddrs + fmt::Debug) -> Result<Self, BindError> {
        Ok(bind(address).await?.0.into())
    }

    /// Listens on a UNIX socket at `path`, whose file has the permissions `mode`, such as `0o600`: who
    /// may write to the file may connect. Nobody connects before it has them. The file is removed when
    /// the listener is closed, which servers do when they end.
    ///
    /// A socket that is there already is replaced if nobody listens on it, as is left by a process that
    /// was killed. Where several processes do this at the same time, one of them gets the address.
    ///
    /// # Errors
    ///
    /// [`BindError`] when somebody listens there, when what is there is no socket, when the path is longer
    /// than 107 bytes, or when the file can't be made.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases the address soon after.
    pub async fn bind_unix(path: impl AsRef<Path>, mode: u32) -> Result<Self, BindError> {
        let path = path.as_ref().to_owned();
        let failed = |source| BindError::new(format!("unix:{}", path.display()), source);
        let bound = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || SocketFile::bind(path, mode)).await
        };
        let (socket, file) = bound.map_err(io::Error::other).flatten().map_err(failed)?;
        let socket = UnixListener::from_std(socket).map_err(failed)?;
        Ok(Self { socket: ListeningSocket::Unix(socket), _file: Some(file) })
    }

    /// Returns the address that it listens on.
    ///
    /// # Errors
    ///
    /// [`BindError`] when the listener has no address.
    pub fn local_addr(&self) -> Result<ListenAddr, BindError> {
        let address = match &self.socket {
            ListeningSocket::Tcp(listener) => listener.local_addr().map(ListenAddr::Tcp),
            ListeningSocket::Unix(listener) => {
                listener.local_addr().map(|address| ListenAddr::of_unix(&address))
            }
        };
        address.map_err(|source| BindError::new(format!("{:?}", self.socket), source))
    }

    /// # Cancel safety
    ///
    /// Safe: no connection is lost.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            ListeningSocket::Tcp(listener) => Ok(listener.accept().await?.0.into()),
            ListeningSocket::Unix(listener) => Ok(listener.accept().await?.0.into()),
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { socket: ListeningSocket::Tcp(listener), _file: None }
    }
}

impl From<UnixListener> for Listener {
    /// The file of the socket is not removed at the end.
    fn from(listener: UnixListener) -> Self {
        Self { socket: ListeningSocket::Unix(listener), _file: None }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            ListeningSocket::Tcp(listener) => listener.as_fd(),
            ListeningSocket::Unix(listener) => listener.as_fd(),
        }
    }
}
