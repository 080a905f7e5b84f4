//! Requests, runs and their ends, and the trait `Execute` that runs commands.
//!
//! A [`Request`] says what to run; a [`CommandSpec`] says it for steps of batches and sessions, too. [`Engine::execute`](crate::Engine::execute) gives a [`Run`], of
//! which the output comes as [`Event`]s or [as a whole](Run::capture), and which always ends with an
//! [`End`].
//!
//! [`Execute`] is implemented by executors: one gets a checked [`Command`] with its [`Stdin`], writes
//! to an [`Output`], listens to a [`Cancel`], and reports an [`Exit`].
//! [`LocalExecutor`](crate::LocalExecutor) is the executor of this host; [`SharedExecutor`] holds any
//! executor that is chosen at run time, and [`Recover`] is the part of an executor that finds its runs
//! again after a crash.

pub(crate) mod cancel;
pub(crate) mod capture;
mod command;
mod command_spec;
mod end;
mod error;
mod failure_scan;
pub(crate) mod head_tail;
pub(crate) mod mask;
pub(crate) mod output;
mod program;
mod recover;
mod request;
mod run;
mod shared;
mod shell_words;
pub(crate) mod stdin;
mod stream;
mod traits;

pub use crate::os::{ExitStatus, LimitKind, Limits, Signal, Usage};
pub use cancel::Cancel;
pub use command::{Background, Command};
pub(crate) use command::{command_bytes, env_bytes};
pub use command_spec::CommandSpec;
pub(crate) use command_spec::{CommandParts, command_builders};
pub use end::{End, Exit, Gap, Reason};
pub use error::ExecuteError;
pub(crate) use error::{NOT_A_PATH, OUTSIDE_ROOT, PARENT_DIR};
pub(crate) use failure_scan::FailureScan;
pub(crate) use head_tail::HeadTail;
pub use output::{Output, OutputClosed};
pub(crate) use program::check_words;
pub use program::{Program, ProgramError};
pub use recover::Recover;
pub use request::{Request, SlowReader};
pub(crate) use run::Reading;
pub use run::{Captured, Event, Run, Stopper};
pub use shared::SharedExecutor;
pub(crate) use shell_words::drop_exec;
pub use shell_words::{SplitError, split_words};
pub use stdin::Stdin;
pub use stream::Stream;
pub use traits::Execute;
pub(crate) use traits::{BoxFuture, DynExecute};
