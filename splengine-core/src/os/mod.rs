//! Limits, signals and ends of processes, and handles of files, as the operating system defines them.

mod exit;
#[cfg(target_os = "linux")]
mod handle;
mod limits;
#[cfg(any(not(target_os = "linux"), test))]
mod named_handle;
mod signal;
mod stat;
mod sync;

pub use exit::{ExitStatus, Usage};
#[cfg(target_os = "linux")]
pub(crate) use handle::{
    Handle, SEARCH, check_handles, give_name, nameless, path_of, without_writing,
};
pub use limits::{LimitKind, Limits};
#[cfg(not(target_os = "linux"))]
pub(crate) use named_handle::{
    Handle, SEARCH, check_handles, give_name, nameless, without_writing,
};
pub use signal::Signal;
pub(crate) use stat::{Identity, device, identity, mode_bits, modified, permissions, wide};
pub(crate) use sync::{sync, sync_data};
