//! Where clients are, and which of them count as one.

use std::fmt;
use std::net::IpAddr;

use crate::auth::UnixPeer;

/// Where a client is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Client {
    Unknown,
    Ip(IpAddr),
    Unix(UnixPeer),
}

/// Clients that count as one where others can't tell them apart, for bounds by client: of IPv6 those of the first
/// 64 bits, which the owner of an address has to themselves at the least; of a UNIX socket those of one user. Returned
/// by [`CredentialSource::network`](crate::auth::CredentialSource::network).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Network {
    /// All clients that have no known address.
    Unknown,
    /// An address of IPv4, or the first address of a network of IPv6.
    Ip(IpAddr),
    /// User id of processes that connect through a UNIX socket.
    Uid(u32),
}

impl Network {
    /// Returns the network of 48 bits in which that of an address of IPv6 lies, of which a site may have 65,536
    /// (RFC 6177); any other as it is.
    ///
    /// ```
    /// use splengine_core::auth::Network;
    ///
    /// let network = Network::Ip("2001:db8:1:2::".parse().unwrap());
    /// assert_eq!(network.site(), Network::Ip("2001:db8:1::".parse().unwrap()));
    /// ```
    #[must_use]
    pub fn site(self) -> Self {
        match self {
            Self::Ip(IpAddr::V6(ip)) => Self::Ip(IpAddr::V6((u128::from(ip) >> 80 << 80).into())),
            network => network,
        }
    }
}

impl Client {
    pub(crate) fn network(self) -> Network {
        match self {
            Self::Unknown => Network::Unknown,
            Self::Unix(peer) => Network::Uid(peer.uid),
            Self::Ip(ip) => Network::Ip(match ip.to_canonical() {
                IpAddr::V6(ip) => {
                    let network = u128::from(ip) >> 64 << 64;
                    IpAddr::V6(network.into())
                }
                ip => ip,
            }),
        }
    }

    /// Where it is for the log; `None` where that is not known.
    pub(crate) fn shown(&self) -> Option<&Self> {
        (!matches!(self, Self::Unknown)).then_some(self)
    }
}

impl From<Option<IpAddr>> for Client {
    fn from(address: Option<IpAddr>) -> Self {
        address.map_or(Self::Unknown, |address| Self::Ip(address.to_canonical()))
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Unix(peer) => peer.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Client::from(Some(text.parse().expect("an address"))).network()
    }

    #[test]
    fn networks_of_ipv6_and_mapped_addresses_are_one() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8::1"));
        assert_eq!(network("::ffff:127.0.0.1"), network("127.0.0.1"));
        assert_ne!(network("127.0.0.2"), network("127.0.0.1"));
        assert_ne!(Client::from(None::<IpAddr>).network(), network("::"));
    }

    #[test]
    fn processes_of_one_user_are_one() {
        let of = |uid, pid| Client::Unix(UnixPeer::new(uid, 1, Some(pid))).network();
        assert_eq!(of(7, 1), of(7, 2));
        assert_ne!(of(7, 1), of(8, 1));
        assert_ne!(of(0, 1), Client::Unknown.network());
    }
}
