//! The SSH door of splengine: commands, persistent terminals and files for every SSH client.
//!
//! `ssh alice@host data transform` runs a command, `ssh alice@host` opens a terminal session that
//! outlives its clients and is the same that a browser shows, `ssh alice+SESSION@host` attaches to
//! one that runs, and `sftp`, `scp` and `rsync` reach the files below root. Forwardings of any kind
//! are refused. Who may come in is said by [`Users`].
//!
//! # Why russh
//!
//! The door is made of [russh](https://docs.rs/russh), pinned exactly. The design had named
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

mod builder;
mod channel;
mod command_line;
mod execution;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod handler;
mod host_key;
mod input;
mod line;
mod reply;
mod server;
mod sftp;
mod startups;
mod terminal;
mod users;

pub use builder::{NoUsers, SshServerBuilder};
pub use host_key::{HostKeyError, HostKeys};
pub use server::SshServer;
pub use users::{Users, UsersError};
