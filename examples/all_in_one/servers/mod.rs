//! The servers, each made of its settings in a module of its own.

mod avro;
mod bound;
mod http;
mod ssh;
mod ws;

use std::cell::OnceCell;
use std::collections::BTreeMap;

use splengine_avro::Tls;
use splengine_core::Engine;
use splengine_core::engine::Servers;
use splengine_core::net::ListenAddr;
use splengine_http::HttpService;
use splengine_ssh::{HostKeys, Users};

use crate::failure::Failure;
use crate::settings::{Address, Settings};

use bound::Bound;

/// All kinds of servers, as they are listed in what is said on standard output.
const KINDS: [Kind; 4] = [http::KIND, ws::KIND, ssh::KIND, avro::KIND];

/// One kind of server.
struct Kind {
    /// Of its setting, and in what is said on standard output.
    name: &'static str,
    /// Where it is to listen; `None` where it is left out.
    address: for<'a> fn(&'a Opening<'_>) -> Option<&'a Address>,
    /// Its name in the service definition, and where it is.
    interface: fn(&Bound, &Settings) -> (&'static str, String),
    /// Adds the server to the others.
    add: fn(&Opening<'_>, Bound, Servers) -> Result<Servers, Failure>,
}

/// What servers are made of.
struct Opening<'a> {
    engine: &'a Engine,
    settings: &'a Settings,
    /// The host keys of the SSH server, where there is one, and who may come in there.
    keys: Option<HostKeys>,
    users: Option<Users>,
    /// The certificate of the Avro RPC server.
    tls: Option<Tls>,
    /// The servers, as the service definition lists them.
    interfaces: BTreeMap<&'static str, String>,
    /// Where people find the console.
    console: Option<String>,
    /// What the HTTP server answers with, once there is one.
    api: OnceCell<HttpService>,
}

/// Servers that have their addresses, and what of them is read again later.
pub(crate) struct Opened {
    pub(crate) servers: Servers,
    pub(crate) addresses: Vec<(&'static str, ListenAddr)>,
    /// The page to show to people: the console, or the HTTP server.
    pub(crate) page: Option<String>,
    pub(crate) users: Option<Users>,
    pub(crate) tls: Option<Tls>,
}

/// Binds all servers before the first one serves: each tells of the others.
pub(crate) async fn open(engine: &Engine, settings: &Settings) -> Result<Opened, Failure> {
    let keys = match &settings.ssh {
        Some(_) => settings.host_keys()?,
        None => None,
    };
    let mut opening = Opening {
        engine,
        settings,
        users: keys.as_ref().map(|_| settings.ssh_users()).transpose()?,
        keys,
        tls: avro::tls(settings)?,
        interfaces: BTreeMap::new(),
        console: settings.public_url.clone(),
        api: OnceCell::new(),
    };
    let mut bound = Vec::new();
    for kind in &KINDS {
        if let Some(address) = (kind.address)(&opening) {
            bound.push((kind, Bound::listen(settings.args.culprit(kind.name), address).await?));
        }
    }
    let addresses: Vec<_> =
        bound.iter().map(|(kind, bound)| (kind.name, bound.local_addr.clone())).collect();
    let url = |name: &str| {
        let (_, bound) = bound.iter().find(|(kind, _)| kind.name == name)?;
        bound.reachable_url()
    };
    opening.console = opening.console.or_else(|| url("ws"));
    let page = opening.console.clone().or_else(|| url("http"));
    opening.interfaces =
        bound.iter().map(|(kind, bound)| (kind.interface)(bound, settings)).collect();
    let mut servers = Servers::new();
    for (kind, bound) in bound {
        servers = (kind.add)(&opening, bound, servers)?;
    }
    let Opening { users, tls, .. } = opening;
    Ok(Opened { servers, addresses, page, users, tls })
}
