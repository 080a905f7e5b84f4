use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::net::HttpBounds;
use crate::net::answers::Answers;
use crate::net::http2_memory::Http2Memory;
use crate::net::table::{Progress, StartPermit, TableEntry};
use crate::net::unread::UnreadBodies;
use crate::quota::MemoryError;
use crate::user_name::UserName;

/// What is known of a connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    pub(super) is_authenticated: AtomicBool,
    /// Who was authenticated first, or the host of that guest.
    pub(super) user: OnceLock<UserName>,
    /// It is one of the first connections of that user.
    pub(super) is_first: AtomicBool,
    pub(super) has_begun: AtomicBool,
    /// The client takes nothing at the moment.
    pub(super) is_blocked: AtomicBool,
    /// Something was written since it was last flushed.
    pub(super) is_unflushed: AtomicBool,
    pub(super) half_close: AtomicBool,
    pub(super) is_multiplexed: AtomicBool,
    /// The client has ended what it sends.
    pub(super) read_closed: watch::Sender<bool>,
    /// The server has ended what it sends.
    pub(super) write_closed: AtomicBool,
    /// What the next answer begins with.
    pub(super) announced: Mutex<Option<&'static [u8]>>,
    /// How much of that was sent before it was written.
    pub(super) sent_ahead: AtomicUsize,
    /// Since when a request arrives that is not worked at yet.
    pub(super) arriving: watch::Sender<Option<Instant>>,
    pub(super) progress: Arc<Progress>,
    pub(super) answers: Answers,
    pub(super) http2_memory: Http2Memory,
    pub(super) unread: UnreadBodies,
    /// How much memory the head of a request takes that has not come to its end.
    pub(super) unfinished_head: AtomicUsize,
    /// What the dynamic table of HPACK may hold of what was read.
    pub(super) table_bytes: AtomicUsize,
    /// Who waits for memory to read more.
    pub(super) reader: Mutex<Option<Waker>>,
    /// None of one that was made of a mere socket.
    pub(super) place: Option<TableEntry>,
}

impl ConnectionState {
    pub(super) fn new(progress: Arc<Progress>, place: Option<TableEntry>) -> Self {
        let most = place.as_ref().map(|place| place.limits().max_unauthenticated_requests);
        Self {
            is_authenticated: AtomicBool::new(false),
            user: OnceLock::new(),
            is_first: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            is_unflushed: AtomicBool::new(false),
            half_close: AtomicBool::new(false),
            is_multiplexed: AtomicBool::new(false),
            read_closed: watch::channel(false).0,
            write_closed: AtomicBool::new(false),
            announced: Mutex::new(None),
            sent_ahead: AtomicUsize::new(0),
            arriving: watch::channel(None).0,
            progress,
            answers: Answers::new(most.unwrap_or(usize::MAX)),
            http2_memory: Http2Memory::new(place.as_ref().map(TableEntry::http2_budgets)),
            unread: UnreadBodies::default(),
            unfinished_head: AtomicUsize::new(0),
            table_bytes: AtomicUsize::new(0),
            reader: Mutex::default(),
            place,
        }
    }

    /// Counts the memory that a library of HTTP/2 may hold, where it is more than every connection may have of it:
    /// bodies that no one has read, trailers, an unfinished head, what compressed headers refer to, streams, and
    /// requests of an unauthenticated connection.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when there is no memory for it: nothing more is to be read for now.
    pub(super) fn try_count_held(&self) -> Result<(), MemoryError> {
        self.try_count(self.answers.most(), self.answers.coming())
    }

    fn try_count(&self, most_streams: usize, requests: usize) -> Result<(), MemoryError> {
        let uncounted = self.uncounted();
        let requests = requests.saturating_sub(uncounted.streams);
        let requests = requests.saturating_mul(uncounted.request_bytes);
        // The library keeps the memory of as many streams as there were at once.
        let streams = most_streams.saturating_sub(uncounted.streams);
        let headers = self.answers.held_trailers(MAX_HEADERS_MEMORY)
            + self.unfinished_head.load(Relaxed).min(MAX_HEADERS_MEMORY);
        let held = self.unread.held().saturating_add(headers);
        let held = held.saturating_add(self.table_bytes.load(Relaxed));
        let streams = streams.saturating_mul(STREAM_BYTES);
        let held = held.saturating_sub(uncounted.bytes).saturating_add(streams);
        self.http2_memory.set_library(held.saturating_add(requests))
    }

