//! The SSH server of splengine: commands, persistent terminals and files for every SSH client.
//!
//! `ssh alice@host wc -l a.csv` runs a command. `ssh alice@host` opens a terminal session that
//! outlives its clients, and that a browser can show too; `ssh alice+SESSION@host` attaches to
//! a running one, and `ssh alice+@host` lists them. `sftp`, `scp` and `rsync` reach the files below root
//! by the paths that commands see. Connections are forwarded to permitted targets only; all other
//! forwarding is refused. [`Users`] says who may log in.
//!
//! ```no_run
//! use splengine_core::{Engine, LocalExecutor};
//! use splengine_core::files::FilePolicy;
//! use splengine_ssh::{HostKeys, SshServer, Users};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder(LocalExecutor::new("/srv/work")?)
//!     .files(FilePolicy::new())
//!     .build()?;
//! let users = Users::new().authorized_keys("/etc/splengine/keys");
//! let keys = HostKeys::open_or_create("/var/lib/splengine/host_ed25519_key")?;
//! let server = SshServer::builder(engine).users(users).bind("127.0.0.1:2222", &keys).await?;
//! server.run_until(async { drop(tokio::signal::ctrl_c().await) }).await;
//! # Ok(())
//! # }
//! ```
//!
//! # How it fits in
//!
//! A command is an execution of the engine, a terminal is one of its sessions, and SFTP, scp and rsync use its files:
//! rights, queue and bounds are the same as on the other servers, and [`Users::accounts`] gives users the
//! rights that they have there. [`HostKeys`] are the keys by which clients recognise the server, [`Algorithms`]
//! the algorithms that they may choose from. SSH has its own encryption: the server needs no proxy.
//!
//! # Features
//!
//! No optional features.
//!
//! # Bounds that clients may meet
//!
//! If a client stops reading, its command waits. If it sends more than its command reads, the server slows it
//! down when it has only one channel, and closes the channel at
//! [`max_unread`](SshServerBuilder::max_unread). OpenSSH's client does not tell a server other than OpenSSH's that
//! nobody reads its output any more, so `ssh host yes | head` runs until the client is ended. paramiko's
//! `SSHClient` can try one key per connection; with several, it is disconnected after the first refused key.
//!
//! `ssh-copy-id` is refused with an explanation: keys that let a user in are in the operator's directory of
//! authorized keys, not in files below a home directory. `ssh-copy-id -s`, which uses SFTP, writes a file below root
//! that lets nobody in.
//!
//! # Why russh
//!
//! The server uses [russh](https://docs.rs/russh), pinned to one version. thrussh 0.49 was tried: it cuts output that
//! exceeds a channel's window, panics on Dropbear's client, and offers the MAC `none`; asyncssh's default
//! handshake fails with it, and forwarded channels are opened before the application is asked. OpenSSH's server and
//! russh passed the same tests.
//!
//! Three faults of russh 0.65.1 concern this server:
//!
//! - A handler that waits stops all channels of its connection. What a client sends is therefore taken at once, into
//!   memory and beyond that into an unnamed file.
//! - A client that asks for the authentication service again before its second attempt, as paramiko does, gets no
//!   answer. This server tells it so and disconnects it.
//! - A request to open a channel of an unknown type is answered twice, with `SSH_OPEN_UNKNOWN_CHANNEL_TYPE` and then
//!   with another refusal, without asking the server (`findings/russh-unknown-channel.sh` in the repository). This
//!   server can't prevent it. OpenSSH's client, paramiko and asyncssh continue all the same.

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
pub use builder::{NoUsers, OpenError, SshServerBuilder};
pub use host_key::{HostKeyError, HostKeys};
pub use server::SshServer;
pub use targets::TargetError;
pub use users::{Users, UsersError};
