//! The HTTP server of splengine: an [`Engine`](splengine_core::Engine) as REST, streams, files and
//! metrics, on an address of its own or as a `tower::Service` to nest in another server.
//!
//! ```no_run
//! use splengine_core::{Caller, Engine, LocalExecutor};
//! use splengine_core::auth::{Secret, StaticTokens};
//! use splengine_http::HttpServer;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder(LocalExecutor::new("/srv/work")?).build()?;
//! let alice = Caller::new("alice")?.with_all_scopes();
//! let mut tokens = StaticTokens::new();
//! tokens.insert(&Secret::new(std::env::var("ALICE_TOKEN")?), alice)?;
//! let server = HttpServer::builder(engine)
//!     .authenticate(tokens)
//!     .bind("127.0.0.1:0")
//!     .await?;
//! println!("listening on {}", server.local_addr());
//! server.await;
//! # Ok(())
//! # }
//! ```
//!
//! # Routes
//!
//! | route | contents |
//! |---|---|
//! | `POST /execute`, `POST /api/v1/execute` | runs a command; the answer is one JSON object, or a stream of NDJSON or server-sent events |
//! | `/api/v1/executions` | commands that run or wait |
//! | `/api/v1/sessions`, `/api/v1/saved-sessions` | terminal sessions, their screens, input and recordings |
//! | `/api/v1/tickets` | a ticket by which a browser's WebSocket is let in, once |
//! | `/api/v1/batches` | batches, their events, output and results |
//! | `/api/v1/files` | files below root, with range and conditional requests, and changes as they happen |
//! | `/api/v1/whoami` | the caller and their scopes |
//! | `/api/v1/service`, `/info` | the server's version, capabilities and interfaces |
//! | `/health`, `/ready`, `/metrics`, `/openapi.json` | state of the server; its description |
//!
//! `/execute` and all routes under `/api/v1` except `/api/v1/service` need credentials (`Authorization:
//! Bearer`). The other routes need none, and reveal nothing about callers. `/openapi.json` describes the
//! routes. Errors are problem details (RFC 9457).
//!
//! # How it fits in
//!
//! [`HttpServer`] opens an address of its own, with bounds on connections and times. [`HttpService`]
//! is the same service without a listener and its bounds, to be nested in an axum router or any tower
//! stack, at any path. A request that carries a [`Caller`](splengine_core::Caller) among its extensions
//! was authenticated by the server around the service; where all are, give the builder a
//! [`HostAuthenticator`](splengine_core::auth::HostAuthenticator), which refuses all others. A
//! [`ClientCertificate`](splengine_core::auth::ClientCertificate) among them is one that the server around has
//! verified: the authenticator may know its client by it. `Location`
//! headers include the mount path, which is what axum's routers have removed from the path, or the
//! [base path](HttpServerBuilder::base_path).
//! `splengine-ws` serves these routes beside its terminals; the service of `splengine-avro` can be
//! [mounted](HttpServerBuilder::mount) here. Such servers share [`serve`], [`check_host`] and [`read_body`].
//!
//! # Features
//!
//! No optional features.
//!
//! # Limits
//!
//! HTTP/1.1, and HTTP/2 without TLS to clients that begin with it; TLS is the task of a proxy, or of
//! the server that the service is nested in. Bounds on bodies and their memory are settings of
//! [`HttpServerBuilder`], those on connections and times of [`HttpServer`]; their documentation says how a client is refused at each.
//!
//! # Why axum and hyper
//!
//! axum routes and extracts: it is a thin layer over `tower` and `http`, so that the routes are a
//! service that nests anywhere; no type of it is in a public signature. Connections are driven by
//! `hyper` and `hyper-util` over the accept loop of `splengine-core`, not by `axum::serve`: that has
//! no time limit for the head of a request and no bound on connections.

#![forbid(unsafe_code)]

mod answers;
mod auth;
mod base_path;
mod body;
#[doc(hidden)]
pub mod bounded;
mod builder;
mod conditions;
mod context;
mod dto;
mod dto_batch_requests;
mod dto_batches;
mod dto_files;
mod dto_sessions;
mod encoded;
mod file_paths;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod headers;
mod host;
mod idempotency;
mod json;
mod lingering_close;
mod metrics;
mod negotiate;
mod openapi;
mod output_text;
#[doc(hidden)]
pub mod problem;
mod query;
mod ranges;
mod result_formats;
mod result_stream;
mod revoked;
mod route_parameters;
mod router;
mod routes;
mod run_answer;
mod server;
mod service;
mod silence;
mod stdin;
mod stream;
mod tracked;

pub use base_path::BasePathError;
pub use body::{BodyError, read_body};
pub use builder::HttpServerBuilder;
pub use host::{HostError, check_host};
pub use server::{HttpServer, RequestBody, serve};
pub use service::{HttpService, ResponseBody, ResponseFuture};
pub use splengine_core::net::OriginError;
