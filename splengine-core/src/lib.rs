//! An execution engine to embed: commands, durable batches, shared terminal sessions and files, for
//! callers with rights.
//!
//! An [`Engine`] checks a [`Caller`]'s rights, queues a [`Request`], runs it with an [`Execute`] such as
//! [`LocalExecutor`], and returns a [`Run`] with its [`Event`]s and its [`End`]. It knows no network
//! protocol: the crates `splengine-http`, `splengine-ws`, `splengine-ssh` and `splengine-avro` turn an
//! engine into servers.
//!
//! # Commands
//!
//! A request becomes an argument list, by the rules of a POSIX shell's quoting and without a shell. The
//! program gets an allow-listed environment, and ends with its whole process tree.
//!
//! ```
//! use std::time::Duration;
//!
//! use splengine_core::{Caller, Engine, LocalExecutor, Reason, Request};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
//! let alice = Caller::new("alice")?.with_all_scopes();
//!
//! let run = engine.execute(&alice, Request::new("echo 'hello world'")).await?;
//! let captured = run.capture().await;
//! assert_eq!(&captured.stdout[..], b"hello world\n");
//! assert!(captured.end.success());
//!
//! let request = Request::new("sleep 600").timeout(Duration::from_millis(50));
//! let captured = engine.execute(&alice, request).await?.capture().await;
//! assert_eq!(captured.end.reason, Reason::TimedOut);
//! # Ok(())
//! # }
//! ```
//!
//! # Sessions
//!
//! A session is a program in a terminal that outlives its clients: [`Sessions`] creates it, any number of
//! clients attach to it, and its screen can be read with no client attached.
//!
//! ```
//! use splengine_core::auth::Access;
//! use splengine_core::session::{Attach, Update};
//! use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
//! let alice = Caller::new("alice")?.with_all_scopes();
//! let sessions = engine.sessions();
//! let session = sessions.create(&alice, SessionRequest::new().command("echo hello")).await?;
//! let mut client = sessions.attach(&alice, &session.id, Attach::new(Access::View))?;
//! while let Some(update) = client.next().await {
//!     if let Update::Exit(status) = update {
//!         assert_eq!(status.exit_code(), 0);
//!     }
//! }
//! assert_eq!(sessions.screen(&alice, &session.id).await?.text(), "hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Batches
//!
//! A batch is a list of steps with dependencies, retries and handlers. [`Batches`] stores each event before
//! anybody can see it; after a restart [`Engine::resume`] continues unfinished batches.
//!
//! ```
//! use splengine_core::batch::{BatchPolicy, BatchState};
//! use splengine_core::store::MemoryStore;
//! use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let outputs = tempfile::tempdir()?;
//! let engine = Engine::builder(LocalExecutor::new(".")?)
//!     .batches(BatchPolicy::new(MemoryStore::new(), outputs.path()))
//!     .build()?;
//! let alice = Caller::new("alice")?.with_all_scopes();
//! let request = BatchRequest::new().step(Step::new("true")).step(Step::new("echo done"));
//! let id = engine.batches().submit(&alice, request, None).await?.record.info.id;
//! let record = engine.batches().wait(&alice, &id).await?;
//! assert_eq!(record.info.state, BatchState::Succeeded);
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! The root of the crate has the names that most programs use; the modules have all others.
//!
//! | module | contents |
//! |---|---|
//! | [`engine`] | the facade, its builder, statistics, readiness |
//! | [`execute`] | requests, runs and their ends; the trait [`Execute`] and what it is given |
//! | [`local`] | the executor of this host, and the PTY host |
//! | [`session`], [`terminal`], [`screen`] | sessions; the trait [`Session`]; the screen of a terminal |
//! | [`batch`], [`store`] | batches; where they are stored |
//! | [`files`] | files below one root directory |
//! | [`auth`] | callers, scopes, credentials |
//! | [`net`], [`quota`] | what servers share: connections and their bounds, memory and places of callers |
//! | [`ids`], [`text`] | identifiers; UTF-8 in pieces |
//!
//! # Traits to implement
//!
//! - [`Execute`] runs commands, on this host or elsewhere. [`Session`] is a terminal that it opens.
//! - [`Recover`](execute::Recover) finds an executor's runs again after a crash.
//! - [`BatchJob`] decides what a batch does next; it does no I/O and reads no clock.
//! - [`Authenticator`](auth::Authenticator) finds the caller behind a client's credentials.
//! - [`Store`](store::Store) keeps keys and values that survive a crash.
//! - [`Server`](net::Server) is a server that [`Servers`](engine::Servers) runs together with others.
//!
//! # Features
//!
//! - `local` (default): the module [`local`] with [`LocalExecutor`], which runs processes of this host, and in `testing`
//!   the `ServerSuite`, which runs them by it. Linux only. Without it, an executor of your own ([`Execute`]) runs
//!   commands elsewhere, such as in containers or on other hosts.
//! - `redb` (default): [`RedbStore`](store::RedbStore), which keeps batches in one file.
//! - `testing`: the module `testing`, with what unit tests of executors and adapters need, and
//!   conformance suites for executors, stores and servers. For `[dev-dependencies]`.
//!
//! # Limits
//!
//! A tokio runtime with I/O and time enabled is needed. All commands of [`LocalExecutor`] run as one user of the host,
//! that of this process: rights are checked by the engine, not by the kernel.
//!
//! Tested on Linux only. Without the feature `local` it also compiles for other UNIX systems, where:
//!
//! - [`Files::watch`] is refused, since it takes inotify(7) of Linux.
//! - An engine whose [`FilePolicy`](files::FilePolicy::max_caller_bytes) bounds the bytes of callers is not built.
//! - A file that is replaced has a temporary name first, which a crash of this process leaves.
//! - Memory that the engine frees is given back to the system as the allocator decides.
//!
//! # Why these crates
//!
//! `rustix` and `libc` for system calls, since no crate above them knows pidfds, subreapers and
//! pseudoterminals at once; `cap-std` for files, since it resolves paths below a directory without races;
//! `redb` for batches, since it is pure Rust, has one file, and survives `kill -9` in our tests.

