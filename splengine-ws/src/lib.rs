//! The WebSocket server of splengine: terminals for small clients and for browsers, and a web
//! console.
//!
//! ```no_run
//! use splengine_core::{Caller, Engine, LocalExecutor};
//! use splengine_core::auth::{Secret, StaticTokens};
//! use splengine_ws::WsServer;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder(LocalExecutor::new("/srv/work")?).build()?;
//! let alice = Caller::new("alice")?.with_all_scopes();
//! let mut tokens = StaticTokens::new();
//! tokens.insert(&Secret::new(std::env::var("ALICE_TOKEN")?), alice)?;
//! let server = WsServer::builder(engine)
//!     .authenticate(tokens)
//!     .bind("127.0.0.1:0")
//!     .await?;
//! println!("the console is on http://{}/", server.local_addr());
//! server.await;
//! # Ok(())
//! # }
//! ```
//!
//! # Two protocols
//!
//! `/terminal` speaks plain JSON frames for the simplest possible client, and, to a client that offers it as
//! subprotocol, `spl.term.v1`, with binary frames, resumption and acknowledgements. Both are described
//! [below](#protocols-of-terminal). A connection attaches to the session that its query names, or to a new one.
//! `/` is the console.
//!
//! # How it fits in
//!
//! The sessions are the engine's: a browser shows the same session as `ssh`, and it runs on when its
//! clients are gone. The server also answers the routes of
//! [`HttpService`](splengine_http::HttpService), which the console uses; [`WsServerBuilder::api`]
//! sets another service. [`WsService`] is the server as a `tower::Service`, to be nested at any path in another
//! server that serves upgrades: a request that carries a [`Caller`](splengine_core::Caller) among
//! its extensions was authenticated by that server, and a
//! [`ClientCertificate`](splengine_core::auth::ClientCertificate) among them was verified by it. Other requests
//! carry a bearer token or the cookie of a login. A WebSocket of a browser can't send a header: its page shows a ticket that works once.
//!
//! # Features
//!
//! No optional features. The build script embeds xterm.js from npm, by a lock file and hashes. In the published
//! crate it runs npm only if `SPLENGINE_WS_NPM=1` is set while it is built, in the repository unless
//! `SPLENGINE_WS_NO_NPM=1` is set. Without npm the console loads the same files from a CDN, by their integrity
//! hashes.
//!
//! # Limits
//!
//! HTTP/1.1 upgrades; WebSockets over HTTP/2 (RFC 8441) and the extension `permessage-deflate` are
//! not served. TLS is the task of a proxy or of the server around this one. A client that is too slow
//! gets the screen in place of what it missed. Bounds on messages and memory are settings of [`WsServerBuilder`], those
//! on connections of [`WsServer`].
//!
//! # Why tokio-tungstenite
//!
//! It takes any stream of bytes, and gives access to single frames. Both are needed here: between the
//! connection and tungstenite is a layer that reserves memory for a message before its payload is
//! read, and large screens are sent as fragments. The WebSocket of axum, which is built on the same
//! crate, offers neither.
#![doc = concat!("\n", include_str!("../PROTOCOL.md"))]
#![forbid(unsafe_code)]

mod auth;
mod builder;
mod connection;
mod console;
mod context;
mod cookie;
mod encode;
mod frame;
mod frame_memory;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod login;
mod login_file;
mod login_id;
mod logins;
mod router;
mod server;
mod upgrade;

pub use builder::WsServerBuilder;
pub use server::{WsServer, WsService};
pub use splengine_core::net::OriginError;
pub use splengine_http::{ResponseBody, ResponseFuture};
