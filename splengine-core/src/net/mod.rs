//! Connections of servers, whatever their protocol: accepted, bounded and ended.
//!
//! [`serve_connections`] is the accept loop of all servers. It accepts from a [`Listener`], of TCP or of
//! a UNIX socket. [`ConnectionLimits`] bounds how many connections there are and how long each may show
//! nothing, and by a [`ConnectionHandle`] a server reports what it knows of a client. Servers of HTTP
//! ask an [`OriginPolicy`] about pages of browsers, and set the [`HttpBounds`] and read an [`HttpStream`]. A [`LogBudget`] bounds
//! what unauthenticated clients can write into the log. Types that implement [`Server`] can be run
//! together by [`Servers`](crate::engine::Servers). Servers need this module, and programs that
//! nest a service of ours ([`PeerAddress`]).

mod accept;
mod activity;
mod answers;
mod bind;
mod connection;
mod host_name;
mod hpack;
mod http2_frames;
mod http2_memory;
mod http_bounds;
mod http_stream;
mod limits;
mod listen_addr;
mod listener;
mod log_budget;
mod origin;
mod pacer;
mod peer;
mod server;
mod socket_file;
mod state;
mod stats;
mod stream;
mod table;
mod unread;
mod unread_body;

pub use accept::{Closing, serve_connections};
pub use activity::Activity;
pub use bind::{BindError, bind};
pub use connection::{Announced, Connection, ConnectionHandle};
pub use host_name::is_rebindable_host;
pub use http_bounds::HttpBounds;
pub use http_stream::HttpStream;
pub use limits::ConnectionLimits;
pub use listen_addr::ListenAddr;
pub use listener::Listener;
pub use log_budget::LogBudget;
pub use origin::{OriginError, OriginPolicy};
pub use peer::{Peer, PeerAddress};
pub use server::Server;
pub use stats::ConnectionStats;
pub(crate) use stats::Counters;
pub use unread_body::UnreadBody;
