//! Terminal sessions: a program in a terminal, which outlives its clients.

mod attach;
mod cull;
mod error;
mod handle;
mod info;
mod input;
mod live;
mod log;
mod policy;
mod recording;
pub(crate) mod registry;
mod serve;
mod share;
mod size;
mod sizing;
mod store;
mod traits;

pub use attach::{Attach, Attachment, ClientInfo, Closed, Notice, Typist, Update};
pub use error::SessionError;
pub use handle::{RecordingFile, ScreenShot, Sessions};
pub use info::{Access, SavedInfo, SessionInfo, SessionRequest, SessionState, ShareInfo};
pub use policy::{Recording, SessionPolicy, SizePolicy};
pub use size::Size;
pub use store::StoreError;
pub use traits::{Session, SessionStatus, Terminal};
