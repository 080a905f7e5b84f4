use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::execute::cancel::CancelSource;
use crate::execute::output::{Item, Queue};
use crate::execute::{ExecuteError, Exit, Reason, Signal, Stream};

/// The engine's end of a [`TestCommand`](crate::testing::TestCommand): reads what the executor writes, and
/// tells it to stop.
///
/// The executor waits for what is not read, as for a caller that does not read. Dropping it does not
/// stop the run, and leaves what is written unread.
///
/// ```
/// use splengine_core::execute::Stream;
/// use splengine_core::testing::TestCommand;
/// use splengine_core::{Execute, LocalExecutor};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let executor = LocalExecutor::new(".")?;
/// let command = TestCommand::new(["sh", "-c", "echo ready; exec sleep 600"]);
/// let (command, stdin, output, cancel, mut observer) = command.parts();
/// let mut execution = Box::pin(executor.execute(command, stdin, output, cancel));
/// tokio::select! {
///     printed = observer.next() => assert_eq!(printed, (Stream::Stdout, "ready\n".into())),
///     _ = &mut execution => panic!("it sleeps"),
/// }
/// assert_eq!(observer.starts(), 1);
/// observer.stop();
/// assert!(execution.await?.is_stopped());
/// # Ok(())
/// # }
/// ```
pub struct Observer {
    pub(super) queue: Arc<Queue>,
    source: CancelSource,
}

/// A whole run, as seen by an [`Observer`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Ran {
    /// Return value of [`Execute::execute`](crate::Execute::execute).
    pub exit: Result<Exit, ExecuteError>,
    /// All that it wrote to standard output until it returned.
    pub stdout: Bytes,
    /// All that it wrote to standard error until it returned.
    pub stderr: Bytes,
    /// Number of calls of [`Output::started`](crate::execute::Output::started): 1 of a correct executor
    /// whose command started, 0 if the command did not start.
    pub starts: u32,
}

impl Observer {
    pub(super) fn new(queue: Arc<Queue>, source: CancelSource) -> Self {
        Self { queue, source }
    }

    /// Tells the executor to stop, as an engine does at a time limit or when the caller cancels.
    pub fn stop(&self) {
        self.source.stop(Reason::Cancelled);
    }

    /// Tells the executor to kill the run at once, as an engine does at the end of its own shutdown.
    pub fn kill(&self) {
        self.source.kill(Reason::Cancelled);
    }

    /// Sends a signal for the program. At most 16 wait for an executor that does not ask for them; one
    /// more is dropped.
    pub fn signal(&self, signal: Signal) {
        self.source.signal(signal);
    }

    /// Returns how often the executor called [`Output::started`](crate::execute::Output::started).
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.queue.starts()
    }

    /// Waits until the executor called [`Output::started`](crate::execute::Output::started). It never
    /// resolves if that does not happen, so it is to be raced with the execution.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn started(&mut self) {
        // An error is only told of a queue that was finished, which this one never is.
        let _ = self.queue.wait_started().await;
    }

    /// Waits for what is written next. It never resolves if nothing is, so it is to be raced with the
    /// execution.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> (Stream, Bytes) {
        loop {
            match self.queue.next().await {
                Some(Item::Output(stream, data)) => return (stream, data),
                // Nothing is lost where writers wait.
                Some(Item::Lost(..)) => {}
                Some(Item::Finished(_)) | None => std::future::pending().await,
            }
        }
    }

    /// Polls `execution`, a future of [`Execute::execute`](crate::Execute::execute), to its end and reads
    /// what it writes. It is polled as by an engine: once with a waker that wakes nothing, and then anew.
    ///
    /// # Panics
    ///
    /// When more than 64 MiB are written: read those by [`next`](Self::next).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `execution`, and with it what was read.
    pub async fn watch(
        mut self,
        execution: impl Future<Output = Result<Exit, ExecuteError>>,
    ) -> Ran {
        let mut execution = pin!(execution);
        let mut unheard = Context::from_waker(Waker::noop());
        let mut printed = [Vec::new(), Vec::new()];
        let exit = match execution.as_mut().poll(&mut unheard) {
            Poll::Ready(exit) => exit,
            Poll::Pending => loop {
                tokio::select! {
                    exit = &mut execution => break exit,
                    (stream, data) = self.next() => keep(&mut printed, stream, &data),
                }
            },
        };
        while let Some(item) = self.queue.take() {
            if let Item::Output(stream, data) = item {
                keep(&mut printed, stream, &data);
            }
        }
        let [stdout, stderr] = printed.map(Bytes::from);
        Ran { exit, stdout, stderr, starts: self.starts() }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("starts", &self.starts()).finish_non_exhaustive()
    }
}

fn keep(printed: &mut [Vec<u8>; 2], stream: Stream, data: &[u8]) {
    let kept = &mut printed[stream as usize];
    assert!(kept.len() + data.len() <= MAX_KEPT, "it printed more than 64 MiB to one stream");
    kept.extend_from_slice(data);
}

/// Maximum number of bytes that are kept of each stream.
const MAX_KEPT: usize = 64 << 20;
