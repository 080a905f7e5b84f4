//! The SSH server of splengine: commands, persistent terminals and files for every SSH client.
//!
//! `ssh alice@host data transform` runs a command, `ssh alice@host` opens a terminal session that
//! outlives its clients and is the same that a browser shows, `ssh alice+SESSION@host` attaches to
//! one that runs, `ssh alice+@host` lists them, and `sftp`, `scp` and `rsync` reach the files below root,
//! by the paths that commands see. Connections are forwarded to permitted targets only, all other
//! forwardings refused. Who may come in is said by [`Users`].
//!
//! ```no_run
//! use splengine_core::{Engine, LocalExecutor};
//! use splengine_core::files::FilePolicy;
//! use splengine_ssh::{HostKeys, SshServer, Users};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder(LocalExecutor::new("/srv/work")?)
//!     .files(FilePolicy::new("/srv/work")?)
//!     .build()?;
//! let users = Users::new().authorized_keys("/etc/splengine/keys")?;
//! let keys = HostKeys::open_or_create("/var/lib/splengine/host_ed25519_key")?;
//! let server = SshServer::builder(engine).users(users).bind("127.0.0.1:2222", &keys).await?;
//! server.run_until(async { drop(tokio::signal::ctrl_c().await) }).await;
//! # Ok(())
//! # }
//! ```
//!
//! # How it fits in
//!
//! A command is an execution of the engine, a terminal one of its sessions, SFTP, scp and rsync its files:
//! rights, queue and bounds are the same as on the other servers, and [`Users::accounts`] gives users the
//! rights that they have there. [`HostKeys`] are the keys by which clients know the server, [`Algorithms`]
//! what they may choose from. SSH brings its own encryption: the server needs no proxy.
//!
//! # Features
//!
//! There are none to choose.
//!
//! # Bounds that clients may meet
//!
//! A client that lets its command's output lie keeps what it has not read, and the command waits. One
//! that sends more than its command reads is slowed down where its connection has no other channel,
//! and at last refused ([`max_unread`](SshServerBuilder::max_unread)). OpenSSH's client does not tell
//! a server of another make that nobody reads its output any more, so `ssh host yes | head` runs on
//! until the client is ended. paramiko's `SSHClient` can try one key a
//! connection; with several, it is disconnected after the first that is refused.
//!
//! `ssh-copy-id` is refused in words: whose keys let them in is said by the operator's directory of
//! authorized keys, not by files below a home directory. With `-s`, by SFTP, it writes a file below root that
//! lets nobody in.
//!
//! # Why russh
//!
//! The server is made of [russh](https://docs.rs/russh), pinned exactly. The design had named
//! thrussh, from which russh once came. thrussh 0.49 is maintained and implements strict key
//! exchange and ML-KEM; but of commands with more output than a channel's window holds 12 in 12
//! arrived cut short, 11 of them with exit code 0, since the end of a channel overtakes what is
//! queued for it; Dropbear's client makes it panic before it has authenticated, asyncssh's default
//! handshake fails, forwarded channels are opened before the application is asked, and the MAC
//! `none` is offered. OpenSSH and russh passed the same tests.
//!
//! Two faults of russh are designed around: whatever a client sends is taken at once, into memory
//! and beyond that into a file without a name, since a reader that waits would stop all channels of
//! its connection; and a client that asks for the authentication service again before its second
//! try (paramiko does), which russh leaves unanswered, is told so and disconnected, instead of being
//! left to wait.
//!
//! A third is not: russh 0.65.1 answers a request to open a channel of a type that it does not know twice,
//! with `SSH_OPEN_UNKNOWN_CHANNEL_TYPE` and then with another refusal, without asking a server (see
//! `findings/russh-unknown-channel.sh` in the repository). The clients that were tried, OpenSSH's, paramiko
//! and asyncssh among them, go on.

#![forbid(unsafe_code)]

mod algorithms;
mod builder;
mod channel;
mod channel_writer;
mod command_line;
mod context;
mod exec;
mod forward;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod glob;
mod guarded_io;
mod handler;
mod host_key;
mod login;
mod path_memory;
mod rsync;
mod scp;
mod server;
mod sessions;
mod sftp;
mod shell;
mod spill_buffer;
mod targets;
mod users;

pub use algorithms::{AlgorithmError, Algorithms};
pub use builder::{NoUsers, SshServerBuilder};
pub use host_key::{HostKeyError, HostKeys};
pub use server::SshServer;
pub use targets::TargetError;
pub use users::{Users, UsersError};
