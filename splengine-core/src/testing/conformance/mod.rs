//! Checks of executors, of stores and of servers for what an engine, and its clients, rely on.
//!
//! A [`Suite`] is told some commands that an executor knows, by what they do, and runs them. A [`StoreSuite`] opens
//! and uses a store. A
//! [`ServerSuite`] opens a server and uses it by a [`ServerClient`], which the server's author implements
//! in the server's protocol; each of its checks has a [name](ServerCheck).

mod case;
mod rules;
mod running;
#[cfg(feature = "local")]
mod server;
mod store;
mod suite;

pub use case::Violation;
#[cfg(feature = "local")]
pub use server::{
    ClientError, Outcome, ServerCheck, ServerClient, ServerReport, ServerSetup, ServerSuite,
    ServerViolation, TestUser, TestUsers, command_line,
};
pub use store::{StoreSuite, StoreViolation};
pub use suite::Suite;
