mod check;
mod client;
mod ends;
mod opened;
mod refusals;
mod rules;
mod setup;
mod suite;
mod users;

pub use check::{ServerCheck, ServerReport, ServerViolation};
pub use client::{ClientError, Outcome, ServerClient, command_line};
pub use setup::ServerSetup;
pub use suite::ServerSuite;
pub use users::{TestUser, TestUsers};
