//! Addresses that a client may have: the pattern lists of `from="…"` (sshd(8)) and of `source-address`
//! (OpenSSH's PROTOCOL.certkeys). Pure.

use std::net::IpAddr;

/// Addresses that are let in, and ones that are not.
///
/// One that is refused is so wherever in the list it stands, and a list that only refuses lets
/// nobody in, as with OpenSSH.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Addresses(Vec<(Verdict, Pattern)>);

#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
enum Verdict {
    Admitted,
    Refused,
}

#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
enum Pattern {
    Network {
        address: IpAddr,
        prefix: u32,
    },
    /// Compared with the address as it is written, `*` and `?` standing for anything.
    Text(String),
}

impl Addresses {
    /// A list as in `from="…"`: addresses, networks, wildcards, `!` before one to refuse. `None` for
    /// one that is malformed, or that holds names: they are not looked up, so one that ought to be
    /// refused would be let in.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let item = |item: &str| match item.strip_prefix('!') {
            Some(pattern) => Pattern::parse(pattern).map(|pattern| (Verdict::Refused, pattern)),
            None => Pattern::parse(item).map(|pattern| (Verdict::Admitted, pattern)),
        };
        text.split(',').map(item).collect::<Option<_>>().map(Self)
    }

    /// A list as in `source-address`: addresses and networks.
    pub(crate) fn parse_networks(text: &str) -> Option<Self> {
        let item = |item| Pattern::network(item).map(|pattern| (Verdict::Admitted, pattern));
        text.split(',').map(item).collect::<Option<_>>().map(Self)
    }

    /// Whether a client from there is let in. An IPv4 address within IPv6 counts as the former.
    pub(crate) fn admit(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        let text = from.to_string();
        let mut matching = self.0.iter().filter(|(_, pattern)| pattern.matches(from, &text));
        let Some((first, _)) = matching.next() else { return false };
        *first == Verdict::Admitted && matching.all(|(verdict, _)| *verdict == Verdict::Admitted)
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        if let Some(network) = Self::network(text) {
            return Some(network);
        }
        let is_v6 = text.contains(':');
        let is_address = |byte: u8| {
            b".:*?".contains(&byte)
                || if is_v6 { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() }
        };
        let is_wild = text.contains(['*', '?']) && text.bytes().all(is_address);
        is_wild.then(|| Self::Text(text.to_ascii_lowercase()))
    }

    fn network(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= whole)?
            }
            Some(_) => return None,
            None => whole,
        };
        // Bits beyond the prefix mean that one of the two is mistaken.
        (masked(address, prefix) == bits(address)).then_some(Self::Network { address, prefix })
    }

    fn matches(&self, from: IpAddr, text: &str) -> bool {
        match self {
            Self::Network { address, prefix } => {
                address.is_ipv4() == from.is_ipv4() && masked(from, *prefix) == bits(*address)
            }
            Self::Text(pattern) => matches(pattern.as_bytes(), text.as_bytes()),
        }
    }
}

/// From the top, so that a prefix means the same for both families.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn masked(address: IpAddr, prefix: u32) -> u128 {
    bits(address) & !u128::MAX.checked_shr(prefix).unwrap_or(0)
}

/// In time of at most the product of both lengths, whatever the pattern.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                (at, seen) = (place + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(list: &str, from: &str) -> bool {
        let list = Addresses::parse(list).unwrap_or_else(|| panic!("{list}"));
        list.admit(from.parse().expect("an address"))
    }

    #[test]
    fn lists_admit_and_refuse() {
        for (list, from, expected) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.11", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.0/8", "10.255.0.3", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("192.0.2.*", "192.0.2.77", true),
            ("192.0.?.1", "192.0.22.1", false),
            ("2001:DB8:*", "2001:db8::5", true),
            ("*", "::1", true),
            ("*,!10.0.0.5", "10.0.0.5", false),
            ("!10.0.0.5,*", "10.0.0.5", false),
            ("!10.0.0.0/24,10.0.0.0/8", "10.0.1.5", true),
            ("!10.0.0.5", "10.0.0.6", false),
        ] {
            assert_eq!(admit(list, from), expected, "{list} and {from}");
        }
    }

    #[test]
    fn what_is_no_address_is_no_list() {
        for list in [
            "",
            ",",
            "10.0.0.1,",
            "host",
            "*.example.com",
            "!!10.0.0.1",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0",
            "10.0.0.1 ",
            "fe*",
            "!",
        ] {
            assert!(Addresses::parse(list).is_none(), "{list}");
        }
        for list in ["*", "!10.0.0.1", "10.0.0.*", ""] {
            assert!(Addresses::parse_networks(list).is_none(), "{list}");
        }
        let networks = Addresses::parse_networks("10.0.0.0/8,::1").expect("two");
        assert!(networks.admit("::1".parse().expect("one")));
    }

    #[test]
    fn many_stars_cost_little() {
        let pattern = format!("{}5", "*1".repeat(4000));
        assert!(!admit(&pattern, "111.111.111.111"));
    }
}
