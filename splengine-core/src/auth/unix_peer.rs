use std::fmt;

/// The process at the other end of a UNIX socket, as it was when it connected, by the word of the kernel
/// (`SO_PEERCRED`, unix(7)). It can't be forged: whoever has the right to be `uid` has shown that.
///
/// ```
/// use splengine_core::auth::{CredentialSource, UnixPeer};
///
/// let peer = UnixPeer::new(1000, 1000, Some(4711));
/// let source = CredentialSource::unix("http", peer);
/// assert_eq!(source.unix_peer().map(|peer| peer.uid), Some(1000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct UnixPeer {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id. Supplementary groups are not known.
    pub gid: u32,
    /// Process id, if it is known here. Another process may have it by now.
    pub pid: Option<u32>,
}

impl UnixPeer {
    /// Makes a peer of the process with these ids.
    #[must_use]
    pub fn new(uid: u32, gid: u32, pid: Option<u32>) -> Self {
        Self { uid, gid, pid }
    }
}

impl fmt::Display for UnixPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)
    }
}
