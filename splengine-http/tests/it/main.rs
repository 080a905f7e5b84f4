//! The HTTP door, over TCP.

mod client;
mod connections;
mod requests;
mod runs;
mod service;
mod streams;
mod support;
