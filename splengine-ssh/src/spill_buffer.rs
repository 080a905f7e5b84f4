//! A buffer for what a client sends on a channel, in memory and beyond that on disk.
//!
//! russh opens a channel's window again as soon as data has come, whether or not anybody has read
//! it, and reads nothing else of the connection while its handler waits. So whatever comes must be
//! taken at once: into memory, beyond that into files without a name.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use splengine_core::UserName;
use splengine_core::net::LogBudget;
use splengine_core::quota::{BytesError, CallerBytes, DiskReserve};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How much all channels of a server may keep in memory and on disk, and where on disk.
#[derive(Debug)]
pub(crate) struct Disk {
    /// `None` is the host's directory for temporary files.
    directory: Option<PathBuf>,
    reserve: DiskReserve,
    memory: CallerBytes,
    bytes: CallerBytes,
    /// Of lines on what can't be written.
    warnings: LogBudget,
}

/// More than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The end into which a connection puts what comes.
#[derive(Debug)]
pub(crate) struct SpillWriter(Arc<Shared>);

/// The end that a program's input is read from. Dropping it throws away what is left and what comes.
#[derive(Debug)]
pub(crate) struct SpillReader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    disk: Arc<Disk>,
    user: UserName,
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In one piece: clients may send single bytes.
    memory: BytesMut,
    /// Taken of the memory of all channels for that.
    reserved: u64,
    /// What came after what is in memory.
    pieces: VecDeque<Piece>,
    is_over: bool,
    reader_gone: bool,
    reader: Option<Waker>,
}

/// A file without a name. All of it takes room until all of it was read.
#[derive(Debug)]
struct Piece {
    file: File,
    read: u64,
    written: u64,
}

impl From<BytesError> for Full {
    fn from(_: BytesError) -> Self {
        Self
    }
}

impl Disk {
    pub(crate) fn new(
        directory: Option<PathBuf>,
        reserve: DiskReserve,
        [max_of_caller, max_of_all]: [u64; 2],
    ) -> Arc<Self> {
        let memory = CallerBytes::new(MAX_MEMORY_BYTES_OF_CALLER, MAX_MEMORY_BYTES_OF_ALL);
        let bytes = CallerBytes::new(max_of_caller, max_of_all);
        Arc::new(Self { directory, reserve, memory, bytes, warnings: LogBudget::default() })
    }

    /// A file without a name, that no other user of the host can read.
    fn file(&self) -> io::Result<File> {
        let Some(directory) = &self.directory else { return tempfile::tempfile() };
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        tempfile::tempfile_in(directory)
    }
}

/// The two ends of the input of a channel of `user`.
pub(crate) fn channel(disk: Arc<Disk>, user: UserName) -> (SpillWriter, SpillReader) {
    let shared = Arc::new(Shared { state: Mutex::default(), disk, user, taken: Notify::new() });
    (SpillWriter(Arc::clone(&shared)), SpillReader(shared))
}

impl SpillWriter {
    /// Takes `data` in, without waiting.
    pub(crate) fn push(&self, data: &[u8]) -> Result<(), Full> {
        let mut state = self.0.lock();
        if state.reader_gone || data.is_empty() {
            return Ok(());
        }
        if state.has_memory(data.len(), &self.0.disk, &self.0.user) {
            state.memory.extend_from_slice(data);
        } else {
            state.spill(data, &self.0.disk, &self.0.user)?;
        }
        state.wake();
        Ok(())
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        let mut state = self.0.lock();
        state.is_over = true;
        state.wake();
    }

    /// Where there is much that was not read: waits a little for the reader, the longer the more
    /// there is. Only for a connection whose other channels nobody waits for.
    pub(crate) async fn pace(&self) {
        let patience = {
            let state = self.0.lock();
            match state.on_disk() {
                _ if state.reader_gone => return,
                0..SLOW_ABOVE_BYTES => return,
                SLOW_ABOVE_BYTES..SLOWER_ABOVE_BYTES => Duration::from_millis(10),
                _ => Duration::from_millis(200),
            }
        };
        let _ = timeout(patience, self.0.taken.notified()).await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// So many bytes were not read yet.
    fn on_disk(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.written - piece.read).sum()
    }

    /// Whether so much more may be kept in memory.
    fn has_memory(&mut self, more: usize, disk: &Disk, user: &UserName) -> bool {
        let needed = self.memory.len() + more;
        if !self.pieces.is_empty() || needed > MAX_MEMORY_BYTES {
            return false;
        }
        // As the buffer grows.
        let wanted = match needed {
            0..=UNCOUNTED_BYTES => 0,
            needed => needed.next_power_of_two() as u64,
        };
        let missing = wanted.saturating_sub(self.reserved);
        if missing > 0 && disk.memory.take(user, missing).is_err() {
            return false;
        }
        self.reserved += missing;
        true
    }

