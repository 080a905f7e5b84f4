//! The Avro RPC door, by its sockets.

mod client;
mod connections;
mod container;
mod ends;
#[cfg(feature = "tls")]
mod tls;
