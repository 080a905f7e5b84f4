//! Listeners of all servers, bound before the first one serves: each tells of the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::Failure;
use crate::settings::Settings;

pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) local_addr: SocketAddr,
}

/// Listeners of the servers that are not left out.
pub(crate) struct Listeners {
    pub(crate) http: Option<Bound>,
    pub(crate) ws: Option<Bound>,
    pub(crate) ssh: Option<Bound>,
    pub(crate) avro: Option<Bound>,
}

impl Listeners {
    /// Listener of the SSH server; without users' keys there is none.
    pub(crate) async fn open(settings: &Settings, has_keys: bool) -> Result<Self, Failure> {
        let ssh = settings.ssh.as_deref().filter(|_| has_keys);
        let listen = |name, addresses| Bound::listen(settings.args.culprit(name), addresses);
        Ok(Self {
            http: listen("http", settings.http.as_deref()).await?,
            ws: listen("ws", settings.ws.as_deref()).await?,
            ssh: listen("ssh", ssh).await?,
            avro: listen("avro", settings.avro.as_deref()).await?,
        })
    }

    /// As the line on standard output names them.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        [("http", &self.http), ("ws", &self.ws), ("ssh", &self.ssh), ("avro", &self.avro)]
            .into_iter()
            .filter_map(|(server, bound)| Some((server, bound.as_ref()?.local_addr)))
    }

    /// Returns the address of each server, for the service definition.
    pub(crate) fn interfaces(&self, settings: &Settings) -> BTreeMap<&'static str, String> {
        let socket = self.ws.as_ref().map(|bound| match &settings.public_url {
            Some(page) => format!("{}terminal", page.replacen("http", "ws", 1)),
            None => bound.place("ws://", "/terminal"),
        });
        [
            ("rest", self.http.as_ref().map(|bound| bound.place("http://", "/api/v1"))),
            ("websocket", socket),
            ("ssh", self.ssh.as_ref().map(|bound| bound.place("", ""))),
            ("avro-rpc", self.avro.as_ref().map(|bound| bound.place("", ""))),
        ]
        .into_iter()
        .filter_map(|(name, place)| Some((name, place?)))
        .collect()
    }
}

impl Bound {
    /// `culprit` is the setting that the addresses come from.
    async fn listen(
        culprit: String,
        addresses: Option<&[SocketAddr]>,
    ) -> Result<Option<Self>, Failure> {
        let Some(addresses) = addresses else { return Ok(None) };
        let failed = |error: std::io::Error| {
            let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Failure::Start(format!("{culprit}: can't listen on {}: {error}", all.join(", ")).into())
        };
        let listener = TcpListener::bind(addresses).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok(Some(Self { listener, local_addr }))
    }

    /// Returns the port alone for a server that listens on all addresses: whoever asks knows the host.
    fn place(&self, scheme: &str, path: &str) -> String {
        match self.local_addr.ip().is_unspecified() {
            true => format!(":{}{path}", self.local_addr.port()),
            false => format!("{scheme}{}{path}", self.local_addr),
        }
    }
}
