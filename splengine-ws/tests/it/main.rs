//! The WebSocket door, over TCP.

mod door;
mod plain;
mod support;
mod v1;
