//! The state that all connections share, and that of what runs on a channel.

use std::sync::Arc;
use std::time::Duration;

use splengine_core::execute::Signal;
use splengine_core::net::LogBudget;
use splengine_core::quota::{CallerBudgets, CallerPlaces};
use splengine_core::terminal::Size;
use splengine_core::{Caller, Engine, UserName};
use tokio::sync::{mpsc, watch};

use crate::Users;
use crate::spill_buffer::Disk;
use crate::targets::Targets;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) engine: Engine,
    pub(crate) users: Users,
    pub(crate) options: Options,
    pub(crate) disk: Arc<Disk>,
    /// That callers may have open on all their connections.
    pub(crate) channels: CallerPlaces,
    /// Channels of SFTP with as many requests at once as there may be.
    pub(crate) wide_sftp: CallerPlaces,
    /// Memory of data that clients of SFTP have not taken yet, and of names that wait to be copied.
    pub(crate) sftp_memory: CallerBudgets,
    pub(crate) lines: LogLines,
}

/// The bounds on lines of the log that clients cause.
#[derive(Debug)]
pub(crate) struct LogLines {
    /// Of clients that have no algorithm in common with the server.
    pub(crate) failed_negotiations: LogBudget,
    /// What is refused to users who are logged in.
    pub(crate) refusals: LogBudget<UserName>,
    /// Of users who log in.
    pub(crate) logins: LogBudget<UserName>,
    /// What users begin.
    pub(crate) beginnings: LogBudget<UserName>,
}

impl Default for LogLines {
    fn default() -> Self {
        Self {
            failed_negotiations: LogBudget::default(),
            refusals: LogBudget::default(),
            logins: LogBudget::new(MAX_BEGINNINGS),
            beginnings: LogBudget::new(MAX_BEGINNINGS),
        }
    }
}

/// What is set up once for all connections.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) accept_env: Vec<String>,
    pub(crate) max_channels: usize,
    pub(crate) max_linger: Duration,
    pub(crate) signals_as_status: bool,
    pub(crate) serves_scp: bool,
    pub(crate) permit_open: Targets,
}

/// What a running channel is told.
#[derive(Debug)]
pub(crate) struct Controls {
    pub(crate) signals: mpsc::Receiver<Signal>,
    /// Of the client's window: only the last one counts.
    pub(crate) size: watch::Receiver<Size>,
}

/// Who runs something, and where.
#[derive(Debug, Clone)]
pub(crate) struct ExecContext {
    pub(crate) caller: Caller,
    /// By its id.
    pub(crate) session: Option<String>,
    /// Variables that the client has set, and its key.
    pub(crate) env: Vec<(String, String)>,
    /// Variables that this server sets.
    pub(crate) server_env: Vec<(String, String)>,
    pub(crate) links_first: bool,
    /// Whether a shell runs the command line.
    pub(crate) use_shell: bool,
    /// Whether what a command leaves in the background runs on, and a command in a terminal when its
    /// client has hung up.
    pub(crate) keeps_background: bool,
    /// Whether the log tells of it.
    pub(crate) is_logged: bool,
}

/// Lines on what one user begins, in ten seconds.
const MAX_BEGINNINGS: u32 = 200;
