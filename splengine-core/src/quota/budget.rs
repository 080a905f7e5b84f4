//! Memory that the connections of a server share for what they read and for answers that wait.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::coop::unconstrained;

use crate::error::ErrorKind;
use crate::quota::CallerPlaces;
use crate::user_name::UserName;

/// Bound on the memory that all connections of a server hold together for messages and bodies that
/// are not complete or wait for their turn. Cheap to clone: clones share one bound.
///
/// At the bound a [`Reservation`] waits. So that incomplete messages that hold all of it cannot block
/// each other for ever, one reservation at a time may go beyond the bound; its own message has a
/// largest size.
///
/// ```
/// use splengine_core::quota::MemoryBudget;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let budget = MemoryBudget::new(256 << 20);
/// let mut reservation = budget.reservation();
/// reservation.resize(1 << 20).await;
/// assert_eq!(budget.available(), 255 << 20);
/// drop(reservation);
/// assert_eq!(budget.available(), 256 << 20);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Level>);

#[derive(Debug)]
struct Level {
    bytes: usize,
    granules: Arc<Semaphore>,
    beyond: Arc<Mutex<()>>,
    /// The budget that this one is a share of.
    whole: Option<MemoryBudget>,
    /// What it means that it is used up.
    shortage: MemoryError,
}

/// Reason for which memory was not reserved in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The caller's own share is used up; others may still be served.
    #[error(
        "messages of yours that are on their way take all of the memory that one caller may have; try \
         again in a second"
    )]
    CallerLimit,
    /// The budget of the server is used up.
    #[error("the server has no memory left for it; try again in a second")]
    Unavailable,
}

impl MemoryError {
    /// The kind of refusal: [`ErrorKind::CallerLimit`] or [`ErrorKind::Unavailable`].
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::CallerLimit => ErrorKind::CallerLimit,
            Self::Unavailable => ErrorKind::Unavailable,
        }
    }

    /// Returns the cause, in words, for an answer that is kept until its client has read it.
    #[must_use]
    pub fn of_answer(&self) -> &'static str {
        match self {
            Self::CallerLimit => {
                "answers of yours that are not read yet take all of the memory that one caller may \
                 have for them"
            }
            Self::Unavailable => "the server has no memory left for the answer",
        }
    }

    /// Returns what a client can do whose request for an answer was refused, in words that follow
    /// [`of_answer`](Self::of_answer).
    #[must_use]
    pub fn advice_on_answer(&self) -> &'static str {
        match self {
            Self::CallerLimit => "read them, or try again in a second",
            Self::Unavailable => "try again in a second",
        }
    }

    /// The time after which it is worth another try, 1 s.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// The shares that the callers of a server have in its [`MemoryBudget`]: half of it each, so that what
/// one of them sends and never completes leaves memory to the others. Cheap to clone.
///
/// ```
/// use splengine_core::quota::{CallerBudgets, MemoryBudget};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let budgets = CallerBudgets::new(&MemoryBudget::new(256 << 20));
/// let (alice, bob) = ("alice".parse()?, "bob".parse()?);
/// let mut reservation = budgets.of(&alice).reservation();
/// reservation.resize(100 << 20).await;
/// assert_eq!(budgets.of(&alice).available(), 28 << 20);
/// assert_eq!(budgets.of(&bob).available(), 128 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CallerBudgets {
    whole: MemoryBudget,
    /// Answers that wait for memory.
    waiting: CallerPlaces,
    shares: Arc<std::sync::Mutex<HashMap<UserName, Weak<Level>>>>,
}

impl CallerBudgets {
    /// Makes shares in `whole`, of which nothing is reserved yet.
    #[must_use]
    pub fn new(whole: &MemoryBudget) -> Self {
        let waiting = CallerPlaces::bounded(MAX_WAITING_ANSWERS, MAX_WAITING_ANSWERS_PER_CALLER);
        Self { whole: whole.clone(), waiting, shares: Arc::default() }
    }

