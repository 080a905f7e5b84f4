//! Work on much data, which takes time: done apart from the workers of the runtime, by permits that
//! callers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::blocking::blocking;
use crate::error::ErrorKind;
use crate::user_name::UserName;

/// Bound on the work on large requests and answers that is done at once, such as parsing a body of some
/// MiB: two pieces of it in all, and one for each caller. It runs on blocking threads, since on a
/// worker of the runtime it would delay all tasks of that worker. Got from
/// [`Engine::large_work`](crate::Engine::large_work), so that all servers of an engine share it; cheap
/// to clone.
///
/// A list that a caller asks for is put together under a permit, too, which is held until the memory of the
/// answer is reserved: however many lists are asked for at once, those that wait have taken nothing yet.
///
/// Work on less than [`MIN_BYTES`](Self::MIN_BYTES) is done at once, and takes no permit. Callers that
/// wait are served in turns, one piece of work each: however much one caller sends, another waits for
/// no more than one piece of that work. A wait is over after 30 s.
///
/// ```
/// use splengine_core::quota::LargeWork;
/// use splengine_core::{Caller, Engine, LocalExecutor};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let text = "word ".repeat(1 << 20);
/// let permit = engine.large_work().permit(alice.accounted_user(), text.len()).await?;
/// let words = permit.run(move || text.split_ascii_whitespace().count()).await?;
/// assert_eq!(words, 1 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LargeWork(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: Arc<Semaphore>,
    callers: Mutex<HashMap<UserName, Weak<Semaphore>>>,
}

/// Right of one caller to do [large work](LargeWork), until it and its clones are dropped. Work that was
/// begun keeps it to its end.
#[derive(Debug, Clone)]
pub struct LargeWorkPermit(Option<Arc<Held>>);

#[derive(Debug)]
struct Held {
    work: LargeWork,
    _own: OwnedSemaphorePermit,
}

/// Large work that the engine itself does for a caller: under the permit that is held for what they ask
/// for, or else each piece under one of its own. Waits for as long as it takes: the memory of what waits is
/// bounded where it is read. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct CallerLargeWork {
    work: LargeWork,
    user: UserName,
    held: Option<Arc<Held>>,
}

/// Reason for which large work was not done: it did not get its turn in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LargeWorkError {
    /// Other large requests of the same caller were worked at for as long as this one may wait.
    #[error(
        "other large requests of yours are being worked at, of which one caller may have one at a time; \
         try again in a second"
    )]
    CallerLimit,
    /// Large requests of other callers were.
    #[error("the server works at other large requests; try again in a second")]
    Unavailable,
}

impl LargeWorkError {
    /// Returns the kind of refusal: [`ErrorKind::CallerLimit`] or [`ErrorKind::Unavailable`].
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::CallerLimit => ErrorKind::CallerLimit,
            Self::Unavailable => ErrorKind::Unavailable,
        }
    }

    /// Returns the time after which to try again, 1 s.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        Duration::from_secs(1)
    }
}

impl LargeWork {
    /// Number of bytes, 64 KiB, from which on work is done apart from the runtime's workers. On fewer it
    /// takes less than a millisecond.
    pub const MIN_BYTES: usize = 64 << 10;
    /// Number of bytes, 1 MiB, that the names and labels on one page of a list have at most; a single
    /// entry with more is a page of its own. The permit for a list is for this number.
    pub const MAX_PAGE_BYTES: usize = 1 << 20;

