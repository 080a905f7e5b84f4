use std::net::IpAddr;

/// The address at the other end of a connection. Our own servers put it into the extensions of each
/// request of HTTP; a host that nests one of our services does so itself, or bounds that count by
/// address see one client in all of its.
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
    /// The address. An IPv4 address that was mapped into IPv6 is an IPv4 address here.
    pub ip: IpAddr,
}

impl PeerAddress {
    /// The address `ip`.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        Self { ip: ip.to_canonical() }
    }
}

/// Returns the network that the owner of `ip` has to themselves at the least: of IPv6 the first 64
/// bits, of IPv4 (mapped into IPv6 too) the address itself.
pub(crate) fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            octets[8..].fill(0);
            IpAddr::V6(octets.into())
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let of = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:127.0.0.1"), of("127.0.0.1"));
        assert_ne!(of("127.0.0.2"), of("127.0.0.1"));
    }
}