    /// The share of `user`, whom a caller [is accounted to](crate::Caller::accounted_user); forgotten
    /// when nothing of it is reserved.
    #[must_use]
    pub fn of(&self, user: &UserName) -> MemoryBudget {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(user).and_then(Weak::upgrade) {
            return MemoryBudget(share);
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let (bytes, whole) = (self.whole.0.bytes / 2, Some(self.whole.clone()));
        let share = MemoryBudget::level(bytes, whole, MemoryError::CallerLimit);
        shares.insert(user.clone(), Arc::downgrade(&share.0));
        share
    }

    /// Reserves memory of `user`'s share for an answer of `bytes` that is in memory already. An answer
    /// to work that is done waits for up to 5 s, lest it is lost: at most 8 of a caller and 64 of all
    /// at once, since what waits is not counted. Any other is refused at once.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], which says whose memory is used up.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing is reserved.
    pub async fn reserve_answer(
        &self,
        user: &UserName,
        bytes: usize,
        is_done: bool,
    ) -> Result<Reservation, MemoryError> {
        let mut reservation = self.of(user).reservation();
        match reservation.try_resize(bytes) {
            Err(_) if is_done && let Ok(_place) = self.waiting.take(user) => {
                reservation.resize_within(bytes, ANSWER_TIMEOUT).await?;
            }
            reserved => reserved?,
        }
        Ok(reservation)
    }
}

/// Part of a [`MemoryBudget`], given back when dropped. Holds nothing until it is
/// [resized](Self::resize).
///
/// ```
/// use std::time::Duration;
/// use splengine_core::quota::MemoryBudget;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let budget = MemoryBudget::new(64 << 10);
/// let mut first = budget.reservation();
/// first.resize(64 << 10).await;
/// // One reservation at a time may go beyond the budget; the next waits, or is refused.
/// let mut second = budget.reservation();
/// second.resize(4 << 10).await;
/// let mut third = budget.reservation();
/// assert!(third.resize_within(4 << 10, Duration::from_millis(10)).await.is_err());
/// drop(first);
/// third.resize(4 << 10).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reservation {
    /// One for each budget in turn: the share first, then the whole.
    levels: Vec<Reserved>,
    allowance: usize,
    /// How many granules are reserved.
    granules: usize,
    /// At which level the last [`resize`](Self::resize) waits, or waited when it was dropped, and for
    /// how many granules in all.
    waits: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Reserved {
    budget: MemoryBudget,
    permit: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedMutexGuard<()>>,
}

impl MemoryBudget {
    /// Makes a budget of `bytes`, rounded up to whole 4 KiB.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self::level(bytes, None, MemoryError::Unavailable)
    }

    /// A budget of at most `bytes` that is part of this one: what is reserved of it is reserved of
    /// both. For clients that have not shown credentials, so that they cannot take all of it.
    #[must_use]
    pub fn share(&self, bytes: usize) -> Self {
        Self::level(bytes, Some(self.clone()), MemoryError::Unavailable)
    }

    fn level(bytes: usize, whole: Option<Self>, shortage: MemoryError) -> Self {
        let granules = bytes.div_ceil(GRANULE).min(Semaphore::MAX_PERMITS);
        let granules = Arc::new(Semaphore::new(granules));
        Self(Arc::new(Level { bytes, granules, beyond: Arc::default(), whole, shortage }))
    }

    /// A reservation that holds nothing yet.
    #[must_use]
    pub fn reservation(&self) -> Reservation {
        let budgets = std::iter::successors(Some(self), |budget| budget.0.whole.as_ref());
        let levels = budgets.cloned().map(|budget| Reserved { budget, permit: None, beyond: None });
        Reservation { levels: levels.collect(), allowance: 0, granules: 0, waits: None }
    }

    /// Returns the number of bytes that are not reserved at the moment.
    #[must_use]
    pub fn available(&self) -> usize {
        self.0.granules.available_permits() * GRANULE
    }
}

impl Reservation {
    /// Leaves the first `bytes` uncounted: for a buffer that each connection has anyway. Default 0.
    #[must_use]
    pub fn allowance(mut self, bytes: usize) -> Self {
        self.allowance = bytes;
        self
    }

    /// Waits until `bytes` are reserved in all; gives back what was reserved beyond them.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, no less is reserved than before.
    pub async fn resize(&mut self, bytes: usize) {
        self.reserve(bytes.saturating_sub(self.allowance).div_ceil(GRANULE)).await;
    }

