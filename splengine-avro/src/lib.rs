//! The Avro RPC server of splengine: an [`Engine`](splengine_core::Engine) for clients of Avro RPC, whatever
//! their framing, on one port.
//!
//! ```no_run
//! use splengine_avro::AvroServer;
//! use splengine_core::{Caller, Engine, LocalExecutor};
//! use splengine_core::auth::{Secret, StaticTokens};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder(LocalExecutor::new("/srv/work")?).build()?;
//! let alice = Caller::new("alice")?.with_all_scopes();
//! let mut tokens = StaticTokens::new();
//! tokens.insert(&Secret::new(std::env::var("ALICE_TOKEN")?), alice)?;
//! let server = AvroServer::builder(engine)
//!     .authenticate(tokens)
//!     .bind("127.0.0.1:0")
//!     .await?;
//! println!("listening on {}", server.local_addr());
//! server.await;
//! # Ok(())
//! # }
//! ```
//!
//! # Framings
//!
//! The server recognises the framing by the first 12 bytes of a connection: the Netty framing (answers are sent as
//! they are ready, each with the serial number of its call), the framing of Avro's specification (answers in order),
//! SASL `ANONYMOUS` before that, HTTP (`POST /` and `POST /avro`, `GET /avro/protocol`), and TLS with any of these within
//! it, if TLS is configured. The protocol is [`protocol()`]; older, newer or smaller versions of the protocol are resolved by
//! Avro's schema resolution.
//!
//! # How it fits in
//!
//! A call is one operation of the engine, on commands, batches, sessions or files. Credentials are in
//! the call's metadata (`spl-authorization`), over HTTP also in the header `Authorization`. Where a call shows
//! none, its client may be known by the connection: by the certificate that TLS has verified
//! (`Tls::client_ca`), or by the uid of a process behind a UNIX socket, if the
//! [authenticator](splengine_core::auth::Authenticator::accepts) accepts that.
//! [`AvroService`] is the server over HTTP alone, as a `tower::Service` to be nested in another
//! server.
//!
//! [`Command`] and [`ExecutionResult`] are the protocol's records for use outside of calls, such as
//! in Kafka. [`results_container`] makes a container file of a batch's results; the HTTP server offers it if it
//! is given to [`results_as`](https://docs.rs/splengine-http).
//!
//! # Features
//!
//! - `tls`: TLS on the same port, by `tokio-rustls`, with certificates of clients where these are asked for.
//!
//! # Limits
//!
//! Messages, and the memory of all of them, are bounded by settings of [`AvroServerBuilder`]. Answers
//! are written with the server's schema. A client's protocol may have 256 KiB of text, 1,000 types and messages, 64
//! aliases, 8,192 fields, references and symbols, and types nested 64 deep. It must arrive within
//! [`handshake_timeout`](AvroServerBuilder::handshake_timeout).
//!
//! # Why apache-avro
//!
//! It is the Avro project's own implementation for Rust, and parses, compares and resolves schemas,
//! and compresses container files. It has no RPC: framings, handshakes and calls are of this crate.
//! Data whose schema has the same form as ours is read by a decoder of this crate straight into
//! records; any other is validated within bounds first, since `apache-avro` recurses and copies
//! along the nesting of schemas.

#![forbid(unsafe_code)]

mod answer;
mod builder;
mod call_turns;
mod codec;
mod connection;
mod container;
mod context;
mod datum;
mod error;
mod framing;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod handshake;
mod limits;
mod messages;
mod metadata;
#[cfg(test)]
mod mutation_tests;
mod output;
mod parameters;
mod parse_queue;
mod peer_protocols;
mod prefixed_io;
mod protocol;
mod records;
mod responder;
mod server;
mod service;
#[cfg(feature = "tls")]
mod tls;
mod validate;

pub use builder::AvroServerBuilder;
pub use codec::CodecError;
pub use container::{ContainerError, results_container};
pub use datum::DatumError;
pub use records::{Command, ExecutionResult};
pub use server::AvroServer;
pub use service::{AvroService, ResponseBody, ResponseFuture};
#[cfg(feature = "tls")]
pub use tls::{ClientCertificates, Tls, TlsError};

/// Returns the text of the protocol that is served, whose MD5 clients are told: `SPlectrumEngine`.
///
/// ```
/// assert!(splengine_avro::protocol().contains("SPlectrumEngine"));
/// ```
#[must_use]
pub fn protocol() -> &'static str {
    protocol::text()
}
