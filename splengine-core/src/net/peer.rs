use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::auth::{Client, CredentialSource, Network, UnixPeer};

/// The other end of a [`Connection`](crate::net::Connection).
///
/// ```
/// use splengine_core::auth::UnixPeer;
/// use splengine_core::net::Peer;
///
/// let peer = Peer::Unix(UnixPeer::new(1000, 1000, None));
/// assert_eq!(peer.credential_source("http").unix_peer().map(|peer| peer.uid), Some(1000));
/// assert_eq!(peer.ip(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// Address and port of a client over TCP.
    Tcp(SocketAddr),
    /// Process that has connected to a UNIX socket.
    Unix(UnixPeer),
}

impl Peer {
    /// Returns the address, of TCP. An IPv4 address that was mapped into IPv6 is an IPv4 address here.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    pub(crate) fn network(&self) -> Network {
        let client = match self {
            Self::Tcp(address) => Client::Ip(address.ip()),
            Self::Unix(peer) => Client::Unix(*peer),
        };
        client.network()
    }

    /// Makes the source of credentials that come from there to the server of this name.
    #[must_use]
    pub fn credential_source(&self, server: &'static str) -> CredentialSource {
        match self {
            Self::Tcp(address) => CredentialSource::new(server, Some(address.ip())),
            Self::Unix(peer) => CredentialSource::unix(server, *peer),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(peer) => peer.fmt(f),
        }
    }
}

/// The address at the other end of a connection of TCP. Our own servers put it into the extensions of each
/// request of HTTP; a host that nests one of our services does so itself; otherwise bounds by
/// address count all clients of that host as one. Behind a UNIX socket it puts a [`CredentialSource`] there instead.
///
/// ```
/// use splengine_core::net::PeerAddress;
///
/// let peer = PeerAddress::new("::ffff:192.0.2.1".parse()?);
/// assert_eq!(peer, PeerAddress::new("192.0.2.1".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerAddress {
    /// IP address of the client. An IPv4 address that was mapped into IPv6 is an IPv4 address here.
    pub ip: IpAddr,
}

impl PeerAddress {
    /// Makes a peer address of `ip`.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        Self { ip: ip.to_canonical() }
    }
}
