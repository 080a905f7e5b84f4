//! The HTTP server.

use splengine_avro::results_container;
use splengine_core::auth::SharedAuthenticator;
use splengine_core::net::ConnectionLimits;
use splengine_http::{HttpServer, HttpServerBuilder};

use crate::failure::Failure;
use crate::servers::{Kind, Opening, avro};

pub(super) const KIND: Kind = Kind {
    name: "http",
    address: |opening| opening.settings.http.as_ref(),
    interface: |bound, _| ("rest", bound.place("http://", "/api/v1")),
    add: |opening, bound, servers| {
        let settings = opening.settings;
        let server = configured(opening)?.listen(bound.listener).map_err(Failure::start)?;
        let mut server =
            server.connection_limits(settings.connections.apply(ConnectionLimits::new()));
        if let Some(count) = settings.max_connections {
            server = server.max_connections(usize::try_from(count.get()).unwrap_or(usize::MAX));
        }
        server = settings.header_timeout.into_iter().fold(server, HttpServer::header_timeout);
        server =
            settings.keep_alive_timeout.into_iter().fold(server, HttpServer::keep_alive_timeout);
        // The WebSocket server has the same for its API.
        opening.api.get_or_init(|| server.service());
        Ok(servers.add(server))
    },
};

pub(super) fn configured(
    opening: &Opening<'_>,
) -> Result<HttpServerBuilder<SharedAuthenticator>, Failure> {
    let Opening { engine, settings, interfaces, console, .. } = opening;
    let mut builder = HttpServer::builder((*engine).clone())
        .authenticate(settings.accounts.clone())
        .results_as("application/avro", "avro", results_container);
    if let Some(path) = &settings.base_path {
        builder =
            builder.base_path(path).map_err(|error| Failure::caused("[http] base-path", &error))?;
    }
    for origin in &settings.allow_origins {
        builder = builder
            .allow_origin(origin)
            .map_err(|error| Failure::caused("[http] allow-origins", &error))?;
    }
    builder = settings.max_buffered.into_iter().fold(builder, HttpServerBuilder::max_buffered);
    if let Some(bytes) = settings.max_body {
        builder = builder.max_body(bytes);
    }
    for (name, place) in interfaces {
        builder = builder.interface(*name, place);
    }
    if settings.avro.is_some() {
        let service = avro::configured(opening).into_service();
        builder = builder.mount("/avro", service.clone()).mount("/avro/protocol", service);
    }
    Ok(console.iter().fold(builder, HttpServerBuilder::console))
}
