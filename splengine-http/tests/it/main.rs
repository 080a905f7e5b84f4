//! The HTTP server, over TCP.

mod batches;
mod bodies;
mod captured;
mod client;
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
mod unread;
