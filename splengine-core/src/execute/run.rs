use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::execute::cancel::CancelSource;
use crate::execute::capture::{Capture, CaptureBudget, StreamMemory};
use crate::execute::head_tail::Rest;
use crate::execute::output::{Item, Queue};
use crate::execute::{End, Gap, HeadTail, Reason, Stream};
use crate::ids::{ExecutionId, SessionId};
use crate::os::Signal;
use crate::quota::MemoryError;

/// Event of a run.
///
/// ```
/// use splengine_core::execute::Stream;
/// use splengine_core::{Caller, Engine, Event, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let mut run = engine.execute(&alice, Request::new("echo hello")).await?;
/// let mut printed = Vec::new();
/// while let Some(event) = run.next().await {
///     match event {
///         Event::Output { stream: Stream::Stdout, data } => printed.extend_from_slice(&data),
///         Event::End(end) => assert!(end.success()),
///         _ => {}
///     }
/// }
/// assert_eq!(printed, b"hello\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The program has printed a piece of output.
    Output {
        /// Stream on which the bytes were printed.
        stream: Stream,
        /// Exact bytes, cut anywhere, never empty.
        data: Bytes,
    },
    /// A part of the output is missing here, a gap: it was over the output limit, or was dropped for a
    /// slow reader that asked for that ([`SlowReader::Lose`](crate::execute::SlowReader::Lose)). A run
    /// whose end is not known ends with [`Reason::Lost`] instead.
    Lost {
        /// Stream on which the bytes were printed.
        stream: Stream,
        /// Number of bytes that were lost.
        bytes: u64,
    },
    /// The run ended. Always the last event, always once.
    End(End),
}

/// A command that runs.
///
/// Its output comes as [events](Self::next), or [as a whole](Self::capture). Dropping the handle
/// before the end cancels the run. [`stopper`](Self::stopper) gives a handle by which another task of this
/// process stops it; by its [`execution_id`](Self::execution_id) those who hold neither
/// [cancel](crate::Engine::cancel_execution) it.
///
/// ```
/// use splengine_core::{Caller, Engine, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let run = engine.execute(&alice, Request::new("sh -c 'echo $SPL_SESSION_ID'")).await?;
/// let id = run.session_id().to_string();
/// let captured = run.capture().await;
/// assert_eq!(captured.stdout, format!("{id}\n"));
/// # Ok(())
/// # }
/// ```
pub struct Run(pub(crate) Box<Reading>);

/// Apart from its handle, which is moved about.
pub(crate) struct Reading {
    pub(crate) queue: Arc<Queue>,
    pub(crate) source: CancelSource,
    pub(crate) session_id: SessionId,
    /// None of a batch's step.
    pub(crate) execution_id: Option<ExecutionId>,
    pub(crate) was_begun: bool,
    /// What its request says.
    pub(crate) output_limit: Option<u64>,
    /// That of a capture whose request does not say.
    pub(crate) default_limit: u64,
    /// For what is kept of its output; none of a run that prints nothing.
    pub(crate) memory: Option<CaptureBudget>,
    pub(crate) kept: Option<[HeadTail; 2]>,
    /// How much of each stream was given to the reader.
    pub(crate) given: [u64; 2],
    /// Where in that a part is missing.
    pub(crate) gaps: [Option<Gap>; 2],
    /// What follows the last item of the queue and comes before the end: the rest of limited
    /// streams.
    pub(crate) closing: VecDeque<RunItem>,
    /// The memory of that.
    pub(crate) closed: Vec<StreamMemory>,
    /// Its end, once all output was read; and whether that was told.
    pub(crate) end: Option<End>,
    pub(crate) end_told: bool,
}

/// An event, but for the record of the end: it stays where it is until it is wanted, since being
/// handed on costs more than all else that a short run needs here.
pub(crate) enum RunItem {
    Output(Stream, Bytes),
    Lost(Stream, u64),
    End,
}

/// A whole run: its output, as far as the limit and the engine's memory let it be kept, and its end.
///
/// ```
/// use splengine_core::{Caller, Engine, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let request = Request::new("seq 1000").output_limit(100);
/// let captured = engine.execute(&alice, request).await?.capture().await;
/// let gap = captured.end.stdout_gap.expect("seq prints more than 100 bytes");
/// let (head, tail) = captured.stdout.split_at(gap.at as usize);
/// assert!(head.starts_with(b"1\n2\n") && tail.ends_with(b"1000\n"));
/// assert_eq!(captured.stdout.len() as u64 + gap.bytes, captured.end.stdout_bytes);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Captured {
    /// Captured standard output. It, and whatever shares its memory, counts as captured until it is
    /// dropped.
    pub stdout: Bytes,
    /// Captured standard error; as for [`stdout`](Self::stdout).
    pub stderr: Bytes,
    /// The end record. Its gaps tell where in `stdout` and `stderr` a part is missing.
    pub end: End,
}

