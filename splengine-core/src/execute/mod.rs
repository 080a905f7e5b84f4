//! Running one command to its end.

pub(crate) mod cancel;
mod command;
mod end;
mod error;
mod failure;
pub(crate) mod head_tail;
mod limits;
pub(crate) mod mask;
pub(crate) mod output;
mod program;
mod request;
mod run;
mod signal;
pub(crate) mod stdin;
mod traits;
mod words;

pub use cancel::Cancel;
pub use command::{Background, Command};
pub use end::{End, Exit, ExitStatus, Gap, Reason, Usage};
pub use error::ExecuteError;
pub(crate) use error::{NOT_A_PATH, OUTSIDE_ROOT};
pub(crate) use failure::FailureScan;
pub(crate) use head_tail::HeadTail;
pub use limits::{LimitKind, Limits};
pub use output::{Output, OutputClosed, Stream};
pub(crate) use program::check_words;
pub use program::{Program, ProgramError};
pub use request::{Request, SlowReader};
pub(crate) use run::Reading;
pub use run::{Captured, Event, Run, Stopper};
pub use signal::Signal;
pub use stdin::Stdin;
pub use traits::Execute;
pub(crate) use traits::{BoxFuture, DynExecute};
pub(crate) use words::drop_exec;
pub use words::{SplitError, split_words};
