//! The examples, run as a user runs them.

mod all_in_one;
mod authorization;
mod avro_over_http;
mod client_certificates;
mod configuration;
mod conformance;
mod connections;
mod crash;
mod executors;
mod full_disk;
mod kept_processes;
mod matrix;
mod mistakes;
mod open_files;
mod own_files;
mod process_limit;
mod quota;
mod reload;
mod server;
mod sessions;
mod settings_reference;
mod single_servers;
#[path = "../../../splengine-core/tests/it/skipped.rs"]
mod skipped;
mod small_examples;
mod stores;
mod suite;
mod tls;
mod unix_sockets;
