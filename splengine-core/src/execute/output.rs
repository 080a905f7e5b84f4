//! The queue of a run's output, from its executor to its reader, bounded in bytes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::execute::error::ExecuteError;
use crate::execute::mask::{Mask, Secrets};
use crate::execute::{End, FailureScan, SlowReader, Stream};

/// Failure of a write, since the run's output is not read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the output any more")]
#[non_exhaustive]
pub struct OutputClosed;

/// Receiver of what the program of an [`Execute`](crate::Execute) prints.
///
/// Variables whose values are [masked](crate::Request::mask) are replaced on the way. The order of the
/// writes is the order in which the reader gets them, over both streams. The
/// queue holds 256 KiB and one write; at that bound [`write`](Self::write) waits, or, where the
/// caller asked for it, the oldest output is dropped and counted.
///
/// ```
/// use splengine_core::{Bytes, ExecuteError};
/// use splengine_core::execute::{Output, OutputClosed, Stream};
///
/// /// Hands over what a program prints on two channels, until both are closed or no one reads.
/// async fn forward(
///     output: &Output,
///     mut stdout: tokio::sync::mpsc::Receiver<Bytes>,
///     mut stderr: tokio::sync::mpsc::Receiver<Bytes>,
/// ) -> Result<(), OutputClosed> {
///     output.started();
///     loop {
///         // A full queue holds the channels, and by them the program.
///         output.ready().await;
///         tokio::select! {
///             Some(data) = stdout.recv() => output.write(Stream::Stdout, data).await?,
///             Some(data) = stderr.recv() => output.write(Stream::Stderr, data).await?,
///             else => return Ok(()),
///         }
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Output(Arc<Queue>);

impl Output {
    /// Reports that the program runs: from here on the run ends with an end record, and not with an
    /// error.
    pub fn started(&self) {
        let mut state = self.0.lock();
        let now = Instant::now();
        state.started.get_or_insert(now);
        state.starts = state.starts.saturating_add(1);
        state.last_activity = now;
        drop(state);
        self.0.readable.notify_one();
    }

