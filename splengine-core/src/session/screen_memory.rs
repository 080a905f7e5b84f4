//! Bound on the memory of all sessions' screens.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::ids::SessionId;
use crate::quota::{FairShares, Shortage};
use crate::screen::{HistoryMemory, Screen};
use crate::session::SessionError;
use crate::terminal::Size;
use crate::user_name::UserName;

/// Bound in bytes on what the screens of all sessions take together, beyond the first
/// [bytes](FREE_BYTES) of each session that runs. Nothing waits at the bound. Cheap to clone: clones
/// share one bound.
///
/// A caller may have half of what the others leave: one alone gets half of all, two a third each, and
/// so on. Lines above a screen are reserved within a third of that alone, so that they leave memory to a
/// screen that comes later; where there is no memory, those of sessions that have ended go first.
#[derive(Debug, Clone)]
pub(crate) struct ScreenBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    held: Mutex<FairShares>,
    /// Sessions that have ended, from the oldest, whose screens have lines above them.
    ended: Mutex<VecDeque<Weak<dyn EndedSession>>>,
}

/// Session that has ended, whose screen may have lines above it.
pub(crate) trait EndedSession: fmt::Debug + Send + Sync {
    fn id(&self) -> &SessionId;

    fn user(&self) -> &UserName;

    /// Removes the lines above the screen, unless there are none or a task reads the screen. Returns
    /// whether there were some.
    fn try_remove_history(&self) -> bool;
}

/// Memory of one screen, given back when dropped.
#[derive(Debug)]
pub(crate) struct ScreenMemory {
    budget: ScreenBudget,
    user: UserName,
    parts: Mutex<Parts>,
}

#[derive(Debug, Clone, Copy)]
struct Parts {
    /// Of the cells that are shown.
    shown: usize,
    /// Of the lines above them.
    history: usize,
    /// So many of these bytes are not counted.
    free: usize,
}

impl Parts {
    fn counted(self) -> usize {
        (self.shown + self.history).saturating_sub(self.free)
    }
}

/// What memory is reserved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Shown,
    History,
    /// What is there already.
    Present,
}

/// Bound that a screen would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScreenShortage {
    /// What this caller may have at the moment.
    Caller { max_bytes: usize },
    /// What all may have.
    All { max_bytes: usize },
}

impl From<ScreenShortage> for SessionError {
    fn from(shortage: ScreenShortage) -> Self {
        match shortage {
            ScreenShortage::Caller { max_bytes } => Self::CallerScreens { limit: max_bytes },
            ScreenShortage::All { max_bytes } => Self::ScreensFull { limit: max_bytes },
        }
    }
}

