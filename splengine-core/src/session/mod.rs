//! Terminal sessions: a program in a terminal, which outlives its clients.

mod adopt;
mod attach;
mod checks;
mod create;
mod cull;
mod error;
mod handle;
mod info;
mod input;
mod live;
mod log;
mod policy;
mod record;
mod recording;
pub(crate) mod registry;
mod serve;
mod share;
mod shots;
mod size;
mod sizing;
mod store;
mod traits;
mod typist;

pub use adopt::{Adopted, Leftover};
pub use attach::{Attach, Attachment, ClientInfo, Closed, Notice, Update};
pub use error::SessionError;
pub use handle::Sessions;
pub use info::{Access, SavedInfo, SessionInfo, SessionRequest, SessionState, ShareInfo};
pub use policy::{Recording, SessionPolicy, SizePolicy};
pub use shots::{RecordingFile, ScreenShot};
pub use size::Size;
pub use store::StoreError;
pub use traits::{Session, SessionStatus, Terminal};
pub use typist::Typist;
