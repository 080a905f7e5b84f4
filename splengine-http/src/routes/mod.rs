//! The routes.

pub(crate) mod batches;
pub(crate) mod execute;
pub(crate) mod executions;
pub(crate) mod extract;
pub(crate) mod files;
pub(crate) mod metrics;
pub(crate) mod results;
pub(crate) mod service;
pub(crate) mod sessions;
pub(crate) mod step_log;
pub(crate) mod step_output;
pub(crate) mod step_stdin;