    /// Drops `value`, which takes about `bytes` of memory, on a blocking thread if that takes time. It waits
    /// for no permit: memory that is not counted any more must not gather.
    pub(crate) fn free<T: Send + 'static>(bytes: usize, value: T) {
        if bytes >= Self::MIN_BYTES {
            tokio::task::spawn_blocking(move || drop(value));
        }
    }

    pub(crate) fn new() -> Self {
        let all = Arc::new(Semaphore::new(MAX_PERMITS));
        Self(Arc::new(Shared { all, callers: Mutex::default() }))
    }

    /// Waits for the right of `user`, whom a caller [is accounted to](crate::Caller::accounted_user),
    /// to work on `bytes`. Work on less than [`MIN_BYTES`](Self::MIN_BYTES) needs no permit.
    ///
    /// A task that holds a permit and asks for another one of the same user waits for itself.
    ///
    /// # Errors
    ///
    /// [`LargeWorkError::CallerLimit`] after 30 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place among those that wait.
    pub async fn permit(
        &self,
        user: &UserName,
        bytes: usize,
    ) -> Result<LargeWorkPermit, LargeWorkError> {
        if bytes < Self::MIN_BYTES {
            return Ok(LargeWorkPermit(None));
        }
        let held = timeout(WAIT_TIMEOUT, self.hold(user)).await;
        let held = held.map_err(|_| LargeWorkError::CallerLimit)?;
        Ok(LargeWorkPermit(Some(held)))
    }

    /// The permit that is held for work on `bytes` of `user`, if one is, or else one of their own.
    pub(crate) async fn permit_or_own(
        &self,
        held: Option<LargeWorkPermit>,
        user: &UserName,
        bytes: usize,
    ) -> Result<LargeWorkPermit, LargeWorkError> {
        match held.filter(|permit| permit.0.is_some()) {
            Some(permit) => Ok(permit),
            None => self.permit(user, bytes).await,
        }
    }

    /// The large work of a caller who is accounted to `user`, under a permit that is `held` for it, if one
    /// is.
    pub(crate) fn of(&self, user: &UserName, held: Option<LargeWorkPermit>) -> CallerLargeWork {
        let held = held.and_then(|permit| permit.0);
        CallerLargeWork { work: self.clone(), user: user.clone(), held }
    }

    async fn hold(&self, user: &UserName) -> Arc<Held> {
        let own = self.of_caller(user).acquire_owned().await.expect("nobody closes it");
        Arc::new(Held { work: self.clone(), _own: own })
    }

    fn of_caller(&self, user: &UserName) -> Arc<Semaphore> {
        let mut callers = self.0.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = callers.get(user).and_then(Weak::upgrade) {
            return own;
        }
        callers.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(1));
        callers.insert(user.clone(), Arc::downgrade(&own));
        own
    }
}

impl LargeWorkPermit {
    /// Does `work`: on a blocking thread once it is its turn, or at once where what it is about is
    /// [small](LargeWork::MIN_BYTES). What is dropped in it is dropped there, too.
    ///
    /// # Errors
    ///
    /// [`LargeWorkError::Unavailable`] when two pieces of others' work take 30 s.
    ///
    /// # Panics
    ///
    /// When `work` does.
    ///
    /// # Cancel safety
    ///
    /// Work that was begun runs to its end even if the future is dropped, and keeps the permit until
    /// then.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LargeWorkError> {
        let Some(held) = &self.0 else { return Ok(work()) };
        let turn = timeout(WAIT_TIMEOUT, Arc::clone(held).turn()).await;
        let turn = turn.map_err(|_| LargeWorkError::Unavailable)?;
        Ok(turn.run(work).await)
    }
}

impl CallerLargeWork {
    /// Does `work` on `bytes`: on a blocking thread once it is its turn if they are many, else at once. Work
    /// that was begun on a blocking thread is ended also when the future is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes < LargeWork::MIN_BYTES {
            return work();
        }
        let held = match &self.held {
            Some(held) => Arc::clone(held),
            None => self.work.hold(&self.user).await,
        };
        held.turn().await.run(work).await
    }
}

/// The turn of one piece of work.
struct Turn {
    _held: Arc<Held>,
    _of_all: OwnedSemaphorePermit,
}

impl Held {
    async fn turn(self: Arc<Self>) -> Turn {
        let all = Arc::clone(&self.work.0.all);
        Turn { _held: self, _of_all: all.acquire_owned().await.expect("nobody closes it") }
    }
}

impl Turn {
    async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        blocking(move || {
            let _turn = self;
            work()
        })
        .await
    }
}

