use std::net::Ipv4Addr;

/// Returns whether a host name is open to DNS rebinding: it contains a dot, is no IP address, and does
/// not end in `.localhost`. `host` is the name under which a client found this host, with a port or
/// without. The owner of such a name can have it lead here for a moment; to a browser, a page from
/// there is then one of this server's own. A request under such a name must not be let in without
/// credentials.
///
/// ```
/// use splengine_core::net::is_rebindable_host;
///
/// assert!(is_rebindable_host("rebind.example:8080"));
/// assert!(!is_rebindable_host("127.0.0.1:8080"));
/// assert!(!is_rebindable_host("localhost"));
/// ```
#[must_use]
pub fn is_rebindable_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_address = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
    // RFC 6761, section 6.3: what ends so is this host to whoever asks.
    let is_local = name.to_ascii_lowercase().ends_with(".localhost");
    name.contains('.') && !is_address && !is_local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_anybody_are_told_from_those_of_this_host() {
        for host in
            ["127.0.0.1:80", "10.1.2.3", "[::1]:80", "[fe80::1.2.3.4]", "localhost:1", "box"]
        {
            assert!(!is_rebindable_host(host), "{host}");
        }
        for host in ["App.Localhost:80", "app.localhost.", ""] {
            assert!(!is_rebindable_host(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "127.1", "a.b."]
        {
            assert!(is_rebindable_host(host), "{host}");
        }
    }
}
