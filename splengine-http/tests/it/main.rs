//! The HTTP server, over its sockets.

mod batches;
mod bodies;
#[path = "../../../splengine-core/tests/it/by_certificate.rs"]
mod by_certificate;
mod by_uid;
mod captured;
mod client;
mod client_certificates;
mod connections;
mod encoded;
mod executions;
mod files;
mod gaps;
mod guessing;
mod idempotency;
mod large_bodies;
mod members;
mod nested;
mod requests;
mod revoked;
mod routes;
mod runs;
mod scripted;
mod service;
mod sessions;
#[path = "../../../splengine-core/tests/it/sharing.rs"]
mod sharing;
mod streams;
mod support;
mod unix_sockets;
mod unread;
