//! Terminal sessions: programs in terminals that outlive their clients.
//!
//! [`Sessions`] makes them from a [`SessionRequest`], lists them, and attaches clients by
//! [`Attach`]. An [`Attachment`] gives one client its [`Update`]s; its [`ClientInput`] types,
//! resizes and takes control. For callers that are not attached there are [`Sessions::read`] and
//! [`Sessions::screen`]. [`SessionPolicy`] has the bounds, and the directory in which sessions are
//! saved and recorded.
//!
//! The terminal itself is of the module [`terminal`](crate::terminal).

mod adopt;
mod attach;
mod attachment;
mod bounds;
mod capture;
mod colors;
mod create;
mod drain;
mod error;
mod expiry;
mod info;
mod input_handle;
mod input_queue;
mod keyframes;
mod live_record;
mod live_session;
mod live_state;
mod log;
mod lost;
mod os_strings;
mod output;
mod policy;
mod poll;
mod record;
mod recording;
mod recording_writer;
pub(crate) mod registry;
mod render;
mod render_pool;
mod replay;
mod resize_policy;
mod saved;
mod saved_index;
mod screen_memory;
mod sessions;
mod share;
mod sharing;
mod snapshot_memory;
mod snapshots;
mod store;
mod stored;
mod tasks;
mod update;
mod validate;

pub(crate) use adopt::adopt_all;
pub use attach::Attach;
pub use attachment::Attachment;
pub use capture::{RecordingFile, ScreenShot};
pub use colors::TerminalColors;
pub use error::{ClientsOf, SessionError};
pub use info::{SavedInfo, SessionInfo, SessionRequest, SessionState, ShareInfo};
pub use input_handle::ClientInput;
pub use policy::{Recording, SessionPolicy, SizePolicy};
pub use poll::Printed;
pub use sessions::Sessions;
pub(crate) use store::Store;
pub use update::{ClientInfo, Closed, Notice, Update};
