//! The Avro RPC door, by its sockets.

mod client;
mod connections;
mod ends;
#[cfg(feature = "tls")]
mod tls;
