//! Memory that the connections of a server share for what they read and for answers that wait.

mod share;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::coop::unconstrained;

use crate::error::ErrorKind;
use crate::quota::CallerPlaces;
use crate::quota::budget::share::{Callers, FairShare};
use crate::quota::fair_share::Shortage;
use crate::quota::heap;
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
    bound: Bound,
    beyond: Arc<Mutex<()>>,
    /// The budget that this one is a share of.
    whole: Option<MemoryBudget>,
    /// The shares of callers in the memory of the engine that it is part of, if it is.
    engine: Option<CallerBudgets>,
    /// It is all the memory of an engine.
    is_engines: bool,
    /// Of a caller's share: what the caller has of all memory of the engine, whatever it is divided into.
    of_engine: Option<MemoryBudget>,
    /// What it means that it is used up.
    shortage: MemoryError,
}

#[derive(Debug)]
enum Bound {
    /// So many granules.
    Fixed(Arc<Semaphore>),
    /// What a caller may have of the granules of a budget.
    Fair(FairShare),
}

impl Level {
    fn fixed(bytes: usize, whole: Option<MemoryBudget>, engine: Option<CallerBudgets>) -> Self {
        let granules = bytes.div_ceil(GRANULE).min(Semaphore::MAX_PERMITS);
        let bound = Bound::Fixed(Arc::new(Semaphore::new(granules)));
        let (beyond, shortage) = (Arc::default(), MemoryError::Unavailable);
        Self { bytes, bound, beyond, whole, engine, is_engines: false, of_engine: None, shortage }
    }
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
    /// Returns the kind of the refusal: [`ErrorKind::CallerLimit`] or [`ErrorKind::Unavailable`].
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

    /// Returns the time after which to try again, 1 s.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// The shares that the callers of a server have in its [`MemoryBudget`]: each may hold half of what the
/// others leave, so that what some of them send and never complete leaves memory to the others. One
/// caller alone has half of it; two who want as much as they can have at least a third each, and so on.
/// A caller who holds more than that when others come keeps it, and gets no more. Cheap to clone.
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
/// assert_eq!(budgets.of(&bob).available(), 78 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CallerBudgets {
    whole: MemoryBudget,
    /// Answers that wait for memory.
    waiting: CallerPlaces,
    levels: Arc<std::sync::Mutex<HashMap<UserName, Weak<Level>>>>,
    callers: Arc<Callers>,
}

impl CallerBudgets {
    /// Makes shares in `whole`, of which nothing is reserved yet.
    #[must_use]
    pub fn new(whole: &MemoryBudget) -> Self {
        let waiting = CallerPlaces::bounded(MAX_WAITING_ANSWERS, MAX_WAITING_ANSWERS_PER_CALLER);
        let callers = Arc::new(Callers::new(whole.0.bytes.div_ceil(GRANULE)));
        Self { whole: whole.clone(), waiting, levels: Arc::default(), callers }
    }

    /// Returns the share of `user`, whom a caller [is accounted to](crate::Caller::accounted_user);
    /// forgotten when nothing of it is reserved.
    #[must_use]
    pub fn of(&self, user: &UserName) -> MemoryBudget {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(level) = levels.get(user).and_then(Weak::upgrade) {
            return MemoryBudget(level);
        }
        levels.retain(|_, level| level.strong_count() > 0);
        let level = Arc::new(Level {
            bytes: self.whole.0.bytes / 2,
            bound: Bound::Fair(FairShare::new(user, &self.callers)),
            beyond: Arc::default(),
            whole: Some(self.whole.clone()),
            engine: None,
            of_engine: self.whole.0.engine.as_ref().map(|engine| engine.of(user)),
            is_engines: false,
            shortage: MemoryError::CallerLimit,
        });
        levels.insert(user.clone(), Arc::downgrade(&level));
        MemoryBudget(level)
    }

    /// Reserves memory of `user`'s share for an answer of `bytes` that is in memory already. An answer
    /// to work that was done waits for up to 5 s, so that it is not lost: at most 8 of a caller and 64
    /// of all at once, since what waits is not counted. Any other is refused at once.
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

/// All memory that an engine and its servers hold for what callers send, are sent and have kept for a
/// while: whatever the budgets that it is divided into, together they hold no more, and a caller no more
/// of them all than half of what the others leave. Cheap to clone: clones share one bound.
#[derive(Debug, Clone)]
pub(crate) struct EngineMemory(CallerBudgets);

impl EngineMemory {
    pub(crate) fn new(bytes: usize) -> Self {
        heap::keep_small();
        let level = Level { is_engines: true, ..Level::fixed(bytes, None, None) };
        Self(CallerBudgets::new(&MemoryBudget(Arc::new(level))))
    }