/// Handle by which another task stops a run.
///
/// ```
/// use splengine_core::{Caller, Engine, LocalExecutor, Reason, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let run = engine.execute(&alice, Request::new("sleep 600")).await?;
/// let stopper = run.stopper();
/// tokio::spawn(async move { stopper.stop() });
/// assert_eq!(run.capture().await.end.reason, Reason::Cancelled);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Stopper(CancelSource);

impl Stopper {
    /// Ends the run as cancelled by its caller: asks it to end, and kills it after the grace. Does
    /// nothing to a run that has ended.
    pub fn stop(&self) {
        self.0.stop(Reason::Cancelled);
    }

    /// Ends the run like [`stop`](Self::stop), but as one whose time is up: for callers who set a
    /// deadline for an answer, waiting included.
    pub fn time_out(&self) {
        self.0.stop(Reason::TimedOut);
    }

    /// Kills the run at once.
    pub fn kill(&self) {
        self.0.kill(Reason::Cancelled);
    }

    /// Sends a signal to the program and its process group. At most 16 of them wait for a program that
    /// is being started; one more is dropped. It does not count as a request of the engine: a run that
    /// ends by it has ended as [`Reason::Signaled`], or by itself. Executors other than
    /// [`LocalExecutor`](crate::LocalExecutor) may ignore it.
    ///
    /// ```
    /// use splengine_core::execute::Signal;
    /// use splengine_core::{Caller, Engine, LocalExecutor, Reason, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let run = engine.execute(&alice, Request::new("sleep 600")).await?;
    /// run.stopper().signal(Signal::TERM);
    /// let end = run.capture().await.end;
    /// assert_eq!((end.reason, end.signal), (Reason::Signaled, Some(Signal::TERM)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }
}

impl Run {
    /// Returns the session that the command was told it belongs to.
    #[must_use]
    pub fn session_id(&self) -> &SessionId {
        &self.0.session_id
    }

    /// Returns its id in the [list](crate::Engine::executions) of executions.
    #[must_use]
    pub fn execution_id(&self) -> Option<&ExecutionId> {
        self.0.execution_id.as_ref()
    }

    /// Returns whether the program was begun: not where the run was cancelled while it waited in
    /// the queue.
    #[must_use]
    pub fn was_begun(&self) -> bool {
        self.0.was_begun
    }