    async fn reserve(&mut self, granules: usize) {
        let is_less = granules < self.granules;
        for (index, level) in self.levels.iter_mut().enumerate() {
            self.waits = Some((index, granules));
            level.resize(granules, is_less).await;
        }
        self.granules = granules;
        self.waits = None;
    }

    /// [`resize`](Self::resize) that waits for `timeout` at most.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], which says whose memory was used up, when the time is over. No less is then
    /// reserved than before.
    ///
    /// # Cancel safety
    ///
    /// As [`resize`](Self::resize).
    pub async fn resize_within(
        &mut self,
        bytes: usize,
        timeout: Duration,
    ) -> Result<(), MemoryError> {
        let resized = tokio::time::timeout(timeout, self.resize(bytes)).await;
        resized.map_err(|_| self.shortage().unwrap_or(MemoryError::Unavailable))
    }

    /// [`resize`](Self::resize) that does not wait: for what is there already, and would take memory
    /// while it waited for it.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], which says whose memory is used up. No less is then reserved than before.
    pub fn try_resize(&mut self, bytes: usize) -> Result<(), MemoryError> {
        let resized = {
            let resizing = std::pin::pin!(unconstrained(self.resize(bytes)));
            resizing.poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        if resized { Ok(()) } else { Err(self.shortage().unwrap_or(MemoryError::Unavailable)) }
    }

    /// Reserves `bytes` in all where they are within every bound, and never beyond one; nothing is given
    /// back. Does not wait: for what can do with less.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], which says whose memory is used up. As much is then reserved as before.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> Result<(), MemoryError> {
        let granules = bytes.saturating_sub(self.allowance).div_ceil(GRANULE);
        let more = u32::try_from(granules.saturating_sub(self.granules)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        let acquire = |level: &Reserved| {
            let granules = Arc::clone(&level.budget.0.granules);
            granules.try_acquire_many_owned(more).map_err(|_| level.budget.0.shortage)
        };
        let permits = self.levels.iter().map(acquire).collect::<Result<Vec<_>, _>>()?;
        for (level, more) in self.levels.iter_mut().zip(permits) {
            match &mut level.permit {
                Some(permit) => permit.merge(more),
                none => *none = Some(more),
            }
        }
        self.granules = granules;
        Ok(())
    }

    /// How many bytes [`try_grow`](Self::try_grow) can reserve in all at the moment.
    pub(crate) fn attainable(&self) -> usize {
        let available = |level: &Reserved| level.budget.0.granules.available_permits();
        let more = self.levels.iter().map(available).min().unwrap_or(0);
        self.granules.saturating_add(more).saturating_mul(GRANULE).saturating_add(self.allowance)
    }

    /// Moves what is reserved to `share`, another share of the same budget, once it is known whose it
    /// is; waits for `timeout` at most.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when `share` is used up for so long. Everything is then reserved as before.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, everything is reserved as before.
    pub async fn move_to(
        &mut self,
        share: &MemoryBudget,
        timeout: Duration,
    ) -> Result<(), MemoryError> {
        let mut moved = share.reservation().allowance(self.allowance);
        // What is reserved of all stays so: there may not be as much a second time.
        let common = moved.levels.pop_if(|level| {
            self.levels.last().is_some_and(|own| Arc::ptr_eq(&own.budget.0, &level.budget.0))
        });
        let reserved = tokio::time::timeout(timeout, moved.reserve(self.granules)).await;
        reserved.map_err(|_| moved.shortage().unwrap_or(MemoryError::Unavailable))?;
        if common.is_some() {
            moved.levels.extend(self.levels.pop());
        }
        *self = moved;
        Ok(())
    }

    /// Returns `data`, whose memory stays reserved until every part of it is dropped.
    #[must_use]
    pub fn hold(self, data: Bytes) -> Bytes {
        held_with(data, self)
    }

    /// Returns the budget that is used up, if the last [`resize`](Self::resize) was dropped while
    /// it waited. Where there is none of the whole either, it is that: then it is not for the
    /// caller to change.
    #[must_use]
    pub fn shortage(&self) -> Option<MemoryError> {
        let (index, granules) = self.waits?;
        let (own, whole) = self.levels.get(index..)?.split_first()?;
        let short = whole.iter().find(|level| level.lacks(granules)).unwrap_or(own);
        Some(short.budget.0.shortage)
    }
}

impl Reserved {
    /// Whether there are not as many granules at the moment.
    fn lacks(&self, wanted: usize) -> bool {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let level = &self.budget.0;
        self.beyond.is_none()
            && level.granules.available_permits() < wanted.saturating_sub(held)
            && level.beyond.try_lock().is_err()
    }