    /// A budget of at most `bytes` of it.
    pub(crate) fn budget(&self, bytes: usize) -> MemoryBudget {
        MemoryBudget::level(bytes, Some(self.0.whole.clone()), Some(self.0.clone()))
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
    /// Of a fixed bound, as far as they are within it.
    permit: Option<OwnedSemaphorePermit>,
    /// Granules of a caller's share, within it or not.
    counted: usize,
    /// So many of them were reserved before it went beyond the share.
    within: usize,
    beyond: Option<OwnedMutexGuard<()>>,
}

impl MemoryBudget {
    /// Makes a budget of `bytes`, rounded up to whole 4 KiB.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self::level(bytes, None, None)
    }

    /// A budget of at most `bytes` that is part of this one: what is reserved of it is reserved of
    /// both. For clients that have not shown credentials, so that they cannot take all of it.
    #[must_use]
    pub fn share(&self, bytes: usize) -> Self {
        Self::level(bytes, Some(self.clone()), self.0.engine.clone())
    }

    fn level(bytes: usize, whole: Option<Self>, engine: Option<CallerBudgets>) -> Self {
        Self(Arc::new(Level::fixed(bytes, whole, engine)))
    }

    /// A reservation that holds nothing yet.
    #[must_use]
    pub fn reservation(&self) -> Reservation {
        let budgets = std::iter::successors(Some(self), |budget| budget.0.whole.as_ref());
        let mut levels: Vec<_> = budgets.cloned().map(Reserved::new).collect();
        if let Some(share) = &self.0.of_engine {
            // Before the engine's own, which is the last.
            levels.insert(levels.len() - 1, Reserved::new(share.clone()));
        }
        Reservation { levels, allowance: 0, granules: 0, waits: None }
    }

    /// Returns the number of bytes that are not reserved at the moment; of a caller's share, the number
    /// that may be reserved still.
    #[must_use]
    pub fn available(&self) -> usize {
        self.available_granules() * GRANULE
    }

    fn available_granules(&self) -> usize {
        match &self.0.bound {
            Bound::Fixed(granules) => granules.available_permits(),
            Bound::Fair(share) => {
                let shares = share.callers.lock();
                shares.limit(&share.user).saturating_sub(shares.held(&share.user))
            }
        }
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

    /// Resizes as [`resize`](Self::resize) does, and waits for `timeout` at most.
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

    /// Resizes as [`resize`](Self::resize) does, without waiting: for data that is in memory already,
    /// and would take memory while it waited.
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

    /// Reserves `bytes` in all where they are within every bound, and never beyond one; nothing is
    /// given back. Does not wait: for uses that also work with less.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], which says whose memory is used up. As much is then reserved as before.
    pub fn try_grow(&mut self, bytes: usize) -> Result<(), MemoryError> {
        let granules = bytes.saturating_sub(self.allowance).div_ceil(GRANULE);
        let Some(more) = granules.checked_sub(self.granules).filter(|more| *more > 0) else {
            return Ok(());
        };
        for index in 0..self.levels.len() {
            if let Err(shortage) = self.levels[index].try_grow(more) {
                self.levels[..index].iter_mut().for_each(|level| level.give_back(more));
                return Err(shortage);
            }
        }
        self.granules = granules;
        Ok(())
    }

    /// How many bytes [`try_grow`](Self::try_grow) can reserve in all at the moment.
    pub(crate) fn attainable(&self) -> usize {
        let available = |level: &Reserved| level.budget.available_granules();
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
        // What is reserved of what both are part of stays so: there may not be as much a second time.
        let is_of =
            |budget: &MemoryBudget, level: &Reserved| Arc::ptr_eq(&level.budget.0, &budget.0);
        let order: Vec<_> = moved.levels.iter().map(|level| level.budget.clone()).collect();
        moved.levels.retain(|level| !self.levels.iter().any(|own| is_of(&level.budget, own)));
        let reserved = tokio::time::timeout(timeout, moved.reserve(self.granules)).await;
        reserved.map_err(|_| moved.shortage().unwrap_or(MemoryError::Unavailable))?;
        moved.levels.append(&mut self.levels);
        let place = |level: &Reserved| order.iter().position(|budget| is_of(budget, level));
        moved.levels.retain(|level| place(level).is_some());
        moved.levels.sort_by_key(place);
        *self = moved;
        Ok(())
    }

    /// Returns `data`, whose memory stays reserved until every part of it is dropped.
    #[must_use]
    pub fn hold(self, data: Bytes) -> Bytes {
        held_with(data, self)
    }

    /// Returns why there was no memory, if the last [`resize`](Self::resize) was dropped while it waited:
    /// [`MemoryError::CallerLimit`] if only the caller's own share is used up, so that the caller can free
    /// memory, and [`MemoryError::Unavailable`] if the whole budget is used up too, or if others hold what the
    /// caller lacks.
    #[must_use]
    pub fn shortage(&self) -> Option<MemoryError> {
        let (index, granules) = self.waits?;
        let (own, whole) = self.levels.get(index..)?.split_first()?;
        let short = whole.iter().find(|level| level.lacks(granules));
        Some(short.map_or_else(|| own.shortage(granules), |level| level.budget.0.shortage))
    }
}

impl Reserved {
    fn new(budget: MemoryBudget) -> Self {
        Self { budget, permit: None, counted: 0, within: 0, beyond: None }
    }