impl ScreenBudget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let held = Mutex::new(FairShares::new(max_bytes));
        Self(Arc::new(Shared { held, ended: Mutex::default() }))
    }

    /// Reserves memory for a screen of `size` of a session of `user`.
    pub(crate) fn reserve(
        &self,
        user: &UserName,
        size: Size,
    ) -> Result<Arc<ScreenMemory>, ScreenShortage> {
        let memory = self.empty(user);
        memory.change(Purpose::Shown, |parts| parts.shown = shown_bytes(size))?;
        Ok(memory)
    }

    /// The same for a session that runs already, whatever others have.
    pub(crate) fn reserve_always(&self, user: &UserName, size: Size) -> Arc<ScreenMemory> {
        let memory = self.empty(user);
        let _ = memory.change(Purpose::Present, |parts| parts.shown = shown_bytes(size));
        memory
    }

    fn empty(&self, user: &UserName) -> Arc<ScreenMemory> {
        let parts = Mutex::new(Parts { shown: 0, history: 0, free: FREE_BYTES });
        Arc::new(ScreenMemory { budget: self.clone(), user: user.clone(), parts })
    }

    fn change(
        &self,
        user: &UserName,
        from: usize,
        to: usize,
        purpose: Purpose,
    ) -> Result<(), ScreenShortage> {
        let mut held = self.held();
        if purpose != Purpose::Present {
            check(&held, user, from, to, purpose)?;
        }
        held.replace(user, from, to);
        Ok(())
    }

    /// Which of the sessions that have `ended`, from the oldest on, are to be forgotten so that there is
    /// memory for a screen of `size` of `user`: those of `user`, and where these are not enough, those of
    /// callers who hold more than `user` would. None where all of them would not be enough.
    pub(crate) fn obstacles<T: Clone>(
        &self,
        user: &UserName,
        size: Size,
        ended: Vec<T>,
        memory_of: impl Fn(&T) -> &ScreenMemory,
    ) -> Vec<T> {
        let with_bytes = |session: T| (memory_of(&session).counted(), session);
        let user_of = |session: &T| memory_of(session).user.clone();
        let (mut found, others): (Vec<_>, Vec<_>) =
            ended.into_iter().map(with_bytes).partition(|(_, session)| user_of(session) == *user);
        let sum = |all: &[(usize, T)]| all.iter().map(|(bytes, _)| bytes).sum();
        // No session is dropped meanwhile, which gives memory back.
        let held = self.held();
        let wanted = held.held(user).saturating_sub(sum(&found)) + counted_bytes(size);
        if wanted > held.limit(user) {
            let has_more =
                others.iter().filter(|(_, session)| held.held(&user_of(session)) > wanted);
            let has_more: Vec<_> = has_more.cloned().collect();
            let left = held.left_by_others(user).saturating_add(sum(&has_more)).min(held.max());
            drop(held);
            if wanted > left / 2 {
                return Vec::new();
            }
            found.extend(has_more);
        }
        found.into_iter().map(|(_, session)| session).collect()
    }

    /// Removes the lines above the screen of a session that has ended, the oldest first: one of `user`,
    /// or of anybody if `all` are short. Returns whether there was one.
    fn shorten_one(&self, user: &UserName, all: bool) -> bool {
        let found: Vec<Arc<dyn EndedSession>> =
            self.ended().iter().filter_map(Weak::upgrade).collect();
        let theirs = found.iter().filter(|ended| all || ended.user() == user);
        let Some(shortened) = theirs.into_iter().find(|ended| ended.try_remove_history()) else {
            return false;
        };
        tracing::info!(session = %shortened.id(), "removed the lines above the screen of an ended session");
        self.ended().retain(|ended| !std::ptr::addr_eq(ended.as_ptr(), Arc::as_ptr(shortened)));
        true
    }

    fn held(&self) -> MutexGuard<'_, FairShares> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<Weak<dyn EndedSession>>> {
        self.0.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ScreenMemory {
    /// Reserves memory for a screen of this size, if it is larger. Where there is none, everything stays
    /// reserved as it was.
    pub(crate) fn grow_to(&self, size: Size) -> Result<(), ScreenShortage> {
        let bytes = shown_bytes(size);
        self.change(Purpose::Shown, |parts| parts.shown = parts.shown.max(bytes))
    }

    /// Gives back what is more than screens of these sizes need: the one that is shown, and the one that
    /// it is about to have.
    pub(crate) fn shrink_to(&self, sizes: [Size; 2]) {
        let bytes = sizes.map(shown_bytes).into_iter().max().unwrap_or_default();
        let _ = self.change(Purpose::Present, |parts| parts.shown = parts.shown.min(bytes));
    }

    /// Notes that the lines above the screen of a session that has ended may go for others.
    pub(crate) fn note_ended(&self, session: Weak<dyn EndedSession>) {
        let mut ended = self.budget.ended();
        ended.retain(|ended| ended.strong_count() > 0);
        ended.push_back(session);
    }

    /// Counts all of `screen`, whose session has ended, as what it takes now. The lines above it go if
    /// there is no memory for them.
    pub(crate) fn end(&self, screen: &mut Screen) {
        let shown = screen.shrink();
        let ended = |parts: &mut Parts| (parts.shown, parts.free) = (shown, 0);
        if self.change(Purpose::History, ended).is_err() {
            screen.remove_history();
            let _ = self.change(Purpose::Present, ended);
        }
    }

    /// Bytes that are counted.
    pub(crate) fn counted(&self) -> usize {
        self.parts().counted()
    }

    fn change(&self, purpose: Purpose, change: impl Fn(&mut Parts)) -> Result<(), ScreenShortage> {
        loop {
            let shortage = {
                let mut parts = self.parts();
                let mut changed = *parts;
                change(&mut changed);
                let (from, to) = (parts.counted(), changed.counted());
                match self.budget.change(&self.user, from, to, purpose) {
                    Ok(()) => {
                        *parts = changed;
                        return Ok(());
                    }
                    Err(shortage) => shortage,
                }
            };
            let all = matches!(shortage, ScreenShortage::All { .. });
            if !self.budget.shorten_one(&self.user, all) {
                return Err(shortage);
            }
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HistoryMemory for ScreenMemory {
    fn reserve(&self, bytes: usize) -> bool {
        self.change(Purpose::History, |parts| parts.history += bytes).is_ok()
    }

    fn release(&self, bytes: usize) {
        let less = |parts: &mut Parts| parts.history = parts.history.saturating_sub(bytes);
        let _ = self.change(Purpose::Present, less);
    }
}

impl Drop for ScreenMemory {
    fn drop(&mut self) {
        let _ = self.change(Purpose::Present, |parts| {
            (parts.shown, parts.history) = (0, 0);
        });
    }
}

/// Whether `user` may have a screen of `to` bytes instead of `from`.
fn check(
    held: &FairShares,
    user: &UserName,
    from: usize,
    to: usize,
    purpose: Purpose,
) -> Result<(), ScreenShortage> {
    let shortage = match held.check(user, from, to) {
        Ok(()) if purpose == Purpose::History && to > from => {
            let own = held.held(user).saturating_sub(from);
            let limit = held.left_by_others(user) / 3;
            (own.saturating_add(to) > limit).then_some(if to <= limit {
                Shortage::OfCaller
            } else {
                Shortage::OfAll
            })
        }
        checked => checked.err(),
    };
    match shortage {
        None => Ok(()),
        Some(Shortage::OfCaller) => {
            let limit = held.limit(user);
            // Nobody else's end would help a screen that is larger than one caller's part.
            let max_bytes = if to <= limit { limit } else { held.max() / 2 };
            Err(ScreenShortage::Caller { max_bytes })
        }
        Some(Shortage::OfAll) => Err(ScreenShortage::All { max_bytes: held.max() }),
    }
}

/// What is counted of a session with a screen of `size` that runs.
fn counted_bytes(size: Size) -> usize {
    shown_bytes(size).saturating_sub(FREE_BYTES)
}

fn shown_bytes(size: Size) -> usize {
    Screen::max_bytes(size.cols(), size.rows())
}

/// Bytes of the screen of each session that runs which are not counted: those of 200 columns and 60
/// rows, or of a usual size with some lines above it. With 256 sessions that is at most 128 MiB.
const FREE_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn users() -> [UserName; 3] {
        ["alice", "bob", "carol"].map(|name| name.parse().expect("a name"))
    }

    #[test]
    fn a_caller_alone_gets_half_and_leaves_as_much_to_others() {
        let [alice, bob, carol] = users();
        let budget = ScreenBudget::new(64 * MIB);
        let large = Size::MAX;
        let one = shown_bytes(large) - FREE_BYTES;
        assert!((16 * MIB..21 * MIB).contains(&one), "{one}");
        let first = budget.reserve(&alice, large).expect("half of it is hers");
        let refusal = |user| budget.reserve(user, large).err();
        assert_eq!(refusal(&alice), Some(ScreenShortage::Caller { max_bytes: 32 * MIB }));
        // The size of a session that runs, too.
        let small = budget.reserve(&alice, Size::default()).expect("small ones always");
        assert!(small.grow_to(large).is_err());
        assert!(small.grow_to(Size::clamped(200, 60)).is_ok());
        let second = budget.reserve(&bob, large).expect("as much is his");
        assert_eq!(refusal(&carol), Some(ScreenShortage::All { max_bytes: 64 * MIB }));
        let always: Vec<_> = (0..256)
            .map(|_| budget.reserve(&carol, Size::clamped(200, 60)).expect("a small one"))
            .collect();
        drop((first, second, small, always));
        assert!(budget.held().is_empty());
        // What no caller may have is no matter of others.
        assert_eq!(
            ScreenBudget::new(MIB).reserve(&carol, large).err(),
            Some(ScreenShortage::Caller { max_bytes: MIB / 2 })
        );
    }

    #[test]
    fn lines_above_a_screen_leave_memory_to_a_screen() {
        let [alice, ..] = users();
        let budget = ScreenBudget::new(64 * MIB);
        let memory = budget.reserve(&alice, Size::default()).expect("a small one");
        let mut reserved = 0;
        while memory.reserve(MIB) {
            reserved += 1;
        }
        assert!((20..23).contains(&reserved), "{reserved}");
        let wide = Size::clamped(400, 200);
        let other = budget.reserve(&alice, wide).expect("there is memory for a screen");
        assert!(!other.reserve(MIB));
        memory.release(reserved * MIB);
        assert!(other.reserve(MIB));
    }
}