    /// What went beyond the bound and becomes less comes back within it, if there is room: nobody else
    /// can go beyond as long as it does not.
    async fn resize(&mut self, wanted: usize, is_less: bool) {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted <= held {
            self.beyond = None;
            match &mut self.permit {
                Some(permit) if wanted > 0 => drop(permit.split(held - wanted)),
                permit => *permit = None,
            }
            return;
        }
        let more = u32::try_from(wanted - held).unwrap_or(u32::MAX);
        let level = &self.budget.0;
        let granules = Arc::clone(&level.granules);
        if self.beyond.is_some() {
            if is_less && let Ok(more) = granules.try_acquire_many_owned(more) {
                self.take(more);
                self.beyond = None;
            }
            return;
        }
        tokio::select! {
            biased;
            more = granules.acquire_many_owned(more) => {
                if let Ok(more) = more {
                    self.take(more);
                }
            }
            beyond = Arc::clone(&level.beyond).lock_owned() => self.beyond = Some(beyond),
        }
    }

    fn take(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
    }
}

/// Returns `data` that keeps `guard` until every part of it is dropped.
pub(crate) fn held_with<G: Send + 'static>(data: Bytes, guard: G) -> Bytes {
    struct Guarded<G>(Bytes, G);

    impl<G> AsRef<[u8]> for Guarded<G> {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    Bytes::from_owner(Guarded(data, guard))
}

/// In such steps memory is reserved.
const GRANULE: usize = 4 << 10;
/// How long the answer to work that is done waits for memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How many answers wait so at once, of all callers and of one.
const MAX_WAITING_ANSWERS: usize = 64;
const MAX_WAITING_ANSWERS_PER_CALLER: usize = 8;

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const MIB: usize = 1 << 20;

    async fn waits(reservation: &mut Reservation, bytes: usize) -> bool {
        timeout(Duration::from_millis(20), reservation.resize(bytes)).await.is_err()
    }

