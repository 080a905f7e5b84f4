//! Terminals that programs run in, and what an executor implements to have some.

mod modes;
mod orphan;
mod session;
mod size;

pub use modes::TerminalModes;
pub use orphan::{Orphan, Reattached};
pub(crate) use session::Gone;
pub use session::{Session, SessionStatus, Terminal};
pub use size::Size;
