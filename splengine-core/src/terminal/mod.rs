//! Terminals that programs run in: the trait that an executor implements to have some, and their
//! types.
//!
//! [`Session`] is a program in a terminal, such as a pseudoterminal of this host or a console
//! elsewhere; [`Execute::open`](crate::Execute::open) gives one as a [`Terminal`]. Clients do not
//! meet it: they attach to the sessions of the module [`session`](crate::session), which the engine
//! makes of it.

mod modes;
mod orphan;
mod session;
mod size;

pub use modes::TerminalModes;
pub use orphan::{Orphan, Reattached};
pub(crate) use session::Gone;
pub use session::{Session, SessionStatus, Terminal};
pub use size::Size;
