//! The Avro RPC server, over its sockets.

mod call_turns;
mod client;
mod connections;
mod container;
mod ends;
mod files;
mod guessing;
mod http;
mod large_messages;
mod messages;
mod protocols;
mod shares;
#[path = "../../../splengine-core/tests/it/sharing.rs"]
mod sharing;
#[cfg(feature = "tls")]
mod tls;
