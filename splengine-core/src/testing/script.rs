use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::execute::cancel::CancelSource;
use crate::execute::output::Queue;
use crate::execute::{
    Cancel, End, ExecuteError, Exit, Output, Reading, Reason, Run, SlowReader, Stream,
};
use crate::ids::{ExecutionId, SessionId};
use crate::run::verdict;
use crate::user_name::UserName;

/// Makes a run for a test of what reads it, such as an adapter, and the script by which the test says what
/// happens in it.
///
/// The run has begun, is of the user `tester`, has no output limit, and is in no engine's list. As that of
/// an engine it is bounded by 256 KiB and one write that were not read; [`capture`](Run::capture) keeps
/// 16 MiB of each stream.
///
/// ```
/// use splengine_core::execute::{Exit, ExitStatus, Stream};
/// use splengine_core::testing::run_pair;
/// use splengine_core::{Event, Run};
///
/// /// An adapter: a line for each event.
/// async fn lines(mut run: Run) -> Vec<String> {
///     let mut lines = Vec::new();
///     while let Some(event) = run.next().await {
///         lines.push(match event {
///             Event::Output { data, .. } => String::from_utf8_lossy(&data).into_owned(),
///             Event::Lost { bytes, .. } => format!("{bytes} bytes lost"),
///             Event::End(end) => format!("{} {}", end.reason.name(), end.exit_code),
///             _ => unreachable!(),
///         });
///     }
///     lines
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (run, script) = run_pair();
/// script.output().write(Stream::Stdout, "hello".into()).await?;
/// script.end(Exit::new(ExitStatus::Code(3)));
/// assert_eq!(lines(run).await, ["hello", "exited 3"]);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// When the operating system has no randomness to give, which Linux excludes after boot.
#[must_use]
pub fn run_pair() -> (Run, RunScript) {
    let user: UserName = "tester".parse().expect("a user name");
    let (output, queue) = Queue::new(SlowReader::Wait, None, None);
    let (source, cancel) = CancelSource::new();
    output.started();
    let run = Run(Box::new(Reading {
        execution_id: Some(ExecutionId::new()),
        ..Reading::new(Arc::clone(&queue), source.clone(), SessionId::new(&user), CAPTURE_LIMIT)
    }));
    (run, RunScript { output, cancel, queue, source, begun: Instant::now() })
}

/// The executor's end of a [run](run_pair).
///
/// A script that is dropped without [`end`](Self::end) ends its run as one whose executor failed:
/// [`Reason::Lost`].
///
/// ```
/// use splengine_core::execute::{Exit, ExitStatus};
/// use splengine_core::testing::run_pair;
/// use splengine_core::Reason;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // A client that goes away cancels the run.
/// let (run, script) = run_pair();
/// drop(run);
/// script.cancel().stop_requested().await;
///
/// // What stops a run is told of its end.
/// let (run, script) = run_pair();
/// run.stopper().time_out();
/// assert_eq!(script.stopped_for(), Some(Reason::TimedOut));
/// script.end(Exit::new(ExitStatus::Code(143)).stopped());
/// assert_eq!(run.capture().await.end.exit_code, 124);
/// # }
/// ```
pub struct RunScript {
    output: Output,
    cancel: Cancel,
    queue: Arc<Queue>,
    source: CancelSource,
    begun: Instant,
}

impl RunScript {
    /// Returns the output of the run. As that of an executor, it waits while the run is not read, and
    /// refuses writes when the run was dropped.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Returns the requests to stop that are made by the run's [`Stopper`](crate::execute::Stopper), and by
    /// dropping the run.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Returns the reason for which the run was told to stop, if it was.
    #[must_use]
    pub fn stopped_for(&self) -> Option<Reason> {
        self.source.reason()
    }

    /// Gives the run an [`Event::Lost`](crate::Event::Lost): the next event, before output that it did not
    /// read yet, since what a slow reader loses is the oldest.
    pub fn lose(&self, stream: Stream, bytes: u64) {
        self.queue.lose(stream, bytes);
    }

    /// Ends the run with the record that an engine makes of this report: why it ended is what it was
    /// [told to stop](Self::stopped_for) for, if the report says that it was stopped. What is written after
    /// is refused.
    pub fn end(self, exit: Exit) {
        let stopped_for = self.stopped_for().unwrap_or(Reason::Cancelled);
        let (reason, exit_code, signal) = verdict(exit, stopped_for, false);
        let ([stdout_bytes, stderr_bytes], _) = self.queue.totals();
        self.queue.finish(Ok(End {
            reason,
            exit_code,
            signal,
            duration: self.begun.elapsed(),
            stdout_bytes,
            stderr_bytes,
            usage: exit.used(),
            ..End::never_begun(reason)
        }));
    }
}

impl Drop for RunScript {
    fn drop(&mut self) {
        if !self.queue.is_finished() {
            self.queue.finish(Err(ExecuteError::internal("the script was dropped")));
        }
    }
}

impl fmt::Debug for RunScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunScript").finish_non_exhaustive()
    }
}

/// Maximum number of bytes of a stream that a capture keeps: an engine's default.
const CAPTURE_LIMIT: u64 = 16 << 20;
