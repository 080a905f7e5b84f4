//! Checks of an executor for what the engine relies on.
//!
//! A [`Suite`] is told some commands that the executor knows, by what they do, and runs them.

mod case;
mod rules;
mod running;
mod suite;

pub use case::Violation;
pub use suite::Suite;
