//! The WebSocket server, with the console.

use splengine_core::net::ConnectionLimits;
use splengine_ws::{WsServer, WsServerBuilder};

use crate::failure::Failure;
use crate::servers::{Kind, http};

pub(super) const KIND: Kind = Kind {
    name: "ws",
    address: |opening| opening.settings.ws.as_ref(),
    interface: |bound, settings| {
        let place = match &settings.public_url {
            Some(page) => format!("{}terminal", page.replacen("http", "ws", 1)),
            None => bound.place("ws://", "/terminal"),
        };
        ("websocket", place)
    },
    add: |opening, bound, servers| {
        let settings = opening.settings;
        let api = match opening.api.get() {
            Some(api) => api.clone(),
            None => http::configured(opening)?.into_service(),
        };
        let mut builder = WsServer::builder(opening.engine.clone())
            .authenticate(settings.accounts.clone())
            .keep_logins(settings.logins())
            .api(api);
        for origin in &settings.ws_origins {
            builder = builder
                .allow_origin(origin)
                .map_err(|error| Failure::caused("[ws] allow-origins", &error))?;
        }
        if let Some(url) = &settings.public_url {
            // Where people find the console, it may be used from.
            let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
            builder = builder
                .allow_origin(&origin)
                .map_err(|error| Failure::caused("[ws] public-url", &error))?;
        }
        builder = settings.ws_clients.into_iter().fold(builder, WsServerBuilder::max_clients);
        let server = builder.listen(bound.listener).map_err(Failure::start)?;
        let limits = settings.connections.apply(ConnectionLimits::new());
        Ok(servers.add(server.connection_limits(limits)))
    },
};
