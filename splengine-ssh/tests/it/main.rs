//! The SSH door, by its sockets.

mod commands;
mod ends;
mod files;
mod guessing;
mod input;
mod limits;
mod revoked;
mod support;
mod terminals;
mod users;