    /// How many requests more may be read now, for whose streams there is memory.
    pub(super) fn max_requests(&self) -> usize {
        self.counted_streams().saturating_sub(self.answers.coming()).min(MAX_REQUESTS_AT_ONCE)
    }

    /// Whether one more request may begin: where there is memory, that of a few more streams is counted.
    pub(super) fn may_begin_more(&self) -> bool {
        let (counted, coming) = (self.counted_streams(), self.answers.coming());
        if counted > coming {
            return true;
        }
        let more = self.uncounted().more_streams;
        let streams = counted.saturating_add(more);
        let is_there = self.try_count(streams, coming.saturating_add(more)).is_ok();
        if is_there {
            self.answers.set_most(streams);
        }
        is_there
    }

    fn counted_streams(&self) -> usize {
        self.uncounted().streams.max(self.answers.most())
    }

    fn uncounted(&self) -> &'static Uncounted {
        match (self.is_authenticated.load(Relaxed), self.is_first.load(Relaxed)) {
            (false, _) => &UNAUTHENTICATED,
            (true, true) => &FIRST_OF_CALLER,
            (true, false) => &FURTHER_OF_CALLER,
        }
    }

    /// Counts what is less than it was, and lets who waits for that read on.
    pub(super) fn count_held(&self) {
        if !self.is_multiplexed.load(Relaxed) {
            return;
        }
        // Where there is no memory for it, no more is read.
        let _ = self.try_count_held();
        let reader = self.reader().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(super) fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to read requests on a connection that is counted. Returns what to wait for, if anything.
    pub(super) fn read_turn(&self) -> Option<impl Future<Output = ()> + Send + Sync + use<>> {
        self.place.as_ref()?.read(self.user.get())
    }

    /// Begins a request of a connection that is counted.
    pub(super) fn start_turn(&self) -> Option<StartPermit> {
        self.place.as_ref()?.start(self.user.get())
    }

    pub(super) fn announced(&self) -> MutexGuard<'_, Option<&'static [u8]>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something was read.
    pub(super) fn has_arrived(&self) {
        if !self.is_multiplexed.load(Relaxed)
            && self.arriving.borrow().is_none()
            && *self.progress.active.borrow() == 0
        {
            self.arriving.send_replace(Some(Instant::now()));
        }
    }

    /// The next byte that can be sent ahead of an answer.
    pub(super) fn next_ahead(&self) -> Option<u8> {
        let is_free = !self.is_unflushed.load(Relaxed) && !self.write_closed.load(Relaxed);
        let beginning = self.announced().filter(|_| is_free)?;
        beginning.get(self.sent_ahead.load(Relaxed)).copied()
    }
}

/// What a connection may hold without being counted.
struct Uncounted {
    /// What its library holds.
    bytes: usize,
    /// The library's streams, with their requests.
    streams: usize,
    /// How many streams more are counted at a time.
    more_streams: usize,
    /// How much memory each further request takes beside what its library holds.
    request_bytes: usize,
}

const FIRST_OF_CALLER: Uncounted =
    Uncounted { bytes: 128 << 10, streams: 64, more_streams: 16, request_bytes: 0 };
/// A caller may have very many of these.
const FURTHER_OF_CALLER: Uncounted =
    Uncounted { bytes: 4 << 10, streams: 0, more_streams: 4, request_bytes: 16 << 10 };
/// With the first request most clients authenticate. Each further one counts with its head before it begins, and with
/// the task that answers it, which waits; measured: 1.1 KiB. While there is no memory, requests are read so many at
/// once as are not counted.
const UNAUTHENTICATED: Uncounted = Uncounted {
    bytes: 16 << 10,
    streams: 2,
    more_streams: 4,
    request_bytes: UNAUTHENTICATED_HEAD_BYTES + (2 << 10),
};
/// How much memory the headers of a request take at most: a library counts a header as 32 bytes and what it has, and keeps
/// [`HttpBounds::MAX_HEAD_BYTES`] of that.
const MAX_HEADERS_MEMORY: usize = 6 * HttpBounds::MAX_HEAD_BYTES as usize;
/// How many requests are read before others of the same caller or network have their turn.
const MAX_REQUESTS_AT_ONCE: usize = 16;
/// What of a head on an unauthenticated connection is counted before the request begins.
pub(super) const UNAUTHENTICATED_HEAD_BYTES: usize = 4 << 10;
/// What the library keeps of each until the connection is closed. Measured: 2.2 KiB.
const STREAM_BYTES: usize = 5 << 9;