    /// Returns a handle that stops the run.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.0.source.clone())
    }

    /// Waits for the next event; `None` after the end.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, Event, LocalExecutor, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let mut run = engine.execute(&alice, Request::new("echo hello")).await?;
    /// let first = run.next().await;
    /// assert!(matches!(first, Some(Event::Output { data, .. }) if data == "hello\n"));
    /// assert!(matches!(run.next().await, Some(Event::End(_))));
    /// assert_eq!(run.next().await, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        Some(match self.next_item().await? {
            RunItem::Output(stream, data) => Event::Output { stream, data },
            RunItem::Lost(stream, bytes) => Event::Lost { stream, bytes },
            RunItem::End => Event::End(self.end()),
        })
    }

    /// Waits for the end of the run, and returns it with its output. Of each stream no more than the
    /// request's output limit, or the engine's default, is kept: the first and the last half. It counts
    /// against the [memory](crate::engine::EngineBuilder::max_captured_bytes) that the engine has for
    /// that until the last of [`Captured::stdout`] and [`Captured::stderr`] is dropped; if there is
    /// none left, no more is kept, as if that were the output limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the run, which cancels it.
    pub async fn capture(mut self) -> Captured {
        let limit = self.0.output_limit.unwrap_or(self.0.default_limit);
        let kept = &self.0.kept;
        if kept.as_ref().is_none_or(|kept| kept.iter().all(|kept| kept.is_untouched(limit))) {
            // All of it is kept here.
            self.0.kept = None;
        }
        let memory =
            || self.0.memory.as_ref().map_or_else(StreamMemory::unlimited, CaptureBudget::stream);
        let mut captures = [memory(), memory()].map(|memory| Capture::new(limit, memory));
        let mut lost: [Option<Gap>; 2] = [None; 2];
        loop {
            match self.next_item().await {
                Some(RunItem::Output(stream, data)) => captures[stream as usize].push(&data),
                Some(RunItem::Lost(stream, bytes)) => {
                    let at = captures[stream as usize].received();
                    lost[stream as usize].get_or_insert(Gap { at, bytes: 0 }).bytes += bytes;
                }
                Some(RunItem::End) | None => break,
            }
            // Whoever prints without a pause must not keep others from the worker.
            tokio::task::consume_budget().await;
        }
        let mut end = self.end();
        let [stdout, stderr] = captures;
        let (stdout, stdout_gap) = stdout.finish().await;
        let (stderr, stderr_gap) = stderr.finish().await;
        let [lost_stdout, lost_stderr] = lost;
        end.stdout_gap = Gap::of_both(lost_stdout, stdout_gap);
        end.stderr_gap = Gap::of_both(lost_stderr, stderr_gap);
        end.stdout_truncated |= end.stdout_gap.is_some();
        end.stderr_truncated |= end.stderr_gap.is_some();
        Captured { stdout, stderr, end }
    }

    /// Why less of the end of the output was kept than the request's limit lets be kept.
    pub(crate) fn shortage(&self) -> Option<MemoryError> {
        let kept = self.0.kept.iter().flatten().find_map(HeadTail::shortage);
        kept.or_else(|| self.0.closed.iter().find_map(StreamMemory::shortage))
    }

    async fn next_item(&mut self) -> Option<RunItem> {
        while self.0.end.is_none() {
            match self.0.queue.next().await {
                Some(Item::Output(stream, data)) => {
                    let data = match &mut self.0.kept {
                        Some(kept) => kept[stream as usize].push(data),
                        None => Some(data),
                    };
                    if let Some(data) = data {
                        self.0.given[stream as usize] += data.len() as u64;
                        return Some(RunItem::Output(stream, data));
                    }
                }
                Some(Item::Lost(stream, bytes)) => {
                    self.0.note_gap(stream, bytes);
                    return Some(RunItem::Lost(stream, bytes));
                }
                Some(Item::Finished(Ok(end))) => self.close(end),
                Some(Item::Finished(Err(_))) | None => self.close(self.lost_end()),
            }
        }
        if let Some(step) = self.0.closing.pop_front() {
            return Some(step);
        }
        let was_told = std::mem::replace(&mut self.0.end_told, true);
        (!was_told).then_some(RunItem::End)
    }

    /// What follows the last output is to come.
    fn close(&mut self, mut end: End) {
        if let Some([stdout, stderr]) = self.0.kept.take() {
            for (stream, kept) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
                let Rest { head, lost, tail, memory } = kept.finish();
                self.0.closed.push(memory);
                if !head.is_empty() {
                    self.0.given[stream as usize] += head.len() as u64;
                    self.0.closing.push_back(RunItem::Output(stream, head));
                }
                if lost > 0 {
                    self.0.note_gap(stream, lost);
                    self.0.closing.push_back(RunItem::Lost(stream, lost));
                }
                self.0.closing.extend(tail.into_iter().map(|data| RunItem::Output(stream, data)));
            }
        }
        [end.stdout_gap, end.stderr_gap] = self.0.gaps;
        [end.stdout_truncated, end.stderr_truncated] = self.0.gaps.map(|gap| gap.is_some());
        self.0.end = Some(end);
    }

    fn end(&self) -> End {
        self.0.end.clone().unwrap_or_else(|| self.lost_end())
    }

    fn lost_end(&self) -> End {
        let ([stdout_bytes, stderr_bytes], _) = self.0.queue.totals();
        End {
            duration: self.0.queue.started_at().map(|start| start.elapsed()).unwrap_or_default(),
            stdout_bytes,
            stderr_bytes,
            ..End::never_begun(Reason::Lost)
        }
    }
}

impl Reading {
    /// Of a run that has begun and is in no list, of which no output was read yet and none is kept.
    pub(crate) fn new(
        queue: Arc<Queue>,
        source: CancelSource,
        session_id: SessionId,
        default_limit: u64,
    ) -> Self {
        Self {
            queue,
            source,
            session_id,
            execution_id: None,
            was_begun: true,
            output_limit: None,
            default_limit,
            memory: None,
            kept: None,
            given: [0; 2],
            gaps: [None; 2],
            closing: VecDeque::new(),
            closed: Vec::new(),
            end: None,
            end_told: false,
        }
    }

    /// Here a part of a stream is missing. One gap is told of: where the first is, and how much all
    /// of them leave out.
    fn note_gap(&mut self, stream: Stream, bytes: u64) {
        let at = self.given[stream as usize];
        self.gaps[stream as usize].get_or_insert(Gap { at, bytes: 0 }).bytes += bytes;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.0.end.is_none() {
            self.0.source.stop(Reason::Cancelled);
            self.0.queue.abandon();
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("session_id", &self.0.session_id).finish_non_exhaustive()
    }
}
