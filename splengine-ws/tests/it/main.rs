//! The WebSocket door, over TCP.

mod bodies;
mod door;
mod guessing;
mod logins;
mod plain;
mod shares;
mod support;
mod v1;
