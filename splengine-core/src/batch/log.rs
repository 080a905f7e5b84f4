//! The output of a step on both streams, in order and with times.

use std::collections::VecDeque;
use std::time::SystemTime;

use bytes::Bytes;

use crate::auth::Caller;
use crate::batch::log_entry::{INDEX_PIECE, LogEntry};
use crate::batch::outputs::Part;
use crate::batch::{BatchError, Batches, StepOutput};
use crate::execute::Stream;
use crate::ids::{BatchId, IntoId};
use crate::time::time;

/// Output of a step on both streams, piece by piece, in the order in which the engine read it and with
/// the times at which it did. Where output is over its limit, the last part comes at the end of the
/// run, with the time of the end. Got from [`Batches::log`].
///
/// ```
/// use splengine_core::batch::BatchPolicy;
/// use splengine_core::execute::Stream;
/// use splengine_core::store::MemoryStore;
/// use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let outputs = tempfile::tempdir()?;
/// # let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
/// # let engine = Engine::builder(LocalExecutor::new(".")?).batches(policy).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let batches = engine.batches();
/// let request = BatchRequest::new().step(Step::new("sh -c 'echo out; echo err >&2'").id("both"));
/// let id = batches.submit(&alice, request, None).await?.record.info.id;
/// let mut log = batches.log(&alice, &id, "both", None, true).await?;
/// let [mut stdout, mut stderr] = [Vec::new(), Vec::new()];
/// while let Some(piece) = log.next().await? {
///     match piece.stream {
///         Stream::Stderr => stderr.extend_from_slice(&piece.data),
///         _ => stdout.extend_from_slice(&piece.data),
///     }
/// }
/// assert_eq!((&stdout[..], &stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StepLog {
    index: StepOutput,
    /// How much of the index was read.
    at: u64,
    /// How much of each stream was given.
    given: [u64; 2],
    entries: VecDeque<LogEntry>,
    follow: Follow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    No,
    /// The log ends with this run.
    Run,
    /// The log ends with the step.
    Step,
}

/// A part of a step's log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogPiece {
    /// Time at which the engine read the piece.
    pub time: SystemTime,
    /// Stream on which it was printed.
    pub stream: Stream,
    /// The number of the run that printed it, from 1.
    pub attempt: u32,
    /// Exact bytes, cut anywhere; none where a part was left out.
    pub data: Bytes,
    /// Number of bytes that were left out here.
    pub left_out: u64,
}

impl Batches {
    /// Returns what a run of a step printed on both streams, in its order and with times: the run with
    /// the number `attempt`, from 1; without that, the last one. With `follow` it continues until that
    /// run is over; without `attempt`, until the step is over, with what further runs print.
    ///
    /// # Errors
    ///
    /// As [`output`](Self::output).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn log(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
        step: &str,
        attempt: Option<u32>,
        follow: bool,
    ) -> Result<StepLog, BatchError> {
        let output = self.output(caller, id, step, Stream::Stdout, attempt).await?;
        let follow = match (follow, attempt) {
            (false, _) => Follow::No,
            (true, Some(_)) => Follow::Run,
            (true, None) => Follow::Step,
        };
        let index = output.part(Part::Index);
        Ok(StepLog { index, at: 0, given: [0; 2], entries: VecDeque::new(), follow })
    }
}

impl StepLog {
    /// Returns the number of the run that prints what comes next, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.index.attempt()
    }

    /// Waits for the next piece, 64 KiB at most; `None` if there is none now, or, if the log is
    /// followed, if none will come.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when it can't be read.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<LogPiece>, BatchError> {
        loop {
            if let Some(piece) = self.take().await? {
                return Ok(Some(piece));
            }
            let bytes = self.index.read(self.at, INDEX_PIECE).await?;
            let (entries, _) = bytes.as_chunks::<{ LogEntry::SIZE }>();
            if !entries.is_empty() {
                self.entries.extend(entries.iter().filter_map(|bytes| LogEntry::parse(bytes)));
                self.at += (entries.len() * LogEntry::SIZE) as u64;
                continue;
            }
            let one = LogEntry::SIZE as u64;
            if self.follow == Follow::No {
                return Ok(None);
            }
            if self.index.grows(self.at + one - 1).await? {
                continue;
            }
            if self.follow == Follow::Run {
                return Ok(None);
            }
            let Some(next) = self.index.next_run().await? else { return Ok(None) };
            (self.index, self.at, self.given) = (next, 0, [0; 2]);
        }
    }

    /// The next piece of what is known to be there.
    async fn take(&mut self) -> Result<Option<LogPiece>, BatchError> {
        while let Some(entry) = self.entries.front_mut() {
            let mut piece = LogPiece {
                time: time(entry.time),
                stream: entry.stream,
                attempt: self.index.attempt(),
                data: Bytes::new(),
                left_out: 0,
            };
            if entry.is_gap {
                piece.left_out = entry.length;
                self.entries.pop_front();
                return Ok(Some(piece));
            }
            let given = &mut self.given[entry.stream as usize];
            let most = usize::try_from(entry.length).unwrap_or(usize::MAX).min(PIECE);
            let output = self.index.part(Part::Stream(entry.stream));
            piece.data = output.read(*given, most).await?;
            let length = piece.data.len() as u64;
            *given += length;
            entry.length -= length;
            if entry.length == 0 || length == 0 {
                self.entries.pop_front();
            }
            if length > 0 {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

const PIECE: usize = 64 << 10;
