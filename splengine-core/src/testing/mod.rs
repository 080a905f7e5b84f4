//! Unit tests of executors and adapters, without an engine. With the feature `testing` only.
//!
//! [`TestCommand`] makes what an [`Execute`](crate::Execute) gets, and an [`Observer`], which sees what it
//! writes and tells it to stop. [`run_pair`] makes a [`Run`](crate::Run) for an adapter and a [`RunScript`],
//! which says what happens in it. [`conformance`] checks an executor for what the engine relies on.

mod command;
pub mod conformance;
mod observer;
mod script;

pub use command::TestCommand;
pub use observer::{Observer, Ran};
pub use script::{RunScript, run_pair};
