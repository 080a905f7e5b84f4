//! Connections of servers, whatever their protocol: accepted, bounded and ended.
//!
//! [`serve_connections`] is the accept loop of all servers, [`ConnectionLimits`] bounds how many
//! connections there are and how long each may show nothing, and a [`ConnectionHandle`] is how a
//! server tells what it knows of a client. Only servers need this module.

mod accept;
mod activity;
mod answers;
mod bind;
mod connection;
mod host_name;
mod limits;
mod peer;
mod state;
mod stats;
mod table;

pub use accept::{Closing, serve_connections};
pub use activity::Activity;
pub use bind::BindError;
pub use connection::{Announced, Connection, ConnectionHandle};
pub use host_name::is_rebindable_host;
pub use limits::ConnectionLimits;
pub use peer::PeerAddress;
pub use stats::ConnectionStats;
pub(crate) use stats::Counters;
