//! The Avro RPC server over TLS, for users who are known by their certificates.
//!
//!     cargo run --example client-certificates -- server.pem server.key clients-ca.pem alice=FINGERPRINT
//!
//! The files are in PEM: the server's chain of certificates, its key, and the authorities that sign the
//! certificates of clients. This prints the fingerprint of one of these:
//!
//!     openssl x509 -in alice.pem -noout -fingerprint -sha256 | cut -d= -f2
//!
//! The server prints its address, and runs until ctrl-c.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use splengine_avro::{AvroServer, ClientCertificates, Tls};
use splengine_core::auth::{
    AuthError, Authenticator, CertificateFingerprint, CredentialKind, CredentialSource,
    Credentials, Scope, Secret,
};
use splengine_core::engine::Servers;
use splengine_core::{Caller, Engine, LocalExecutor};
use tokio::signal::unix::{SignalKind, signal};

/// Users by the fingerprints of their certificates. One who is to be locked out is taken off the list.
struct Users(HashMap<CertificateFingerprint, Caller>);

impl Authenticator for Users {
    async fn authenticate(
        &self,
        credentials: Credentials,
        _: &CredentialSource,
    ) -> Result<Caller, AuthError> {
        match credentials {
            Credentials::Certificate(shown) => {
                self.0.get(&shown.fingerprint()).cloned().ok_or(AuthError::Invalid)
            }
            _ => Err(AuthError::Missing),
        }
    }

    // Without this it would be asked about bearer tokens alone.
    fn accepts(&self, kind: CredentialKind) -> bool {
        kind == CredentialKind::Certificate
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "wanted are the server's certificates, its key, the authorities of clients, and then a \
                 USER=FINGERPRINT for each user";
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or(usage);
    let (certificates, key, authorities) = (next()?, next()?, next()?);
    let mut users = HashMap::new();
    for argument in arguments {
        let (user, fingerprint) = argument.split_once('=').ok_or(usage)?;
        users.insert(fingerprint.parse()?, Caller::new(user)?.with(Scope::Execute));
    }

    let key = Secret::new(std::fs::read_to_string(key)?);
    // Who has no certificate of these authorities gets no further than the handshake.
    let tls = Tls::new(&std::fs::read(certificates)?, &key)?
        .client_ca(&std::fs::read(authorities)?, ClientCertificates::Required)?;
    let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    let server = AvroServer::builder(engine.clone())
        .authenticate(Users(users))
        .bind("127.0.0.1:0")
        .await?
        .serve_tls(tls)
        .plain_text(false);

    let mut interrupt = signal(SignalKind::interrupt())?;
    writeln!(std::io::stdout(), "{}", server.local_addr())?;
    let signal = async {
        interrupt.recv().await;
    };
    Servers::new().add(server).run_until(signal, &engine, Duration::from_secs(30)).await;
    Ok(())
}
