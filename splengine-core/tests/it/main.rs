//! The engine through its public door, with real processes.

mod admission;
mod batch_bounds;
mod batch_ends;
mod batch_keys;
mod batch_streams;
mod batches;
mod connections;
mod ends;
mod escapes;
mod file_changes;
mod file_limits;
mod file_quota;
mod files;
mod guessing;
mod holder;
mod inherited;
mod limits;
mod protected;
mod requests;
mod session_store;
mod sessions;
mod streams;
mod support;
mod trees;
mod watch;
mod written;
