//! The HTTP server of splengine: an [`Engine`](splengine_core::Engine) as a server, or as a
//! `tower::Service` to nest in one's own.
//!
//! ```no_run
//! use splengine_core::{Caller, Engine, LocalExecutor};
//! use splengine_core::auth::StaticTokens;
//! use splengine_http::HttpServer;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder(LocalExecutor::new("/srv/work")?).build()?;
//! let everyone = Caller::with_all_scopes("guest".parse()?);
//! let server = HttpServer::builder(engine)
//!     .authenticate(StaticTokens::new().allow_anonymous(everyone))
//!     .bind("127.0.0.1:0")
//!     .await?;
//! println!("listening on {}", server.local_addr());
//! server.await;
//! # Ok(())
//! # }
//! ```
//!
//! Routes: `POST /execute` and everything under `/api/v1` take credentials; `/health`, `/ready`, `/metrics`,
//! `/openapi.json`, `/info` and `/api/v1/service` do not, and tell nothing of callers. A request
//! that carries a [`Caller`](splengine_core::Caller) among its extensions was authenticated by
//! whoever nests the service.

#![forbid(unsafe_code)]

mod answers;
mod app;
mod body;
#[doc(hidden)]
pub mod bounded;
mod builder;
mod conditions;
mod dto;
mod dto_batch_requests;
mod dto_batches;
mod dto_files;
mod dto_sessions;
mod encoded;
mod file_paths;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod host;
mod json;
mod large;
mod lingering_close;
mod negotiate;
mod openapi;
mod output_text;
mod problem;
mod ranges;
mod repeats;
mod result_formats;
mod result_stream;
mod revoked;
mod routes;
mod run_answer;
mod server;
mod service;
mod silence;
mod stdin;
mod stream;
mod tracked;

pub use body::{BodyError, read_body};
pub use builder::{HttpServerBuilder, OriginError, check_origin};
pub use host::{HostError, check_host};
pub use server::{HttpServer, RequestBody, serve};
pub use service::{HttpService, ResponseBody, ResponseFuture};
