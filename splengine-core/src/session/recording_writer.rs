//! The writes of a recording, done in order on blocking threads.
//!
//! Whoever records never waits for the disk: what is to be written is queued, and a task of the session
//! has it written. The task that reads the terminal waits for room in the queue, so that a program is
//! held up where the disk is slower than it prints, for as long as the disk takes anything at all.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::blocking::blocking;
use crate::session::bounds::IoBounds;
use crate::session::keyframes::{self, Head};

/// Reason for which a recording stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It is as large as it may get.
    Limit,
    /// The disk is full.
    DiskFull,
    /// It can't be written.
    Failed,
    /// The disk has taken nothing for [a while](STALL_TIMEOUT).
    Stalled,
}

impl Stopped {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::DiskFull => "diskFull",
            Self::Failed | Self::Stalled => "failed",
        }
    }
}

/// What is to be appended to the files of a recording.
#[derive(Debug)]
pub(crate) enum Write {
    /// Whole lines.
    Events(Vec<u8>),
    Keyframe(Head, Bytes),
}

/// The files of a recording, and what waits to be written to them.
#[derive(Debug)]
pub(crate) struct RecordingWriter {
    /// Locked by the thread that writes.
    files: Mutex<Files>,
    queue: Mutex<VecDeque<Write>>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Files {
    cast: File,
    keyframes: File,
    /// Length of the whole events in `cast`.
    whole: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Bytes of events that are queued or being written.
    waiting: usize,
    /// Number of writes that were queued, and of those that are done.
    queued: u64,
    done: u64,
    /// Counts the pieces that the disk has taken.
    pieces: u64,
    /// Nothing more is queued.
    is_closed: bool,
    failure: Option<Stopped>,
}

impl RecordingWriter {
    /// For files at whose ends to go on: that of `cast` has so many bytes.
    pub(crate) fn new(cast: File, keyframes: File, length: u64) -> Self {
        Self {
            files: Mutex::new(Files { cast, keyframes, whole: length }),
            queue: Mutex::default(),
            progress: watch::Sender::default(),
        }
    }

    /// Queues a write, and returns its number.
    ///
    /// # Errors
    ///
    /// Why nothing more is written.
    pub(crate) fn push(&self, write: Write) -> Result<u64, Stopped> {
        let mut queue = self.queue();
        let Progress { waiting, queued, failure, .. } = *self.progress.borrow();
        if let Some(stopped) = failure {
            return Err(stopped);
        }
        // What was not held up, as changes of size: nobody makes so many in the time that a disk has.
        if waiting > MAX_WAITING_BYTES {
            return Err(Stopped::Stalled);
        }
        let bytes = write.event_bytes();
        queue.push_back(write);
        self.progress.send_modify(|progress| {
            progress.queued += 1;
            progress.waiting += bytes;
        });
        Ok(queued + 1)
    }

    /// The number of the last write that was queued.
    ///
    /// # Errors
    ///
    /// Why nothing more is written.
    pub(crate) fn last(&self) -> Result<u64, Stopped> {
        let Progress { queued, failure, .. } = *self.progress.borrow();
        failure.map_or(Ok(queued), Err)
    }

    /// Says that nothing more is queued.
    pub(crate) fn close(&self) {
        self.progress.send_modify(|progress| progress.is_closed = true);
    }

    /// Gives up what is not written yet, and all that follows.
    pub(crate) fn give_up(&self, stopped: Stopped) {
        self.queue().clear();
        self.progress.send_modify(|progress| {
            progress.failure.get_or_insert(stopped);
            progress.waiting = 0;
        });
    }

    /// Waits until no more than [a bound](HELD_BYTES) of events waits to be written.
    ///
    /// # Errors
    ///
    /// [`Stopped::Stalled`] when the disk takes nothing for [a while](STALL_TIMEOUT). A writer that
    /// has failed has room.
    pub(crate) async fn room(&self) -> Result<(), Stopped> {
        let mut progress = self.progress.subscribe();
        loop {
            let Progress { waiting, pieces, failure, .. } = *progress.borrow_and_update();
            if waiting <= HELD_BYTES || failure.is_some() {
                return Ok(());
            }
            let moved = progress.wait_for(|now| {
                now.pieces != pieces || now.waiting <= HELD_BYTES || now.failure.is_some()
            });
            // The sender is this.
            let _ = timeout(STALL_TIMEOUT, moved).await.map_err(|_| Stopped::Stalled)?;
        }
    }

