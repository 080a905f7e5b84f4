//! The SSH server.

use std::time::Duration;

use splengine_ssh::{SshServer, SshServerBuilder, Users};

use crate::failure::Failure;
use crate::file::SignalsWord;
use crate::servers::{Kind, Opening};
use crate::settings;

pub(super) const KIND: Kind = Kind {
    name: "ssh",
    // Without host keys there is none.
    address: |opening| opening.settings.ssh.as_ref().filter(|_| opening.keys.is_some()),
    interface: |bound, _| ("ssh", bound.place("", "")),
    add: |opening, bound, servers| {
        let (Some(keys), Some(users)) = (&opening.keys, &opening.users) else {
            return Ok(servers);
        };
        let server = configured(opening, users)?.listen(bound.listener, keys);
        let server = server.map_err(Failure::start)?;
        tracing::info!(fingerprints = ?keys.fingerprints(), "known to SSH clients by");
        Ok(servers.add(server))
    },
};

fn configured(opening: &Opening<'_>, users: &Users) -> Result<SshServerBuilder<Users>, Failure> {
    let Opening { engine, settings, .. } = opening;
    let table = &settings.ssh_table;
    let mut builder = SshServer::builder((*engine).clone())
        .users(users.clone())
        .connection_limits(settings.connections.apply(SshServer::default_connection_limits()));
    let unread = table.unread_directory.clone();
    builder = builder
        .unread_directory(unread.unwrap_or_else(|| settings.root.join("runtime/ssh/unread")))
        .max_unread(
            table.max_unread_per_caller.unwrap_or(1 << 30),
            table.max_unread.unwrap_or(4 << 30),
        );
    builder = builder
        .algorithms(settings::algorithms(&table.algorithms)?)
        .signals_as_status(table.signals == SignalsWord::Status)
        .serve_scp(table.scp.unwrap_or(true))
        .permit_open(table.permit_open.iter().map(String::as_str))
        .map_err(|error| Failure::caused("[ssh] permit-open", &error))?;
    if let Some(names) = &table.accept_env {
        builder = builder.accept_env(names);
    }
    if let Some(count) = table.max_connections {
        builder = builder.max_connections(usize::try_from(count.get()).unwrap_or(usize::MAX));
    }
    if let Some(time) = table.login_grace {
        builder = builder.login_grace(Duration::from_millis(time.get()));
    }
    if let Some(interval) = table.keepalive {
        builder = builder.keepalive(Duration::from_millis(interval.get()), 3);
    }
    Ok(builder)
}
