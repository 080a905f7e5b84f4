//! The engine through its public interface, with real processes.

mod admission;
mod batch_bounds;
mod batch_ends;
mod batch_keys;
mod batch_streams;
mod batches;
mod build;
mod by_certificate;
mod capture_bounds;
mod client_certificates;
mod command_specs;
#[cfg(feature = "testing")]
mod conformance;
mod connections;
mod ends;
mod engine_memory;
mod escapes;
mod file_changes;
mod file_limits;
mod file_quota;
mod files;
mod guessing;
mod inherited;
mod input_bounds;
mod large_requests;
mod limits;
mod new_programs;
mod protected;
mod pty_host;
mod recordings;
mod recovery;
mod requests;
#[cfg(feature = "testing")]
mod server_conformance;
mod servers;
mod session_clients;
mod session_floods;
mod session_memory;
mod session_reads;
mod session_store;
mod sessions;
mod sharing;
mod skipped;
mod store;
mod streams;
mod support;
#[cfg(feature = "testing")]
mod testing;
mod trees;
mod unix_sockets;
mod watch;