    #[tokio::test]
    async fn what_went_beyond_the_bound_comes_back_within_it() {
        let budget = MemoryBudget::new(4 * MIB);
        let mut large = budget.reservation();
        large.try_resize(10 * MIB).expect("one may go beyond");
        let mut other = budget.reservation();
        other.try_resize(4 * MIB).expect("within the bound");
        let mut third = budget.reservation();
        assert!(third.try_resize(10 * MIB).is_err(), "one goes beyond already");
        drop(other);
        large.try_resize(MIB).expect("it is less");
        assert_eq!(budget.available(), 3 * MIB);
        third.try_resize(10 * MIB).expect("none goes beyond any more");
        large.try_resize(MIB / 2).expect("it is less");
        drop((large, third));
        assert_eq!(budget.available(), 4 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_holds_another_waits_for() {
        let budget = MemoryBudget::new(MIB);
        let [mut first, mut second, mut third] =
            [(); 3].map(|()| budget.reservation().allowance(64 << 10));
        let own = 64 << 10;
        assert!(!waits(&mut first, own + (900 << 10)).await);
        assert!(!waits(&mut second, own).await);
        // One may go beyond, as far as it likes, and no other.
        assert!(!waits(&mut second, own + (200 << 10)).await);
        assert!(!waits(&mut second, 16 * MIB).await);
        assert!(waits(&mut third, own + (200 << 10)).await);
        assert!(waits(&mut first, 16 * MIB).await);
        second.resize(0).await;
        assert!(!waits(&mut first, 16 * MIB).await);
        assert!(waits(&mut third, own + (200 << 10)).await);
        drop(first);
        assert!(!waits(&mut third, own + MIB).await);
        assert_eq!(budget.available(), 0);
        third.resize(own + MIB / 2).await;
        assert_eq!(budget.available(), MIB / 2);
        drop(third);
        assert_eq!(budget.available(), MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_never_takes_the_whole() {
        let budget = MemoryBudget::new(MIB);
        let share = budget.share(MIB / 4);
        let (mut first, mut second, mut third) =
            (share.reservation(), share.reservation(), share.reservation());
        assert!(!waits(&mut first, MIB / 4).await);
        assert_eq!((share.available(), budget.available()), (0, MIB * 3 / 4));
        assert!(!waits(&mut second, MIB / 8).await);
        assert!(waits(&mut third, 4096).await);
        assert!(!waits(&mut budget.reservation(), MIB / 2).await);
        drop((first, second));
        assert_eq!((share.available(), budget.available()), (MIB / 4, MIB));
        assert!(!waits(&mut third, 4096).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_says_whose_memory_is_used_up() {
        const WAIT: Duration = Duration::from_secs(5);
        let user = |name: &str| name.parse().expect("a name");
        let budget = MemoryBudget::new(MIB);
        let budgets = CallerBudgets::new(&budget);
        let mut held = Vec::new();
        let mut reserve = async |name| {
            let mut reservation = budgets.of(&user(name)).reservation();
            let reserved = reservation.resize_within(MIB / 2, WAIT).await;
            assert_eq!(reserved.err(), reservation.shortage());
            if reserved.is_ok() {
                held.push(reservation);
            }
            reserved
        };
        // Half of it, and one beyond.
        assert_eq!(reserve("alice").await, Ok(()));
        assert_eq!(reserve("alice").await, Ok(()));
        assert_eq!(reserve("alice").await, Err(MemoryError::CallerLimit));
        // One beyond the whole.
        assert_eq!(reserve("bob").await, Ok(()));
        assert_eq!(reserve("carol").await, Err(MemoryError::Unavailable));
        // Nor would it help alice if hers were free.
        assert_eq!(reserve("alice").await, Err(MemoryError::Unavailable));
        // The same at once.
        let mut late = budgets.of(&user("dora")).reservation();
        assert_eq!(late.try_resize(4096), Err(MemoryError::Unavailable));
        held.truncate(2);
        assert_eq!(late.try_resize(0), Ok(()));
        let mut own = budgets.of(&user("alice")).reservation();
        assert_eq!(own.try_resize(4096), Err(MemoryError::CallerLimit));
        held.clear();
        assert_eq!(own.try_resize(MIB / 4), Ok(()));
        assert_eq!(budget.available(), MIB * 3 / 4);
        drop(own);
        assert_eq!(budget.available(), MIB);
        assert_eq!(budgets.of(&user("alice")).available(), MIB / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_moved_to_another_share_is_reserved_once_of_all() {
        let budget = MemoryBudget::new(MIB);
        let (first, second) = (budget.share(MIB), budget.share(MIB / 2));
        let mut reservation = first.reservation().allowance(4096);
        reservation.resize(MIB).await;
        // All that there is, and all that goes beyond a share.
        reservation.move_to(&second, Duration::from_secs(5)).await.expect("it goes beyond");
        assert_eq!((first.available(), budget.available()), (MIB, 4096));
        let mut refused = first.reservation();
        refused.resize(4096).await;
        let moved = refused.move_to(&second, Duration::from_secs(5)).await;
        assert_eq!(moved, Ok(()), "there is memory of that share");
        assert_eq!(second.available(), MIB / 2 - 4096);
        refused.resize(0).await;
        reservation.resize(8192).await;
        // What is left of it comes back within the share.
        assert_eq!((second.available(), budget.available()), (MIB / 2 - 4096, MIB - 4096));
        let mut most = second.reservation();
        most.resize(MIB / 2 - 4096).await;
        let mut beyond = second.reservation();
        beyond.resize(MIB / 8).await;
        let mut late = first.reservation();
        late.resize(MIB / 4).await;
        let moved = late.move_to(&second, Duration::from_secs(5)).await;
        assert_eq!(moved, Err(MemoryError::Unavailable));
        assert_eq!(first.available(), MIB * 3 / 4);
        drop((reservation, most, beyond, late));
        assert_eq!((first.available(), second.available()), (MIB, MIB / 2));
        assert_eq!(budget.available(), MIB);
    }
}
