//! Where a server is to listen.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use crate::settings::UsageError;

pub(crate) enum Address {
    /// The first that can be had.
    Tcp(Vec<SocketAddr>),
    Unix {
        path: PathBuf,
        /// Permissions of the file.
        mode: u32,
    },
}

impl Address {
    /// The address behind `text`; `None` for `off`. Beyond this host only with credentials: whoever
    /// reaches the port would be in.
    pub(super) fn parse(
        setting: &str,
        text: &str,
        has_credentials: bool,
    ) -> Result<Option<Self>, UsageError> {
        if text == "off" {
            return Ok(None);
        }
        let culprit = format!("{setting} {text}");
        if let Some(unix) = text.strip_prefix("unix:") {
            return match unix_socket(unix) {
                Ok(address) => Ok(Some(address)),
                Err(problem) => Err(UsageError::new(&culprit, problem)),
            };
        }
        let problem = "is no address; wanted is HOST:PORT, unix:PATH, or `off`";
        let addresses: Vec<SocketAddr> =
            text.to_socket_addrs().map_err(|_| UsageError::new(&culprit, problem))?.collect();
        let is_loopback = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
        if !has_credentials && !addresses.iter().all(is_loopback) {
            let wanted = if setting.to_lowercase().contains("ssh") {
                "--authorized-keys"
            } else {
                "--token or --tokens"
            };
            let problem = format!("is not loopback, and that takes credentials: give {wanted}");
            return Err(UsageError::new(&culprit, &problem));
        }
        Ok(Some(Self::Tcp(addresses)))
    }

    /// The path of the UNIX socket that `text` names, if it names one.
    pub(crate) fn socket_path(text: &str) -> Option<PathBuf> {
        match unix_socket(text.strip_prefix("unix:")?) {
            Ok(Self::Unix { path, .. }) => Some(path),
            _ => None,
        }
    }
}

/// `PATH`, or `PATH,mode=0660`.
fn unix_socket(text: &str) -> Result<Address, &'static str> {
    let (path, mode) = match text.rsplit_once(",mode=") {
        None => (text, DEFAULT_MODE),
        Some((path, digits)) => {
            let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777);
            (path, mode.ok_or("has no mode of a file, such as `,mode=0660`")?)
        }
    };
    if path.is_empty() {
        return Err("has no path; wanted is unix:PATH");
    }
    Ok(Address::Unix { path: path.into(), mode })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addresses) => {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&all.join(", "))
            }
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whoever has it open runs commands as the server's user.
const DEFAULT_MODE: u32 = 0o600;