    /// Waits until there is capacity for a write, or the output is not read any more.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn ready(&self) {
        let mut room = std::pin::pin!(self.0.writable.notified());
        loop {
            room.as_mut().enable();
            if self.0.lock().has_room() {
                return;
            }
            room.as_mut().await;
            room.set(self.0.writable.notified());
        }
    }

    /// Hands over what was printed, and waits for capacity.
    ///
    /// # Errors
    ///
    /// [`OutputClosed`] when nobody reads any more.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped before it is done, `data` was not handed over.
    pub async fn write(&self, stream: Stream, data: Bytes) -> Result<(), OutputClosed> {
        self.ready().await;
        self.push(stream, data)
    }

    /// Hands over what was printed without waiting for capacity: for the last of it, when the program
    /// has ended and waiting gains nothing. The executor then has to keep to the bound itself.
    ///
    /// # Errors
    ///
    /// [`OutputClosed`] when nobody reads any more.
    pub fn push(&self, stream: Stream, data: Bytes) -> Result<(), OutputClosed> {
        self.0.push(stream, data)
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

/// What the reader's end gets.
#[derive(Debug)]
pub(crate) enum Item {
    Output(Stream, Bytes),
    Lost(Stream, u64),
    Finished(Result<End, ExecuteError>),
}

pub(crate) struct Queue {
    state: Mutex<State>,
    readable: Notify,
    writable: Notify,
}

struct State {
    started: Option<Instant>,
    /// How often the executor said so: of interest to tests of it alone.
    starts: u32,
    /// When it printed last, or its reader let it go on.
    last_activity: Instant,
    masks: Option<Box<[Mask; 2]>>,
    items: VecDeque<(Stream, Bytes)>,
    queued: usize,
    slow_reader: SlowReader,
    lost: [u64; 2],
    total: [u64; 2],
    scan: Option<FailureScan>,
    reader_gone: bool,
    finished: bool,
    end: Option<Result<End, ExecuteError>>,
}

impl Queue {
    pub(crate) fn new(
        slow_reader: SlowReader,
        scan: Option<FailureScan>,
        secrets: Option<Arc<Secrets>>,
    ) -> (Output, Arc<Self>) {
        let mask =
            |secrets: Arc<Secrets>| Box::new([Mask::new(Arc::clone(&secrets)), Mask::new(secrets)]);
        let queue = Arc::new(Self {
            state: Mutex::new(State {
                started: None,
                starts: 0,
                last_activity: Instant::now(),
                masks: secrets.map(mask),
                items: VecDeque::new(),
                queued: 0,
                slow_reader,
                lost: [0; 2],
                total: [0; 2],
                scan,
                reader_gone: false,
                finished: false,
                end: None,
            }),
            readable: Notify::new(),
            writable: Notify::new(),
        });
        (Output(Arc::clone(&queue)), queue)
    }

    /// When the program started; `Err` when it ended without ever having started.
    pub(crate) async fn wait_started(&self) -> Result<(), ExecuteError> {
        loop {
            {
                let mut state = self.lock();
                if state.started.is_some() {
                    return Ok(());
                }
                match state.end.take() {
                    Some(Err(error)) => return Err(error),
                    ended @ Some(Ok(_)) => {
                        state.end = ended;
                        return Ok(());
                    }
                    None => {}
                }
            }
            self.readable.notified().await;
        }
    }

    pub(crate) async fn next(&self) -> Option<Item> {
        loop {
            {
                let mut state = self.lock();
                if let Some(item) = state.pop() {
                    drop(state);
                    self.writable.notify_waiters();
                    return Some(item);
                }
                if let Some(end) = state.end.take() {
                    return Some(Item::Finished(end));
                }
                if state.finished {
                    return None;
                }
            }
            self.readable.notified().await;
        }
    }

    /// Everything written from now on is thrown away.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.reader_gone = true;
        state.items.clear();
        state.queued = 0;
        drop(state);
        self.writable.notify_waiters();
    }

    /// Gives the reader what was held back of what was printed: nothing more will be.
    pub(crate) fn flush(&self) {
        let mut state = self.lock();
        let Some(mut masks) = state.masks.take() else { return };
        for stream in [Stream::Stdout, Stream::Stderr] {
            state.add(stream, masks[stream as usize].finish());
        }
        drop(state);
        self.readable.notify_one();
    }

    /// Resolves when nothing was printed for `limit`. Time in which the program waits for its reader
    /// does not count.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let since = {
                let state = self.lock();
                let is_waiting = state.started.is_none() || !state.has_room();
                if is_waiting { now } else { state.last_activity }
            };
            match since.checked_add(limit) {
                Some(until) if until > now => sleep_until(until).await,
                Some(_) => return,
                None => std::future::pending().await,
            }
        }
    }

    pub(crate) fn finish(&self, end: Result<End, ExecuteError>) {
        let mut state = self.lock();
        state.finished = true;
        state.end = Some(end);
        drop(state);
        self.readable.notify_one();
        self.writable.notify_waiters();
    }

    pub(crate) fn started_at(&self) -> Option<Instant> {
        self.lock().started
    }

    /// Bytes written to standard output and standard error, and whether they tell of a failure.
    pub(crate) fn totals(&self) -> ([u64; 2], bool) {
        let state = self.lock();
        (state.total, state.scan.as_ref().is_some_and(FailureScan::found))
    }

    fn push(&self, stream: Stream, data: Bytes) -> Result<(), OutputClosed> {
        if data.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        if state.finished {
            return Err(OutputClosed);
        }
        state.last_activity = Instant::now();
        if let Some(scan) = &mut state.scan {
            scan.look(stream, &data);
        }
        let data = match &mut state.masks {
            Some(masks) => masks[stream as usize].push(data),
            None => data,
        };
        state.add(stream, data);
        if state.reader_gone {
            return Err(OutputClosed);
        }
        drop(state);
        self.readable.notify_one();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tests of executors and of adapters see and do.
#[cfg(feature = "testing")]
impl Queue {
    /// How often the executor said that its program runs.
    pub(crate) fn starts(&self) -> u32 {
        self.lock().starts
    }

    /// The bytes that wait for the reader, with what it costs to hold them.
    pub(crate) fn queued(&self) -> usize {
        self.lock().queued
    }

    /// Whether a write has to wait.
    pub(crate) fn is_full(&self) -> bool {
        !self.lock().has_room()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.lock().finished
    }

    /// What was written and not read yet, without waiting for more.
    pub(crate) fn take(&self) -> Option<Item> {
        let item = self.lock().pop();
        self.writable.notify_waiters();
        item
    }

    /// Tells the reader, before all that waits for it, that so much was lost.
    pub(crate) fn lose(&self, stream: Stream, bytes: u64) {
        let mut state = self.lock();
        state.lost[stream as usize] += bytes;
        state.total[stream as usize] += bytes;
        drop(state);
        self.readable.notify_one();
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.queued < QUEUE_BYTES
            || self.reader_gone
            || self.finished
            || self.slow_reader == SlowReader::Lose
    }

    /// Takes what can be seen of what was printed.
    fn add(&mut self, stream: Stream, data: Bytes) {
        self.total[stream as usize] += data.len() as u64;
        if data.is_empty() || self.reader_gone {
            return;
        }
        self.queued += cost(&data);
        self.items.push_back((stream, data));
        if self.slow_reader == SlowReader::Lose {
            self.lose_oldest();
        }
    }

    fn pop(&mut self) -> Option<Item> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let lost = std::mem::take(&mut self.lost[stream as usize]);
            if lost > 0 {
                return Some(Item::Lost(stream, lost));
            }
        }
        let (stream, data) = self.items.pop_front()?;
        let held_up = !self.has_room();
        self.queued -= cost(&data);
        if held_up && self.has_room() {
            self.last_activity = Instant::now();
        }
        Some(Item::Output(stream, data))
    }

    fn lose_oldest(&mut self) {
        while self.queued > QUEUE_BYTES && self.items.len() > 1 {
            if let Some((stream, data)) = self.items.pop_front() {
                self.queued -= cost(&data);
                self.lost[stream as usize] += data.len() as u64;
            }
        }
    }
}

