//! The SSH server, over its sockets.

mod algorithms;
mod commands;
mod ends;
mod files;
mod forwarding;
mod guessing;
mod input;
mod limits;
mod log_lines;
mod revoked;
mod support;
mod terminals;
mod unix_sockets;
mod users;
