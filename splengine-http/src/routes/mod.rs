//! The routes.

pub(crate) mod execute;
pub(crate) mod metrics;
mod parameters;
pub(crate) mod service;
pub(crate) mod sessions;
