//! Permitted targets of forwarded connections. Pure.

/// Targets of forwarding that are allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Targets(Vec<Target>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// `None` is any.
    Tcp {
        host: Option<String>,
        port: Option<u16>,
    },
    Socket(String),
}

/// A text that names no target of forwarding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no target; wanted is HOST:PORT, with `*` for any host or any port and an address of \
     IPv6 in brackets, or the absolute path of a socket"
)]
#[non_exhaustive]
pub struct TargetError {
    /// Text that is no target.
    pub text: String,
}

impl Targets {
    pub(crate) fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, TargetError> {
        texts.into_iter().map(Target::parse).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn add(&mut self, text: &str) -> Result<(), TargetError> {
        self.0.push(Target::parse(text)?);
        Ok(())
    }

    pub(crate) fn allow_tcp(&self, to: &str, at: u32) -> bool {
        self.0.iter().any(|target| match target {
            Target::Tcp { host, port } => {
                host.as_ref().is_none_or(|host| host.eq_ignore_ascii_case(to))
                    && port.is_none_or(|port| u32::from(port) == at)
            }
            Target::Socket(_) => false,
        })
    }

    pub(crate) fn allow_socket(&self, path: &str) -> bool {
        self.0.iter().any(|target| matches!(target, Target::Socket(socket) if socket == path))
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError { text: text.to_owned() };
        if text.starts_with('/') {
            return Ok(Self::Socket(text.to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(host) => host,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.is_empty() {
            return Err(wrong());
        }
        let port = match port {
            "*" => None,
            number => Some(number.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
        };
        Ok(Self::Tcp { host: Some(host.to_owned()).filter(|host| host != "*"), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_allowed() {
        let targets =
            Targets::parse(["Localhost:80", "db:*", "*:8080", "[::1]:5", "/run/x"]).expect("fine");
        for (host, port) in
            [("localhost", 80), ("db", 1), ("db", 65_535), ("anything", 8080), ("::1", 5)]
        {
            assert!(targets.allow_tcp(host, port), "{host}:{port}");
        }
        for (host, port) in [("localhost", 81), ("db2", 1), ("::1", 6), ("localhost", 65_616)] {
            assert!(!targets.allow_tcp(host, port), "{host}:{port}");
        }
        assert!(targets.allow_socket("/run/x"));
        assert!(!targets.allow_socket("/run/x2") && !targets.allow_socket("/run/../run/x"));
        assert!(!Targets::default().allow_tcp("localhost", 80));
        for wrong in ["", "host", ":80", "host:0", "host:65536", "::1:80", "host:http", "x/y"] {
            assert_eq!(Targets::parse([wrong]).expect_err(wrong).text, wrong);
        }
    }
}