    fn forget_memory(&mut self, disk: &Disk, user: &UserName) {
        self.memory = BytesMut::new();
        if self.reserved > 0 {
            disk.memory.give_back(user, std::mem::take(&mut self.reserved));
        }
    }

    fn spill(&mut self, data: &[u8], disk: &Disk, user: &UserName) -> Result<(), Full> {
        let size = data.len() as u64;
        disk.bytes.take(user, size)?;
        if let Err(error) = self.write(data, disk) {
            disk.bytes.give_back(user, size);
            if let Some(unlogged) = disk.warnings.take(()) {
                tracing::warn!(%error, unlogged, "what a client sends can't be kept on disk");
            }
            return Err(Full);
        }
        Ok(())
    }

    fn write(&mut self, data: &[u8], disk: &Disk) -> io::Result<()> {
        if self.pieces.back().is_none_or(|piece| piece.written >= PIECE) {
            self.pieces.push_back(Piece { file: disk.file()?, read: 0, written: 0 });
        }
        if let Some(piece) = self.pieces.back_mut() {
            disk.reserve.check(&piece.file, data.len() as u64).map_err(io::Error::other)?;
            piece.file.write_all_at(data, piece.written)?;
            piece.written += data.len() as u64;
        }
        Ok(())
    }

    /// The next of what came, into `buffer`.
    fn read(&mut self, buffer: &mut ReadBuf<'_>, disk: &Disk, user: &UserName) -> io::Result<()> {
        let length = self.memory.len().min(buffer.remaining());
        buffer.put_slice(&self.memory[..length]);
        self.memory.advance(length);
        if self.memory.is_empty() {
            self.forget_memory(disk, user);
        }
        if self.memory.is_empty()
            && buffer.remaining() > 0
            && let Some(piece) = self.pieces.front_mut()
        {
            let left = usize::try_from(piece.written - piece.read).unwrap_or(usize::MAX);
            let length = left.min(buffer.remaining()).min(AT_A_TIME);
            piece.file.read_exact_at(buffer.initialize_unfilled_to(length), piece.read)?;
            buffer.advance(length);
            piece.read += length as u64;
            if piece.read == piece.written {
                disk.bytes.give_back(user, piece.written);
                self.pieces.pop_front();
            }
        }
        Ok(())
    }

    fn forget(&mut self, disk: &Disk, user: &UserName) {
        self.forget_memory(disk, user);
        disk.bytes.give_back(user, self.pieces.drain(..).map(|piece| piece.written).sum());
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl AsyncRead for SpillReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let before = buffer.filled().len();
        state.read(buffer, &self.0.disk, &self.0.user)?;
        if buffer.filled().len() > before {
            drop(state);
            self.0.taken.notify_one();
            return Poll::Ready(Ok(()));
        }
        if state.is_over {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for SpillReader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reader_gone = true;
        state.forget(&self.0.disk, &self.0.user);
        drop(state);
        self.0.taken.notify_one();
    }
}

impl Drop for SpillWriter {
    fn drop(&mut self) {
        self.end();
    }
}

/// Maximum of one channel's unread input that is kept in memory; what comes beyond it goes to disk.
const MAX_MEMORY_BYTES: usize = 1 << 20;
/// Bytes of one channel's unread input in memory that are not counted: each may have them.
const UNCOUNTED_BYTES: usize = 4 << 10;
/// Maximum of all channels' unread input that is kept in memory, of one caller.
const MAX_MEMORY_BYTES_OF_CALLER: u64 = 32 << 20;
/// The same, of all callers.
const MAX_MEMORY_BYTES_OF_ALL: u64 = 128 << 20;
/// At this size of a file the next is begun, so that a reader who is always a little behind does not
/// make it grow for ever.
const PIECE: u64 = 64 << 20;
/// How much is read from a file at once.
const AT_A_TIME: usize = 64 << 10;
const SLOW_ABOVE_BYTES: u64 = 64 << 20;
const SLOWER_ABOVE_BYTES: u64 = 512 << 20;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn disk_of(max_of_caller: u64, max_of_all: u64) -> Arc<Disk> {
        Disk::new(None, DiskReserve::new(0), [max_of_caller, max_of_all])
    }

    fn user(name: &str) -> UserName {
        name.parse().expect("a name")
    }

    fn used(disk: &Disk) -> u64 {
        disk.bytes.used()
    }

