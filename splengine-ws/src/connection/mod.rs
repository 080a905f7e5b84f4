//! One WebSocket: three hands that work at the same time. One reads frames, one tells updates, one
//! types, so that a program that does not read holds up no acknowledgement, and a client that does
//! not read holds up no input.

mod listen;
mod serve;
mod tell;
mod typing;

pub(crate) use listen::{AttachQuery, size};
pub(crate) use serve::{Client, serve};