/// Pieces of work that are done at once, of all callers.
const MAX_PERMITS: usize = 2;
/// How long a permit is waited for.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LARGE: usize = LargeWork::MIN_BYTES;
    const SHORT: Duration = Duration::from_millis(20);

    fn user(name: &str) -> UserName {
        name.parse().expect("a name")
    }

    /// Work of `user` that goes on until the sender is dropped, and whose client does not wait for it.
    async fn busy(work: &LargeWork, user: &UserName) -> mpsc::Sender<()> {
        let permit = work.permit(user, LARGE).await.expect("it is their turn");
        let (end, ended) = mpsc::channel::<()>();
        let done = permit.run(move || ended.recv().is_err());
        assert!(timeout(SHORT, done).await.is_err());
        end
    }

    #[tokio::test]
    async fn of_a_caller_one_is_worked_at_and_others_wait_for_no_more_than_that() {
        let work = LargeWork::new();
        let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
        let end = busy(&work, &alice).await;
        // The client is gone, the work is not.
        assert!(timeout(SHORT, work.permit(&alice, LARGE)).await.is_err());
        for _ in 0..8 {
            let (work, alice) = (work.clone(), alice.clone());
            tokio::spawn(async move { work.permit(&alice, LARGE).await.map(drop) });
        }
        // What is small does not wait, nor does another caller.
        let small = work.permit(&alice, LARGE - 1).await.expect("at once");
        assert_eq!(small.run(|| 1).await, Ok(1));
        let of_bob = work.permit(&bob, LARGE).await.expect("at once");
        assert_eq!(of_bob.run(|| 2).await, Ok(2));
        // In all two.
        let end_bob = {
            drop(of_bob);
            busy(&work, &bob).await
        };
        let of_carol = work.permit(&carol, LARGE).await.expect("at once");
        assert!(timeout(SHORT, of_carol.run(|| 3)).await.is_err());
        drop(end_bob);
        assert_eq!(of_carol.run(|| 3).await, Ok(3));
        drop(end);
    }

    #[tokio::test]
    async fn what_the_engine_does_for_a_caller_takes_their_turn() {
        let work = LargeWork::new();
        let (alice, bob) = (user("alice"), user("bob"));
        let permit = work.permit(&alice, LARGE).await.expect("at once");
        // Under the same permit it does not wait for itself; by itself it waits for that.
        assert_eq!(work.of(&alice, Some(permit.clone())).run(LARGE, || 1).await, 1);
        let own = work.of(&alice, None);
        assert!(timeout(SHORT, own.run(LARGE, || 2)).await.is_err());
        assert_eq!(own.run(LARGE - 1, || 2).await, 2);
        assert_eq!(work.of(&bob, None).run(LARGE, || 3).await, 3);
        // A permit for what is small is none.
        let small = work.permit(&alice, LARGE - 1).await.expect("at once");
        assert!(timeout(SHORT, work.of(&alice, Some(small)).run(LARGE, || 2)).await.is_err());
        drop(permit);
        assert_eq!(own.run(LARGE, || 2).await, 2);
        // In all there are two turns, for this as well.
        let ends = (busy(&work, &alice).await, busy(&work, &bob).await);
        let of_carol = work.of(&user("carol"), None);
        assert!(timeout(SHORT, of_carol.run(LARGE, || 4)).await.is_err());
        drop(ends);
        assert_eq!(of_carol.run(LARGE, || 4).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_bounded() {
        let work = LargeWork::new();
        let (alice, bob) = (user("alice"), user("bob"));
        let held = work.permit(&alice, LARGE).await.expect("at once");
        let refused = work.permit(&alice, LARGE).await;
        assert_eq!(refused.err(), Some(LargeWorkError::CallerLimit));
        let all = Arc::clone(&work.0.all).acquire_many_owned(2).await.expect("it is open");
        let of_bob = work.permit(&bob, LARGE).await.expect("at once");
        assert_eq!(of_bob.run(|| ()).await, Err(LargeWorkError::Unavailable));
        drop((held, all, of_bob));
        let again = work.permit(&alice, LARGE).await.expect("at once");
        assert_eq!(work.0.callers.lock().expect("unpoisoned").len(), 1, "bob is forgotten");
        drop(again);
    }
}
