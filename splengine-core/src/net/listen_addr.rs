use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The address that a server listens on.
///
/// ```
/// use splengine_core::net::ListenAddr;
///
/// let address = ListenAddr::Unix("/run/engine.sock".into());
/// assert_eq!(address.to_string(), "unix:/run/engine.sock");
/// assert_eq!(ListenAddr::Tcp(([127, 0, 0, 1], 8080).into()).to_string(), "127.0.0.1:8080");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenAddr {
    /// An address of TCP.
    Tcp(SocketAddr),
    /// The path of a UNIX socket; of one in the abstract namespace (unix(7)) its name after an `@`.
    Unix(PathBuf),
}

impl ListenAddr {
    pub(crate) fn of_unix(address: &tokio::net::unix::SocketAddr) -> Self {
        if let Some(path) = address.as_pathname() {
            return Self::Unix(path.to_owned());
        }
        #[cfg(target_os = "linux")]
        let name = address.as_abstract_name().unwrap_or_default();
        #[cfg(not(target_os = "linux"))]
        let name = &[];
        let mut shown = OsString::from("@");
        shown.push(OsStr::from_bytes(name));
        Self::Unix(shown.into())
    }

    /// Returns the address of TCP, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Returns the path of the UNIX socket, if it is one.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
