//! The WebSocket server of splengine: terminals for small clients and for browsers, and a web
//! console.
//!
//! ```no_run
//! use splengine_core::{Caller, Engine, LocalExecutor};
//! use splengine_core::auth::StaticTokens;
//! use splengine_ws::WsServer;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder(LocalExecutor::new("/srv/work")?).build()?;
//! let everyone = Caller::with_all_scopes("guest".parse()?);
//! let server = WsServer::builder(engine)
//!     .authenticate(StaticTokens::new().allow_anonymous(everyone))
//!     .bind("127.0.0.1:0")
//!     .await?;
//! println!("the console is on http://{}/", server.local_addr());
//! server.await;
//! # Ok(())
//! # }
//! ```
//!
//! `/terminal` speaks two protocols: plain JSON frames for the simplest possible client, and, when
//! it is offered as subprotocol, `spl.term.v1`, with binary frames, resumption and acknowledgements.
//! `/` is the console, which also uses the routes of [`HttpService`](splengine_http::HttpService)
//! under the same address.

#![forbid(unsafe_code)]

mod app;
mod auth;
mod builder;
mod connection;
mod console;
mod encode;
mod frame;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod login;
mod login_file;
mod logins;
mod meter;
mod server;
mod upgrade;

pub use builder::WsServerBuilder;
pub use server::{WsServer, WsService};
pub use splengine_http::{OriginError, ResponseBody, ResponseFuture};
