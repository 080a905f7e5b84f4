//! Bytes that arrive in pieces, gathered within bounds of size, time and memory.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::quota::{MemoryBudget, MemoryError, Reservation};

/// Bounds within which [`gather`](Self::gather) collects what arrives in pieces: bytes, time and a
/// share of a [`MemoryBudget`].
///
/// ```
/// use std::time::Duration;
/// use splengine_core::quota::{GatherLimits, MemoryBudget};
///
/// let budget = MemoryBudget::new(256 << 20);
/// let login = GatherLimits::new(4 << 10, Duration::from_secs(10), &budget);
/// assert_eq!(login.max_bytes(), 4096);
/// ```
#[derive(Debug, Clone)]
pub struct GatherLimits {
    max_bytes: usize,
    timeout: Duration,
    budget: MemoryBudget,
    memory_timeout: Duration,
}

/// Bytes that were gathered, and the memory that is reserved for them until this is dropped.
#[derive(Debug)]
pub struct Gathered {
    data: Bytes,
    reservation: Reservation,
}

/// Failure to gather bytes. None of them are kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatherError<E> {
    /// There are more than the maximum number of bytes.
    #[error("it is over {max_bytes} bytes")]
    TooLarge {
        /// Maximum number of bytes.
        max_bytes: usize,
    },
    /// The bytes did not arrive in time.
    #[error("it did not arrive within {} ms", timeout.as_millis())]
    TooSlow {
        /// Maximum time for all bytes together.
        timeout: Duration,
    },
    /// No memory was free for them in time.
    #[error(transparent)]
    NoMemory(MemoryError),
    /// The stream of bytes broke off.
    #[error("it broke off")]
    Broken(#[source] E),
}

impl GatherLimits {
    /// Limits what is gathered to `max_bytes`, which must arrive within `timeout`, and for which memory
    /// is reserved from `budget`.
    #[must_use]
    pub fn new(max_bytes: usize, timeout: Duration, budget: &MemoryBudget) -> Self {
        Self { max_bytes, timeout, budget: budget.clone(), memory_timeout: MEMORY_TIMEOUT }
    }

    /// Sets the maximum time to wait for memory, in all, where the budget is used up. Default 5 s.
    /// It does not count as time that the bytes took.
    #[must_use]
    pub fn memory_timeout(mut self, timeout: Duration) -> Self {
        self.memory_timeout = timeout;
        self
    }

    /// Returns the largest number of bytes.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Refuses a length that is announced before the bytes come.
    ///
    /// # Errors
    ///
    /// [`GatherError::TooLarge`].
    pub fn check<E>(&self, announced: u64) -> Result<(), GatherError<E>> {
        if announced > self.max_bytes as u64 {
            return Err(GatherError::TooLarge { max_bytes: self.max_bytes });
        }
        Ok(())
    }

