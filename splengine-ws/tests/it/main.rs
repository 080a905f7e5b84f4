//! The WebSocket door, over TCP.

mod bodies;
mod door;
mod plain;
mod support;
mod v1;
