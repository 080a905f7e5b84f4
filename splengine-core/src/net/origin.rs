use crate::net::is_rebindable_host;

/// Rule by which a server of HTTP lets pages of other sites use it.
///
/// A page that a browser has open may send requests to any address that the browser reaches, loopback
/// included; the browser adds the page's origin (`Origin`). A server asks
/// [`is_allowed`](Self::is_allowed) about it before it does anything for the page, and
/// [`is_anonymous_allowed`](Self::is_anonymous_allowed) before it does anything for a client without
/// credentials.
///
/// ```
/// use splengine_core::net::OriginPolicy;
///
/// let policy = OriginPolicy::new().allow("https://app.example.org")?;
/// let host = Some("127.0.0.1:8080");
/// assert!(policy.is_allowed("http://127.0.0.1:8080", host));
/// assert!(policy.is_allowed("https://app.example.org", host));
/// assert!(!policy.is_allowed("https://other.example.org", host));
/// # Ok::<(), splengine_core::net::OriginError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct OriginPolicy {
    allowed: Vec<String>,
}

impl OriginPolicy {
    /// Allows the pages of the server itself, and no others.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows the pages of `origin` (RFC 6454), too: a scheme, a host and perhaps a port, and nothing
    /// else.
    ///
    /// # Errors
    ///
    /// [`OriginError`] when it is none, such as one with a path, be it `/` alone.
    pub fn allow(mut self, origin: &str) -> Result<Self, OriginError> {
        match is_origin(origin) {
            true => self.allowed.push(origin.to_owned()),
            false => return Err(OriginError(origin.to_owned())),
        }
        Ok(self)
    }

    /// Returns the origins that were allowed.
    pub fn allowed(&self) -> impl Iterator<Item = &str> {
        self.allowed.iter().map(String::as_str)
    }

    /// Returns whether a page of `origin` may act on the server that its request calls `host` (the
    /// header `Host` or `:authority`): it is one of this server itself, or its origin was allowed.
    /// Browsers send `null` for pages that have none.
    #[must_use]
    pub fn is_allowed(&self, origin: &str, host: Option<&str>) -> bool {
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        (own.is_some() && own == host) || self.allowed.iter().any(|allowed| allowed == origin)
    }

    /// Returns whether a client without credentials may be let in that calls this server `host`.
    /// Under a name that is [open to DNS rebinding](is_rebindable_host) it is not, unless an origin of
    /// that host was allowed: any page may be behind it.
    ///
    /// ```
    /// use splengine_core::net::OriginPolicy;
    ///
    /// let policy = OriginPolicy::new().allow("https://app.example.org")?;
    /// assert!(policy.is_anonymous_allowed(Some("localhost:8080")));
    /// assert!(policy.is_anonymous_allowed(Some("app.example.org")));
    /// assert!(!policy.is_anonymous_allowed(Some("rebind.example.org")));
    /// # Ok::<(), splengine_core::net::OriginError>(())
    /// ```
    #[must_use]
    pub fn is_anonymous_allowed(&self, host: Option<&str>) -> bool {
        let Some(host) = host.filter(|host| is_rebindable_host(host)) else { return true };
        let is_of_host =
            |origin: &String| origin.split_once("://").is_some_and(|(_, allowed)| allowed == host);
        self.allowed.iter().any(is_of_host)
    }
}

/// A text that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an origin; origins look like `https://example.org` or `http://localhost:3000`"
)]
#[non_exhaustive]
pub struct OriginError(String);

/// Whether it is `scheme://host` or `scheme://host:port`, of characters that may stand there.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        // An IPv6 address has its own colons, in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let is_name = |host: &str| {
        host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && is_name(host),
    };
    is_scheme && is_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_a_scheme_a_host_and_perhaps_a_port() {
        for origin in [
            "https://example.org",
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:8080",
            "http://[::1]",
            "chrome-extension://abcdef",
        ] {
            assert!(OriginPolicy::new().allow(origin).is_ok(), "{origin}");
        }
        for text in [
            "",
            "null",
            "example.org",
            "https://",
            "https://example.org/",
            "https://example.org/path",
            "https://example.org:",
            "https://example.org:99999",
            "https://user@example.org",
            "https://exa mple.org",
            "https://example.org?",
            "https://*.example.org",
            "http://[::1",
            "1http://example.org",
        ] {
            assert!(OriginPolicy::new().allow(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_page_is_allowed_by_its_host_or_its_origin() {
        let policy = OriginPolicy::new().allow("https://app.example.org").expect("an origin");
        assert!(policy.is_allowed("http://localhost:1", Some("localhost:1")));
        assert!(policy.is_allowed("https://app.example.org", Some("localhost:1")));
        for (origin, host) in [
            ("http://localhost:2", Some("localhost:1")),
            ("http://app.example.org", Some("localhost:1")),
            ("app://localhost:1", Some("localhost:1")),
            ("null", Some("null")),
            ("", Some("")),
            ("http://", None),
        ] {
            assert!(!policy.is_allowed(origin, host), "{origin} {host:?}");
        }
    }

    #[test]
    fn nobody_without_credentials_comes_by_anybodys_name() {
        let policy = OriginPolicy::new().allow("https://app.example.org").expect("an origin");
        for host in [None, Some("localhost:1"), Some("127.0.0.1"), Some("app.example.org")] {
            assert!(policy.is_anonymous_allowed(host), "{host:?}");
        }
        for host in ["rebind.example", "app.example.org:8080"] {
            assert!(!policy.is_anonymous_allowed(Some(host)), "{host}");
        }
    }
}
