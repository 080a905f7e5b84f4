//! The host that a request names.

use http::header::HOST;
use http::uri::Authority;
use http::{Request, Version};

/// A request that does not name one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No host is named.
    #[error("the header Host is missing")]
    Missing,
    /// There are several headers.
    #[error("there must be one header Host, not several")]
    Several,
    /// Not a host with or without a port; or, in HTTP/2, another one than `:authority`.
    #[error("the header Host must be a host, with or without a port")]
    Invalid,
}

/// Refuses a request that does not name one host, as RFC 9112, section 3.2, demands: every server on
/// the way must take it for the same. HTTP/1.0 may leave it out, and HTTP/2 name it in `:authority`.
///
/// # Errors
///
/// [`HostError`], which is to be answered with 400.
///
/// ```
/// use splengine_http::{HostError, check_host};
///
/// # fn main() -> Result<(), http::Error> {
/// let request = http::Request::get("/").header("host", "example.org:8080").body(())?;
/// assert_eq!(check_host(&request), Ok(()));
/// assert_eq!(check_host(&http::Request::get("/").body(())?), Err(HostError::Missing));
/// # Ok(())
/// # }
/// ```
pub fn check_host<B>(request: &Request<B>) -> Result<(), HostError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let authority = request.uri().authority().filter(|_| request.version() >= Version::HTTP_2);
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(HostError::Several),
        (None, None) if authority.is_some() || request.version() <= Version::HTTP_10 => {
            return Ok(());
        }
        (None, None) => return Err(HostError::Missing),
        (Some(host), None) => host.to_str().map_err(|_| HostError::Invalid)?,
    };
    // Where there is no authority, it is empty.
    let is_host = host.is_empty()
        || host.parse::<Authority>().is_ok_and(|authority| {
            let port = host
                .strip_prefix(authority.host())
                .and_then(|rest| if rest.is_empty() { Some("") } else { rest.strip_prefix(':') });
            port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        });
    let is_same = authority.is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(host));
    if is_host && is_same { Ok(()) } else { Err(HostError::Invalid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, uri: &str, hosts: &[&str]) -> Result<(), HostError> {
        let request = Request::get(uri).version(version);
        let request = hosts.iter().fold(request, |request, host| request.header(HOST, *host));
        check_host(&request.body(()).expect("a request"))
    }

    #[test]
    fn one_host_is_named() {
        use HostError::{Invalid, Missing, Several};
        use Version as V;
        for host in ["a", "a.example:80", "[::1]:8080", "127.0.0.1", ""] {
            assert_eq!(check(V::HTTP_11, "/", &[host]), Ok(()), "{host}");
        }
        for host in ["a b", "a/b", "user@a", "a:b", "a:80:80", "a#b", "ü"] {
            assert_eq!(check(V::HTTP_11, "/", &[host]), Err(Invalid), "{host}");
        }
        for version in [V::HTTP_10, V::HTTP_11, V::HTTP_2] {
            assert_eq!(check(version, "/", &["a", "a"]), Err(Several), "{version:?}");
        }
        assert_eq!(check(V::HTTP_10, "/", &[]), Ok(()));
        assert_eq!(check(V::HTTP_11, "/", &[]), Err(Missing));
        assert_eq!(check(V::HTTP_11, "http://a/", &[]), Err(Missing));
        assert_eq!(check(V::HTTP_2, "/", &[]), Err(Missing));
        assert_eq!(check(V::HTTP_2, "/", &["a"]), Ok(()));
        assert_eq!(check(V::HTTP_2, "http://a/", &[]), Ok(()));
        assert_eq!(check(V::HTTP_2, "http://a/", &["A"]), Ok(()));
        assert_eq!(check(V::HTTP_2, "http://a/", &["b"]), Err(Invalid));
    }
}