    /// Collects what `next` gives until that gives nothing more.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::task::Poll;
    /// use std::time::Duration;
    /// use splengine_core::Bytes;
    /// use splengine_core::quota::{GatherError, GatherLimits, MemoryBudget};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let budget = MemoryBudget::new(1 << 20);
    /// let limits = GatherLimits::new(8, Duration::from_secs(10), &budget);
    /// let pieces = |texts: &'static [&str]| {
    ///     let mut pieces = texts.iter().map(|text| Ok::<_, Infallible>(Bytes::from(*text)));
    ///     move |_: &mut std::task::Context<'_>| Poll::Ready(pieces.next())
    /// };
    /// let gathered = limits.gather(pieces(&["hel", "lo"])).await?;
    /// assert_eq!(gathered[..], *b"hello");
    /// let refused = limits.gather(pieces(&["hello", "world"])).await;
    /// assert!(matches!(refused, Err(GatherError::TooLarge { max_bytes: 8 })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`GatherError`] when a bound is reached or `next` fails.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, what was gathered is lost and its memory given back.
    pub async fn gather<E>(
        &self,
        mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Bytes, E>>>,
    ) -> Result<Gathered, GatherError<E>> {
        let mut reservation = self.budget.reservation();
        let mut data = Vec::new();
        let begun = Instant::now();
        // Of the time that is over so much was spent on waiting for memory.
        let mut waited = Duration::ZERO;
        loop {
            let until = begun + self.timeout.min(MAX_TIMEOUT) + waited;
            let piece = timeout_at(until, std::future::poll_fn(&mut next)).await;
            let piece = piece.map_err(|_| GatherError::TooSlow { timeout: self.timeout })?;
            let Some(piece) = piece.transpose().map_err(GatherError::Broken)? else {
                return Ok(Gathered { data: data.into(), reservation });
            };
            if piece.len() > self.max_bytes - data.len() {
                return Err(GatherError::TooLarge { max_bytes: self.max_bytes });
            }
            let needed = data.len() + piece.len();
            if needed > data.capacity() {
                // The buffer doubles, and what is reserved is what it takes.
                let capacity = needed.max(data.capacity() * 2).min(self.max_bytes);
                let asked = Instant::now();
                let left = self.memory_timeout.saturating_sub(waited);
                let reserved = reservation.resize_within(capacity, left).await;
                reserved.map_err(GatherError::NoMemory)?;
                waited += asked.elapsed();
                data.reserve_exact(capacity - data.len());
            }
            data.extend_from_slice(&piece);
        }
    }
}

impl Gathered {
    /// Returns the gathered bytes. Memory is no longer reserved for them.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.data
    }

    /// Returns the bytes, and the memory that is reserved for them.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, Reservation) {
        (self.data, self.reservation)
    }
}

impl std::ops::Deref for Gathered {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data
    }
}

const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);
/// A time added to the present one must be a time.
const MAX_TIMEOUT: Duration = Duration::from_hours(24 * 365);

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Gives these pieces, then an end, or nothing more.
    async fn gathered(
        limits: &GatherLimits,
        pieces: &[usize],
        ends: bool,
    ) -> Result<usize, GatherError<()>> {
        let mut pieces = pieces.iter();
        let next = |_: &mut Context<'_>| match pieces.next() {
            Some(&length) => Poll::Ready(Some(Ok(Bytes::from(vec![7; length])))),
            None if ends => Poll::Ready(None),
            None => Poll::Pending,
        };
        limits.gather(next).await.map(|gathered| gathered.len())
    }

    #[tokio::test(start_paused = true)]
    async fn gathering_is_bounded_in_bytes_time_and_memory() {
        let budget = MemoryBudget::new(MIB);
        let limits = GatherLimits::new(MIB, Duration::from_secs(10), &budget);
        assert!(matches!(gathered(&limits, &[MIB - 1, 1], true).await, Ok(MIB)));
        let refused = gathered(&limits, &[MIB, 1], false).await;
        assert!(matches!(refused, Err(GatherError::TooLarge { max_bytes: MIB })), "{refused:?}");
        let begun = Instant::now();
        let refused = gathered(&limits, &[1], false).await;
        assert!(matches!(refused, Err(GatherError::TooSlow { .. })), "{refused:?}");
        assert_eq!(begun.elapsed().as_secs(), 10);

        let (mut most, mut beyond) = (budget.reservation(), budget.reservation());
        most.resize(MIB).await;
        beyond.resize(1).await;
        let begun = Instant::now();
        let refused = gathered(&limits, &[1], true).await;
        assert!(
            matches!(refused, Err(GatherError::NoMemory(MemoryError::Unavailable))),
            "{refused:?}"
        );
        assert_eq!(begun.elapsed().as_secs(), 5);
        drop((most, beyond));
        assert!(matches!(gathered(&limits, &[1], true).await, Ok(1)));
        assert_eq!(budget.available(), MIB);
    }
}
