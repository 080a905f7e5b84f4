//! The WebSocket server, over TCP.

mod bodies;
mod floods;
mod guessing;
mod logins;
mod nested;
mod places;
mod plain;
mod protocol;
mod server;
mod shares;
#[path = "../../../splengine-core/tests/it/sharing.rs"]
mod sharing;
mod support;
mod v1;
