//! The SSH door of splengine: commands, persistent terminals and files for every SSH client.

#[cfg(any(fuzzing, test))]
pub mod fuzzing;
#[cfg_attr(not(test), expect(dead_code, reason = "nothing is served by it yet"))]
mod host_key;
#[cfg_attr(not(test), expect(dead_code, reason = "nothing asks who may come in yet"))]
mod users;

pub use host_key::{HostKeyError, HostKeys};
pub use users::{Users, UsersError};
