use std::net::IpAddr;
use std::str::FromStr;

/// Address, or a network of them: `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`.
///
/// ```
/// use splengine_core::auth::AddressRange;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let office: AddressRange = "10.1.0.0/16".parse()?;
/// assert!(office.contains("10.1.2.3".parse()?));
/// assert!(office.contains("::ffff:10.1.2.3".parse()?));
/// assert!(!office.contains("10.2.0.1".parse()?));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    network: IpAddr,
    prefix: u8,
}

/// A text that is not an [`AddressRange`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an IP address nor a network such as 10.0.0.0/8")]
#[non_exhaustive]
pub struct ParseAddressRangeError(String);

impl AddressRange {
    /// Returns whether `address` is one of the range. An IPv4 address that was mapped into IPv6 is
    /// an IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let other = u32::from(network) ^ u32::from(address);
                other.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let other = u128::from(network) ^ u128::from(address);
                other.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        let network = address.to_canonical();
        Self { network, prefix: if network.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for AddressRange {
    type Err = ParseAddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let Some((network, prefix)) = text.split_once('/') else {
                return text.parse::<IpAddr>().ok().map(Self::from);
            };
            let network: IpAddr = network.parse().ok()?;
            let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix: u8 = prefix.parse().ok().filter(|_| is_number)?;
            let max = if network.is_ipv4() { 32 } else { 128 };
            (prefix <= max).then_some(Self { network, prefix })
        };
        parse().ok_or_else(|| ParseAddressRangeError(text.chars().take(100).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_say() {
        for (range, address, holds) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
        ] {
            let parsed: AddressRange = range.parse().expect(range);
            assert_eq!(
                parsed.contains(address.parse().expect(address)),
                holds,
                "{range} {address}"
            );
        }
        for wrong in ["", "localhost", "10.0.0.0/33", "10.0.0.0/+8", "::/129", "10.0.0.0/", "/8"] {
            assert!(wrong.parse::<AddressRange>().is_err(), "{wrong}");
        }
    }
}
