//! The Avro RPC server, which the HTTP server has as well.

use splengine_avro::{AvroServer, AvroServerBuilder, Tls};
use splengine_core::auth::SharedAuthenticator;
use splengine_core::net::ConnectionLimits;

use crate::failure::Failure;
use crate::servers::{Kind, Opening};
use crate::settings::{Settings, avro_tls};

pub(super) const KIND: Kind = Kind {
    name: "avro",
    address: |opening| opening.settings.avro.as_ref(),
    interface: |bound, _| ("avro-rpc", bound.place("", "")),
    add: |opening, bound, servers| {
        let settings = opening.settings;
        let server = configured(opening).listen(bound.listener).map_err(Failure::start)?;
        let mut server =
            server.connection_limits(settings.connections.apply(ConnectionLimits::new()));
        if let Some(count) = settings.avro_table.max_connections {
            server = server.max_connections(usize::try_from(count.get()).unwrap_or(usize::MAX));
        }
        if let Some(tls) = &opening.tls {
            server = server.serve_tls(tls.clone());
            server = server.plain_text(settings.file.avro.plain_text.unwrap_or(true));
        }
        Ok(servers.add(server))
    },
};

pub(super) fn configured(opening: &Opening<'_>) -> AvroServerBuilder<SharedAuthenticator> {
    let Opening { engine, settings, interfaces, .. } = opening;
    let mut builder =
        AvroServer::builder((*engine).clone()).authenticate(settings.accounts.clone());
    for (name, place) in interfaces {
        builder = builder.interface(*name, place);
    }
    if let Some(bytes) = settings.avro_table.max_frame {
        builder = builder.max_frame(bytes);
    }
    builder
}

/// The certificate of the server, which can be replaced, if it is to serve TLS.
pub(super) fn tls(settings: &Settings) -> Result<Option<Tls>, Failure> {
    let Some((certificates, key)) = avro_tls(&settings.file.avro)? else { return Ok(None) };
    let tls = Tls::new(&certificates, &key);
    tls.map(Some).map_err(|error| Failure::caused("[avro] certificates", &error))
}