/// What an item takes of the bound: its bytes, and about what it costs to hold it.
fn cost(data: &Bytes) -> usize {
    data.len() + 64
}

const QUEUE_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_writer_waits_for_a_slow_reader() {
        let (output, queue) = Queue::new(SlowReader::Wait, None, None);
        let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
        let mut written = 0;
        while let Ok(Ok(())) = tokio::time::timeout(
            std::time::Duration::ZERO,
            output.write(Stream::Stdout, chunk.clone()),
        )
        .await
        {
            written += 1;
        }
        assert_eq!(written, 4);
        assert!(matches!(queue.next().await, Some(Item::Output(Stream::Stdout, _))));
        output.write(Stream::Stderr, chunk).await.expect("there is room again");
    }

    #[tokio::test]
    async fn where_asked_the_oldest_is_lost_and_counted() {
        let (output, queue) = Queue::new(SlowReader::Lose, None, None);
        for i in 0..10u8 {
            let chunk = Bytes::from(vec![i; 64 * 1024]);
            output.write(Stream::Stdout, chunk).await.expect("never waits");
        }
        let Some(Item::Lost(Stream::Stdout, lost)) = queue.next().await else {
            panic!("the gap comes first");
        };
        let Some(Item::Output(_, data)) = queue.next().await else {
            panic!("then what is kept");
        };
        assert_eq!(lost, u64::from(data[0]) * 64 * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_what_was_printed_last() {
        let (output, queue) = Queue::new(SlowReader::Wait, None, None);
        let limit = Duration::from_secs(10);
        let began = Instant::now();
        output.started();
        let printing = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(8)).await;
                output.push(Stream::Stderr, Bytes::from_static(b"x")).expect("read");
            }
        };
        tokio::join!(printing, queue.idle(limit));
        assert_eq!(began.elapsed(), Duration::from_secs(34));

        // Who waits for a slow reader can't print.
        output.push(Stream::Stdout, Bytes::from(vec![0; QUEUE_BYTES])).expect("read");
        let reading = async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            while queue.lock().pop().is_some() {}
        };
        tokio::join!(reading, queue.idle(limit));
        assert_eq!(began.elapsed(), Duration::from_secs(34 + 110));
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_holds_nobody() {
        let (output, queue) = Queue::new(SlowReader::Wait, None, None);
        output.push(Stream::Stdout, Bytes::from(vec![0; QUEUE_BYTES])).expect("read");
        queue.abandon();
        let written = output.write(Stream::Stdout, Bytes::from_static(b"x")).await;
        assert_eq!(written, Err(OutputClosed));
        assert_eq!(queue.totals().0[0], QUEUE_BYTES as u64 + 1);
    }
}
