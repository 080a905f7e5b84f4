//! The Avro RPC server, over its sockets.

#[path = "../../../splengine-core/tests/it/by_certificate.rs"]
mod by_certificate;
#[path = "../../../splengine-http/tests/it/by_uid.rs"]
mod by_uid;
mod call_turns;
mod client;
mod client_certificates;
mod connections;
mod container;
mod ends;
mod files;
mod guessing;
mod http;
mod large_messages;
mod messages;
#[cfg(feature = "tls")]
mod mutual_tls;
mod nested;
mod protocols;
mod shares;
#[path = "../../../splengine-core/tests/it/sharing.rs"]
mod sharing;
#[cfg(feature = "tls")]
mod tls;
mod unix_sockets;
