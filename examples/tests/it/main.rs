//! The examples, run as a user runs them.

mod all_in_one;
mod configuration;
mod conformance;
mod crash;
mod others;
mod own_files;
mod server;
mod sessions;
mod stores;
