//! A listener, and how others are told of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::failure::Failure;

pub(super) struct Bound {
    pub(super) listener: TcpListener,
    pub(super) local_addr: SocketAddr,
}

impl Bound {
    /// `culprit` is the setting that the addresses come from.
    pub(super) async fn listen(culprit: String, addresses: &[SocketAddr]) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Failure::start(format!("{culprit}: can't listen on {}: {error}", all.join(", ")))
        };
        let listener = TcpListener::bind(addresses).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_addr })
    }

    /// Returns the port alone for a server that listens on all addresses: whoever asks knows the host.
    pub(super) fn place(&self, scheme: &str, path: &str) -> String {
        match self.local_addr.ip().is_unspecified() {
            true => format!(":{}{path}", self.local_addr.port()),
            false => format!("{scheme}{}{path}", self.local_addr),
        }
    }

    /// Returns an address that a browser can be sent to: all addresses of a host are none.
    pub(super) fn reachable_url(&self) -> String {
        let port = self.local_addr.port();
        let address = match self.local_addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, port).into(),
            IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, port).into(),
            _ => self.local_addr,
        };
        format!("http://{address}/")
    }
}
