//! Bound on the memory of all sessions' screens.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::screen::{HistoryMemory, Screen};
use crate::session::SessionError;
use crate::session::live_session::LiveSession;
use crate::terminal::Size;
use crate::user_name::UserName;

/// Bound in bytes on what the screens of all sessions take together, beyond the first
/// [bytes](FREE_BYTES) of each session that runs. Nothing waits at the bound. Cheap to clone: clones
/// share one bound.
///
/// A caller may have as much as is still free: one alone gets half of all, two a third each, and so
/// on. Lines above a screen take no more than half of what is free, so that they leave memory to a
/// screen that comes later; where there is no memory, those of sessions that have ended go first.
#[derive(Debug, Clone)]
pub(crate) struct ScreenBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_bytes: usize,
    held: Mutex<HeldBytes>,
    /// Sessions that have ended, from the oldest, whose screens have lines above them.
    ended: Mutex<VecDeque<Weak<LiveSession>>>,
}

#[derive(Debug, Default)]
struct HeldBytes {
    all: usize,
    callers: HashMap<UserName, usize>,
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
    /// Of what the session was loaded with.
    kept: usize,
    /// Of the lines above them.
    history: usize,
    /// So many of these bytes are not counted.
    free: usize,
}

impl Parts {
    fn counted(self) -> usize {
        (self.shown + self.kept + self.history).saturating_sub(self.free)
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
        Self(Arc::new(Shared { max_bytes, held: Mutex::default(), ended: Mutex::default() }))
    }

    /// Reserves memory for a screen of `size` of a session of `user`, and for `kept` bytes that the
    /// session was loaded with.
    pub(crate) fn reserve(
        &self,
        user: &UserName,
        size: Size,
        kept: usize,
    ) -> Result<Arc<ScreenMemory>, ScreenShortage> {
        let memory = self.empty(user);
        let all = |parts: &mut Parts| (parts.shown, parts.kept) = (shown_bytes(size), kept);
        memory.change(Purpose::Shown, all)?;
        Ok(memory)
    }

    /// The same for a session that runs already, whatever others have.
    pub(crate) fn reserve_always(&self, user: &UserName, size: Size) -> Arc<ScreenMemory> {
        let memory = self.empty(user);
        let _ = memory.change(Purpose::Present, |parts| parts.shown = shown_bytes(size));
        memory
    }

    fn empty(&self, user: &UserName) -> Arc<ScreenMemory> {
        let parts = Mutex::new(Parts { shown: 0, kept: 0, history: 0, free: FREE_BYTES });
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
            self.check(&held, user, from, to, purpose)?;
        }
        let own = held.callers.get(user).copied().unwrap_or_default();
        held.all = (held.all + to).saturating_sub(from);
        let own = (own + to).saturating_sub(from);
        // Callers of whom nothing is held are forgotten.
        match own {
            0 => held.callers.remove(user),
            own => held.callers.insert(user.clone(), own),
        };
        Ok(())
    }

    fn check(
        &self,
        held: &HeldBytes,
        user: &UserName,
        from: usize,
        to: usize,
        purpose: Purpose,
    ) -> Result<(), ScreenShortage> {
        let own = held.callers.get(user).copied().unwrap_or_default();
        let max_bytes = self.0.max_bytes;
        let free = max_bytes.saturating_sub(held.all);
        let more = to.saturating_sub(from);
        let part = if purpose == Purpose::History { 2 } else { 1 };
        let left = free.checked_sub(more).map(|left| left / part);
        if more == 0 || left.is_some_and(|left| own.saturating_add(more) <= left) {
            Ok(())
        } else if own > from || to > max_bytes / 2 {
            // Nobody else's end would help a screen that is larger than one caller's part.
            Err(ScreenShortage::Caller { max_bytes: (own + free) / 2 })
        } else {
            Err(ScreenShortage::All { max_bytes })
        }
    }

    /// Returns whether [`reserve`](Self::reserve) would succeed if `user` had so many bytes less.
    pub(crate) fn would_fit(&self, user: &UserName, size: Size, kept: usize, less: usize) -> bool {
        let bytes = (shown_bytes(size) + kept).saturating_sub(FREE_BYTES);
        self.check(&self.held(), user, less, bytes, Purpose::Shown).is_ok()
    }

    /// Removes the lines above the screen of a session that has ended, the oldest first: one of `user`,
    /// or of anybody if `all` are short. Returns whether there was one.
    fn shorten_one(&self, user: &UserName, all: bool) -> bool {
        let found: Vec<Arc<LiveSession>> = self.ended().iter().filter_map(Weak::upgrade).collect();
        let theirs = found.iter().filter(|live| all || live.user == *user);
        let Some(shortened) = theirs.into_iter().find(|live| live.try_remove_history()) else {
            return false;
        };
        tracing::info!(session = %shortened.id, "removed the lines above the screen of an ended session");
        self.ended().retain(|live| !std::ptr::eq(live.as_ptr(), Arc::as_ptr(shortened)));
        true
    }

    fn held(&self) -> MutexGuard<'_, HeldBytes> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<Weak<LiveSession>>> {
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

    /// Notes that the lines above the screen of `live`, which has ended, may go for others.
    pub(crate) fn note_ended(live: &Arc<LiveSession>) {
        let mut ended = live.memory.budget.ended();
        ended.retain(|live| live.strong_count() > 0);
        ended.push_back(Arc::downgrade(live));
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
            (parts.shown, parts.kept, parts.history) = (0, 0, 0);
        });
    }
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
        let first = budget.reserve(&alice, large, 0).expect("half of it is hers");
        let refusal = |user| budget.reserve(user, large, 0).err();
        assert_eq!(refusal(&alice), Some(ScreenShortage::Caller { max_bytes: 32 * MIB }));
        // The size of a session that runs, too.
        let small = budget.reserve(&alice, Size::default(), 0).expect("small ones always");
        assert!(small.grow_to(large).is_err());
        assert!(small.grow_to(Size::clamped(200, 60)).is_ok());
        let second = budget.reserve(&bob, large, 0).expect("as much is his");
        assert_eq!(refusal(&carol), Some(ScreenShortage::All { max_bytes: 64 * MIB }));
        let always: Vec<_> = (0..256)
            .map(|_| budget.reserve(&carol, Size::clamped(200, 60), 0).expect("a small one"))
            .collect();
        drop((first, second, small, always));
        assert!(budget.held().callers.is_empty());
        assert_eq!(budget.held().all, 0);
        // What no caller may have is no matter of others.
        assert_eq!(
            ScreenBudget::new(MIB).reserve(&carol, large, 0).err(),
            Some(ScreenShortage::Caller { max_bytes: MIB / 2 })
        );
    }

    #[test]
    fn lines_above_a_screen_leave_memory_to_a_screen() {
        let [alice, ..] = users();
        let budget = ScreenBudget::new(64 * MIB);
        let memory = budget.reserve(&alice, Size::default(), 0).expect("a small one");
        let mut reserved = 0;
        while memory.reserve(MIB) {
            reserved += 1;
        }
        assert!((20..23).contains(&reserved), "{reserved}");
        let wide = Size::clamped(400, 200);
        let other = budget.reserve(&alice, wide, 0).expect("there is memory for a screen");
        assert!(!other.reserve(MIB));
        memory.release(reserved * MIB);
        assert!(other.reserve(MIB));
    }
}