    #[test]
    fn beyond_the_memory_of_its_caller_a_channel_uses_the_disk() {
        let disk = disk_of(8 << 20, 8 << 20);
        let alice = user("alice");
        let channels =
            usize::try_from(MAX_MEMORY_BYTES_OF_CALLER).expect("small") / MAX_MEMORY_BYTES;
        let mut all: Vec<_> = (0..=channels)
            .map(|_| {
                let ends = channel(Arc::clone(&disk), alice.clone());
                ends.0.push(&[7; MAX_MEMORY_BYTES]).expect("room");
                ends
            })
            .collect();
        assert_eq!(used(&disk), MAX_MEMORY_BYTES as u64, "the last one's");
        // Single keys need none.
        let (keys, _read) = channel(Arc::clone(&disk), alice.clone());
        keys.push(b"x").expect("room");
        assert_eq!(used(&disk), MAX_MEMORY_BYTES as u64);
        let (others, _read) = channel(Arc::clone(&disk), user("bob"));
        others.push(&[7; MAX_MEMORY_BYTES]).expect("room");
        assert_eq!(used(&disk), MAX_MEMORY_BYTES as u64);
        drop(all.remove(0));
        let (again, _read) = channel(Arc::clone(&disk), alice);
        again.push(&[7; MAX_MEMORY_BYTES]).expect("room");
        assert_eq!(used(&disk), MAX_MEMORY_BYTES as u64);
        drop((all, others, _read, again));
    }

    #[tokio::test]
    async fn what_comes_is_read_in_order_from_memory_and_disk() {
        let disk = disk_of(64 << 20, 64 << 20);
        let (inlet, mut outlet) = channel(Arc::clone(&disk), user("alice"));
        let all: Vec<u8> = (0..8 << 20).map(|i: u32| (i % 251) as u8).collect();
        let (first, second) = all.split_at(5 << 20);
        first.chunks(30_000).for_each(|piece| inlet.push(piece).expect("room"));
        let mut read = vec![0; 3 << 20];
        outlet.read_exact(&mut read).await.expect("read");
        second.chunks(30_000).for_each(|piece| inlet.push(piece).expect("room"));
        inlet.end();
        outlet.read_to_end(&mut read).await.expect("read");
        assert!(read == all);
        assert_eq!(used(&disk), 0);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_there_is_room_for() {
        let disk = disk_of(2 << 20, 3 << 20);
        let piece = vec![0; 1 << 20];
        let (inlet, outlet) = channel(Arc::clone(&disk), user("alice"));
        let filled = (0..10).take_while(|_| inlet.push(&piece).is_ok()).count();
        assert_eq!(filled, 3, "one in memory, two on disk");
        let (own, _own) = channel(Arc::clone(&disk), user("alice"));
        let filled = (0..10).take_while(|_| own.push(&piece).is_ok()).count();
        assert_eq!(filled, 1, "one in memory: the caller has no more room on disk");
        let (other, _outlet) = channel(Arc::clone(&disk), user("bob"));
        let filled = (0..10).take_while(|_| other.push(&piece).is_ok()).count();
        assert_eq!(filled, 2, "one in memory, and what all channels together have left");
        drop(outlet);
        assert_eq!(used(&disk), 1 << 20);
        inlet.push(&piece).expect("nobody reads it");
    }

    #[tokio::test]
    async fn a_reader_who_is_always_behind_is_never_cut_off() {
        let disk = disk_of(2 * PIECE, 4 * PIECE);
        let (inlet, mut outlet) = channel(Arc::clone(&disk), user("alice"));
        let mut piece = vec![0; 1 << 20];
        for _ in 0..3 {
            inlet.push(&piece).expect("room");
        }
        for _ in 0..(3 * PIECE) >> 20 {
            inlet.push(&piece).expect("room");
            outlet.read_exact(&mut piece).await.expect("read");
            assert!(used(&disk) <= PIECE + (4 << 20));
        }
        drop(outlet);
        assert_eq!(used(&disk), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_waits_only_for_a_reader_who_is_far_behind() {
        let disk = disk_of(1 << 30, 1 << 30);
        let (inlet, mut outlet) = channel(disk, user("alice"));
        let begun = tokio::time::Instant::now();
        inlet.push(&vec![0; 2 << 20]).expect("room");
        inlet.pace().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..65 {
            inlet.push(&vec![0; 1 << 20]).expect("room");
        }
        inlet.pace().await;
        assert!(begun.elapsed() >= Duration::from_millis(10));
        let begun = tokio::time::Instant::now();
        let (_, read) = tokio::join!(inlet.pace(), outlet.read_u8());
        assert!(read.is_ok() && begun.elapsed() < Duration::from_millis(10));
    }

    #[test]
    fn what_is_kept_on_disk_is_kept_where_it_is_to_be_and_leaves_some_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("deep/input");
        let piece = vec![0; 1 << 20];
        for (floor, is_kept) in [(0, true), (u64::MAX, false)] {
            let disk = Disk::new(Some(place.clone()), DiskReserve::new(floor), [8 << 20; 2]);
            let (inlet, _outlet) = channel(Arc::clone(&disk), user("alice"));
            inlet.push(&piece).expect("in memory");
            assert_eq!(inlet.push(&piece).is_ok(), is_kept);
            assert_eq!(used(&disk) > 0, is_kept);
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&place).expect("made").permissions(),
        );
        assert_eq!(mode & 0o777, 0o700);
        std::fs::remove_dir(&place).expect("nothing in it has a name");
    }
}
