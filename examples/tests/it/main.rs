//! The examples, run as a user runs them.

mod all_in_one;
mod configuration;
mod conformance;
mod crash;
mod others;
mod server;
mod sessions;
mod stores;
