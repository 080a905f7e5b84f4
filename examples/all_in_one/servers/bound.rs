//! A listener, and how others are told of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use splengine_core::net::{BindError, ListenAddr, Listener};

use crate::failure::Failure;
use crate::settings::Address;

pub(super) struct Bound {
    pub(super) listener: Listener,
    pub(super) local_addr: ListenAddr,
}

impl Bound {
    /// `culprit` is the setting that the address comes from.
    pub(super) async fn listen(culprit: String, address: &Address) -> Result<Self, Failure> {
        let failed = |error: BindError| {
            Failure::start(format!("{culprit}: can't listen on {address}: {}", error.source))
        };
        let listener = match address {
            Address::Tcp(addresses) => Listener::bind(&addresses[..]).await,
            Address::Unix { path, mode } => Listener::bind_unix(path, *mode).await,
        };
        let listener = listener.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_addr })
    }

    /// Returns the port alone for a server that listens on all addresses: whoever asks knows the host.
    pub(super) fn place(&self, scheme: &str, path: &str) -> String {
        match self.local_addr.tcp() {
            Some(address) if address.ip().is_unspecified() => format!(":{}{path}", address.port()),
            Some(address) => format!("{scheme}{address}{path}"),
            None => self.local_addr.to_string(),
        }
    }

    /// Returns an address that a browser can be sent to: all addresses of a host are none, nor is a UNIX
    /// socket.
    pub(super) fn reachable_url(&self) -> Option<String> {
        let local_addr = self.local_addr.tcp()?;
        let port = local_addr.port();
        let address = match local_addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, port).into(),
            IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, port).into(),
            _ => local_addr,
        };
        Some(format!("http://{address}/"))
    }
}
