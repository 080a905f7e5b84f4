use std::time::Duration;

use crate::execute::Program;
use crate::os::Limits;

/// What the engine grants to a request.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) program: Program,
    pub(crate) shell_commands: bool,
    /// The shell of sessions, as words.
    pub(crate) shell: Vec<String>,
    /// `None` allows any.
    pub(crate) request_env: Option<Vec<String>>,
    pub(crate) default_timeout: Option<Duration>,
    pub(crate) max_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) default_output_limit: u64,
    pub(crate) max_output_limit: u64,
    pub(crate) default_limits: Limits,
    pub(crate) max_limits: Limits,
}