    /// How many granules are reserved, of a fixed bound without those beyond it.
    fn held(&self) -> usize {
        self.permit.as_ref().map_or(self.counted, OwnedSemaphorePermit::num_permits)
    }

    /// Whether there are not as many granules of a fixed bound at the moment.
    fn lacks(&self, wanted: usize) -> bool {
        let level = &self.budget.0;
        self.beyond.is_none()
            && self.budget.available_granules() < wanted.saturating_sub(self.held())
            && level.beyond.try_lock().is_err()
    }

    /// Why `wanted` granules are not there.
    fn shortage(&self, wanted: usize) -> MemoryError {
        match &self.budget.0.bound {
            Bound::Fixed(_) => self.budget.0.shortage,
            Bound::Fair(share) => {
                let shares = share.callers.lock();
                match shares.check(&share.user, self.counted, wanted) {
                    Err(Shortage::OfAll) => MemoryError::Unavailable,
                    Err(Shortage::OfCaller) | Ok(()) => MemoryError::CallerLimit,
                }
            }
        }
    }

    async fn resize(&mut self, wanted: usize, is_less: bool) {
        let level = Arc::clone(&self.budget.0);
        match &level.bound {
            Bound::Fixed(granules) => self.resize_fixed(granules, wanted, is_less).await,
            Bound::Fair(share) => self.resize_share(share, wanted).await,
        }
    }

    /// What went beyond the bound and becomes less comes back within it, if there is room: nobody else
    /// can go beyond as long as it does not.
    async fn resize_fixed(&mut self, granules: &Arc<Semaphore>, wanted: usize, is_less: bool) {
        let held = self.held();
        if wanted <= held {
            self.beyond = None;
            self.give_back(held - wanted);
            return;
        }
        let more = u32::try_from(wanted - held).unwrap_or(u32::MAX);
        let granules = Arc::clone(granules);
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
            beyond = Arc::clone(&self.budget.0.beyond).lock_owned() => self.beyond = Some(beyond),
        }
    }

    /// The same of a caller's share.
    async fn resize_share(&mut self, share: &FairShare, wanted: usize) {
        if wanted <= self.counted || self.beyond.is_some() {
            share.callers.replace(&share.user, self.counted, wanted);
            self.counted = wanted;
            if wanted <= self.within || share.callers.is_within(&share.user) {
                self.beyond = None;
            }
            return;
        }
        tokio::select! {
            biased;
            () = share.grown(self.counted, wanted) => {}
            beyond = Arc::clone(&self.budget.0.beyond).lock_owned() => {
                share.callers.replace(&share.user, self.counted, wanted);
                self.beyond = Some(beyond);
                self.within = self.counted;
            }
        }
        self.counted = wanted;
    }

    /// Reserves so many granules more within the bound, without waiting.
    fn try_grow(&mut self, more: usize) -> Result<(), MemoryError> {
        let level = Arc::clone(&self.budget.0);
        match &level.bound {
            Bound::Fixed(granules) => {
                let more = u32::try_from(more).unwrap_or(u32::MAX);
                let more = Arc::clone(granules).try_acquire_many_owned(more);
                self.take(more.map_err(|_| level.shortage)?);
            }
            Bound::Fair(share) => {
                let wanted = self.counted.saturating_add(more);
                if !share.try_grow(self.counted, wanted) {
                    return Err(self.shortage(wanted));
                }
                self.counted = wanted;
            }
        }
        Ok(())
    }

    fn give_back(&mut self, granules: usize) {
        if let Bound::Fair(share) = &self.budget.0.bound {
            let less = self.counted.saturating_sub(granules);
            share.callers.replace(&share.user, self.counted, less);
            self.counted = less;
            return;
        }
        match &mut self.permit {
            Some(permit) if permit.num_permits() > granules => drop(permit.split(granules)),
            permit => *permit = None,
        }
    }

    fn take(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.levels.last().is_some_and(|level| level.budget.0.is_engines) {
            heap::note_freed(self.granules * GRANULE);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.give_back(self.counted);
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
mod tests;
