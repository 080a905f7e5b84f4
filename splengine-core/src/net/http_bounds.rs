use std::time::Duration;

/// Bounds that all servers set on one connection of HTTP, in the HTTP library.
///
/// ```
/// use splengine_core::net::HttpBounds;
///
/// // GET /health of example.org, with the header `accept: text/plain`.
/// let target = "example.org".len() + "/health".len();
/// let bytes = HttpBounds::head_bytes(target, [("accept".len(), "text/plain".len())]);
/// assert!((34..1000).contains(&bytes));
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct HttpBounds;

impl HttpBounds {
    /// Maximum number of bytes, 32 KiB, that are read of a client of HTTP/1.1 and not worked at, and of those
    /// that are written and not sent. No head is longer.
    pub const MAX_BUFFERED_BYTES: usize = 32 << 10;
    /// Maximum number of requests, 128, that a client of HTTP/2 may have open at once.
    pub const MAX_STREAMS: u32 = 128;
    /// Maximum number of bytes, 64 KiB, of the body of a request over HTTP/2 that are received before they are
    /// read: its window. A client sends no more of one body in each round trip: 640 KiB a second where that
    /// takes 100 ms.
    pub const MAX_UNREAD_BODY_BYTES: u32 = 64 << 10;
    /// Maximum number of bytes, 8 MiB, of all bodies of one connection of HTTP/2 that are received before they are
    /// read, and lie in the buffers of the library: the connection's window.
    ///
    /// It is the sum of the windows of all [streams](Self::MAX_STREAMS). With less, the bodies of requests that wait
    /// for their turn would fill it, and those that are worked at would get no more of theirs.
    pub const MAX_UNREAD_BYTES: u32 = Self::MAX_STREAMS * Self::MAX_UNREAD_BODY_BYTES;
    /// Maximum number of bytes, 32 KiB, of the head of a request over HTTP/2.
    pub const MAX_HEAD_BYTES: u32 = 32 << 10;
    /// Time, 20 s, after which a client of HTTP/2 that sends nothing is asked whether it is there.
    pub const PING_INTERVAL: Duration = Duration::from_secs(20);
    /// Time, 20 s, in which it has to answer that.
    pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
    /// Maximum time, a year, that is handed on: it is added to the present one, and the sum must be a time.
    pub const MAX_TIMEOUT: Duration = Duration::from_hours(24 * 365);

    /// Returns about how many bytes of memory the head of a request takes, for
    /// [`Activity::turn`](crate::net::Activity::turn): `target` is the length of its authority, path and query
    /// together, and `headers` are the lengths of the names and values of its headers.
    #[must_use]
    pub fn head_bytes(target: usize, headers: impl IntoIterator<Item = (usize, usize)>) -> usize {
        let headers = headers.into_iter().map(|(name, value)| name + value + HEADER_BYTES);
        headers.sum::<usize>() + target + HEADER_BYTES
    }
}

/// What a header takes beside its name and its value.
const HEADER_BYTES: usize = 128;