#[cfg(all(feature = "local", not(target_os = "linux")))]
compile_error!(
    "the feature `local` of splengine-core needs Linux: build it with `default-features = false`"
);

pub mod auth;
pub mod batch;
mod blocking;
pub mod engine;
mod error;
pub mod execute;
pub mod files;
mod flat_dir;
mod fresh;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod ids;
#[cfg(feature = "local")]
pub mod local;
mod lock;
mod names;
pub mod net;
mod os;
mod part_state;
mod process;
mod protected;
pub mod quota;
mod root;
mod run;
pub mod screen;
pub mod session;
mod spare_thread;
pub mod store;
pub mod terminal;
#[cfg(feature = "testing")]
pub mod testing;
pub mod text;
mod time;
mod user_name;

/// Bytes in shared memory, of the crate [`bytes`](https://docs.rs/bytes): those of output, files and input here.
#[doc(no_inline)]
pub use bytes::Bytes;

#[doc(inline)]
pub use auth::{Caller, Scope, UserName};
#[doc(inline)]
pub use batch::{BatchError, BatchJob, BatchRequest, Batches, Step};
#[doc(inline)]
pub use engine::Engine;
#[doc(inline)]
pub use error::{ErrorKind, Field};
#[doc(inline)]
pub use execute::{
    Captured, CommandSpec, End, Event, Execute, ExecuteError, Limits, Reason, Request, Run,
};
#[doc(inline)]
pub use files::{FileError, Files};
#[cfg(feature = "local")]
#[doc(inline)]
pub use local::LocalExecutor;
#[doc(inline)]
pub use session::{SessionError, SessionRequest, Sessions};
#[doc(inline)]
pub use terminal::Session;