    /// Waits until the write of this number is done; returns whether it was.
    pub(crate) async fn done(&self, number: u64) -> bool {
        let mut progress = self.progress.subscribe();
        let done = progress.wait_for(|now| now.done >= number || now.failure.is_some()).await;
        done.is_ok_and(|now| now.done >= number)
    }

    /// Whether the write of this number is done.
    pub(crate) fn is_done(&self, number: u64) -> bool {
        self.progress.borrow().done >= number
    }

    /// Waits until all that was queued so far is written, or given up.
    pub(crate) async fn written(&self) {
        let queued = self.progress.borrow().queued;
        self.done(queued).await;
    }

    /// Writes what is queued, until the writer is closed.
    ///
    /// # Errors
    ///
    /// Why no more can be written. What was written then ends with a whole event.
    pub(crate) async fn write_all(self: &Arc<Self>, io: &IoBounds) -> Result<(), Stopped> {
        let mut progress = self.progress.subscribe();
        loop {
            let next = progress
                .wait_for(|now| now.queued > now.done || now.is_closed || now.failure.is_some());
            match next.await.map(|now| *now) {
                Ok(Progress { failure: Some(stopped), .. }) => return Err(stopped),
                Ok(Progress { queued, done, .. }) if queued > done => {}
                _ => return Ok(()),
            }
            let turn = io.write_turn().await;
            let writer = Arc::clone(self);
            blocking(move || {
                let _turn = turn;
                writer.write_queued()
            })
            .await?;
        }
    }

    /// Writes what is queued. Blocks for as long as the disk does.
    ///
    /// # Errors
    ///
    /// As [`write_all`](Self::write_all).
    pub(crate) fn write_queued(&self) -> Result<(), Stopped> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let writes = std::mem::take(&mut *self.queue());
        for write in writes {
            if let Some(stopped) = self.progress.borrow().failure {
                return Err(stopped);
            }
            let bytes = write.event_bytes();
            let took = || self.progress.send_modify(|progress| progress.pieces += 1);
            if let Err(error) = files.write(write, took) {
                let stopped = stopped(&error);
                self.give_up(stopped);
                return Err(stopped);
            }
            self.progress.send_modify(|progress| {
                progress.done += 1;
                progress.waiting = progress.waiting.saturating_sub(bytes);
            });
        }
        Ok(())
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Write>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RecordingWriter {
    /// Something is left only where a runtime ends before what runs on it.
    fn drop(&mut self) {
        let _ = self.write_queued();
    }
}

impl Write {
    fn event_bytes(&self) -> usize {
        match self {
            Self::Events(lines) => lines.len(),
            // Its memory is reserved elsewhere.
            Self::Keyframe(..) => 0,
        }
    }
}

impl Files {
    /// Calls `took` whenever the disk has taken a piece.
    fn write(&mut self, write: Write, took: impl Fn()) -> io::Result<()> {
        match write {
            Write::Events(lines) => {
                let mut left = &lines[..];
                while !left.is_empty() {
                    let most = left.len().min(PIECE_BYTES);
                    let written = match self.cast.write(&left[..most]) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                        written => written,
                    };
                    match written {
                        Ok(count) => left = &left[count..],
                        Err(error) => {
                            self.end_with_whole_event(&lines[..lines.len() - left.len()]);
                            return Err(error);
                        }
                    }
                    took();
                }
                self.whole += lines.len() as u64;
                Ok(())
            }
            Write::Keyframe(head, screen) => {
                keyframes::write(&self.keyframes, &head, &screen, took)
            }
        }
    }

    /// Takes back the part of a line that a full disk has cut off, so that players play the file. So
    /// much was `written` behind the whole events before.
    fn end_with_whole_event(&mut self, written: &[u8]) {
        let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.whole += whole as u64;
        let _ = self.cast.set_len(self.whole);
    }
}

fn stopped(error: &io::Error) -> Stopped {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Stopped::DiskFull
        }
        _ => Stopped::Failed,
    }
}

