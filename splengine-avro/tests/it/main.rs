//! The Avro RPC door, by its sockets.

mod client;
mod connections;
mod container;
mod ends;
mod files;
#[cfg(feature = "tls")]
mod tls;
