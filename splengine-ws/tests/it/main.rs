//! The WebSocket server, over its sockets.

mod bodies;
#[path = "../../../splengine-core/tests/it/by_certificate.rs"]
mod by_certificate;
#[path = "../../../splengine-http/tests/it/by_uid.rs"]
mod by_uid;
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
mod unix_sockets;
mod v1;