/// While more bytes of events wait to be written, a program is held up.
const HELD_BYTES: usize = 256 << 10;
/// Beyond so many, which nobody can make who is held up, a recording stops.
const MAX_WAITING_BYTES: usize = 8 << 20;
/// How long a program is held up at most by a disk that takes nothing. Its recording then stops.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are written at a time.
const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _};
    use std::os::fd::OwnedFd;

    use tokio::task::JoinHandle;

    use super::*;
    use crate::quota::EngineMemory;

    /// A writer whose recording goes to a pipe, as to a disk that takes no more than is read, and the
    /// task that has it written.
    fn slow() -> (PipeReader, Arc<RecordingWriter>, JoinHandle<Result<(), Stopped>>) {
        let (reader, pipe) = std::io::pipe().expect("a pipe");
        let keyframes = tempfile::tempfile().expect("a file");
        let writer = Arc::new(RecordingWriter::new(OwnedFd::from(pipe).into(), keyframes, 0));
        let io = IoBounds::new(&EngineMemory::new(1 << 20), 1 << 20, Duration::from_secs(1));
        let task = Arc::clone(&writer);
        (reader, writer, tokio::spawn(async move { task.write_all(&io).await }))
    }

    fn lines(number: u8) -> Write {
        let mut lines = vec![b'0' + number; 32 << 10];
        lines.push(b'\n');
        Write::Events(lines)
    }

    #[tokio::test]
    async fn whoever_records_faster_than_the_disk_writes_waits_for_it() {
        let (mut reader, writer, task) = slow();
        for number in 0..12 {
            writer.push(lines(number)).expect("is queued");
        }
        // This is the runtime's only thread.
        let held = timeout(Duration::from_millis(50), writer.room()).await;
        assert!(held.is_err(), "{held:?}");
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        for number in 12..40 {
            writer.room().await.expect("it goes on");
            writer.push(lines(number)).expect("is queued");
            assert!(writer.progress.borrow().waiting <= HELD_BYTES + (33 << 10));
        }
        writer.written().await;
        writer.close();
        assert_eq!(task.await.expect("ends"), Ok(()));
        drop(writer);
        let all = read.await.expect("ends").expect("is read");
        let numbers = all.split(|byte| *byte == b'\n').filter_map(|line| line.first().copied());
        assert!(numbers.eq(b'0'..b'0' + 40));
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_takes_nothing_holds_nobody_up_for_long() {
        let (reader, writer, task) = slow();
        for number in 0..12 {
            writer.push(lines(number)).expect("is queued");
        }
        let room = tokio::spawn({
            let writer = Arc::clone(&writer);
            async move { writer.room().await }
        });
        while !room.is_finished() {
            // Auto-advance waits for what blocks.
            tokio::time::advance(STALL_TIMEOUT / 2).await;
        }
        assert_eq!(room.await.expect("ends"), Err(Stopped::Stalled));
        writer.give_up(Stopped::Stalled);
        assert_eq!(writer.push(lines(0)), Err(Stopped::Stalled));
        assert_eq!(writer.progress.borrow().waiting, 0);
        writer.room().await.expect("nothing more is written");
        assert!(!writer.done(12).await);
        drop(reader);
        task.await.expect("ends").expect_err("it was given up");
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_whole_events_and_is_told() {
        let (reader, writer, task) = slow();
        drop(reader);
        let number = writer.push(lines(0)).expect("is queued");
        assert!(!writer.done(number).await);
        assert_eq!(task.await.expect("ends"), Err(Stopped::Failed));
        assert_eq!(writer.push(lines(0)), Err(Stopped::Failed));
        let mut file = tempfile::tempfile().expect("a file");
        let length = |file: &File| file.metadata().expect("is there").len();
        let shared = file.try_clone().expect("a handle");
        let mut files =
            Files { cast: shared, keyframes: tempfile::tempfile().expect("a file"), whole: 0 };
        files.write(Write::Events(b"one\n".to_vec()), || ()).expect("is written");
        // A full disk has taken so much of what follows.
        io::Write::write_all(&mut file, b"two\nthr").expect("is written");
        files.end_with_whole_event(b"two\nthr");
        assert_eq!((length(&file), files.whole), (8, 8));
    }
}
