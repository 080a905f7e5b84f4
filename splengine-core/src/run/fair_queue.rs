//! The queue that decides who runs next, without clock or I/O.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::user_name::UserName;

/// Bounds on what runs and waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) running: usize,
    pub(crate) running_per_caller: usize,
    pub(crate) waiting: usize,
    pub(crate) waiting_per_caller: usize,
}

/// Result of a request to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    Run,
    Wait(QueuePosition),
    /// The caller has this many waiting, and may have no more.
    CallerLimit(usize),
    Full,
}

/// Whose turn comes when, among those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct QueuePosition {
    number: u64,
    is_bounded: bool,
}

/// Callers take turns; one caller's own requests run in the order they came.
///
/// Invariant: while a place is free, nobody waits who may take it.
#[derive(Debug)]
pub(crate) struct FairQueue {
    capacity: Capacity,
    running: usize,
    waiting: usize,
    /// How many of those wait that count against the capacity.
    bounded: usize,
    callers: HashMap<UserName, CallerQueue>,
    /// The callers that have requests waiting, in the order of their turns.
    turns: VecDeque<UserName>,
    next_number: u64,
}

#[derive(Debug, Default)]
struct CallerQueue {
    running: usize,
    waiting: VecDeque<QueuePosition>,
    bounded: usize,
}

impl CallerQueue {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }
}

impl FairQueue {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            running: 0,
            waiting: 0,
            bounded: 0,
            callers: HashMap::new(),
            turns: VecDeque::new(),
            next_number: 0,
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn offer(&mut self, user: &UserName) -> Offer {
        self.offer_place(user, true)
    }

    /// The same for whoever bounds in some other way how many wait: they are never refused, and
    /// take no place in the queue from others.
    pub(crate) fn offer_unbounded(&mut self, user: &UserName) -> Offer {
        self.offer_place(user, false)
    }

    fn offer_place(&mut self, user: &UserName, is_bounded: bool) -> Offer {
        let capacity = self.capacity;
        let caller = self.callers.entry(user.clone()).or_default();
        if self.running < capacity.running && caller.running < capacity.running_per_caller {
            self.running += 1;
            caller.running += 1;
            return Offer::Run;
        }
        let refusal = if !is_bounded {
            None
        } else if caller.bounded >= capacity.waiting_per_caller {
            Some(Offer::CallerLimit(capacity.waiting_per_caller))
        } else if self.bounded >= capacity.waiting {
            Some(Offer::Full)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.forget_if_idle(user);
            return refusal;
        }
        let position = QueuePosition { number: self.next_number, is_bounded };
        self.next_number += 1;
        caller.bounded += usize::from(is_bounded);
        self.bounded += usize::from(is_bounded);
        if caller.waiting.is_empty() {
            self.turns.push_back(user.clone());
        }
        caller.waiting.push_back(position);
        self.waiting += 1;
        Offer::Wait(position)
    }

    /// One of `user`'s runs is over; says who runs instead.
    pub(crate) fn release(&mut self, user: &UserName) -> Option<QueuePosition> {
        self.running -= 1;
        if let Entry::Occupied(mut entry) = self.callers.entry(user.clone()) {
            entry.get_mut().running -= 1;
            // Nobody of theirs waits then, so that the next turn is not theirs.
            if entry.get().is_idle() {
                entry.remove();
            }
        }
        self.take_turn()
    }

    /// Somebody gives up waiting; `false` when they no longer waited.
    pub(crate) fn withdraw(&mut self, user: &UserName, position: QueuePosition) -> bool {
        let mut waited = false;
        if let Some(caller) = self.callers.get_mut(user)
            && let Some(place) = caller.waiting.iter().position(|waiting| *waiting == position)
        {
            waited = true;
            caller.waiting.remove(place);
            caller.bounded -= usize::from(position.is_bounded);
            self.bounded -= usize::from(position.is_bounded);
            self.waiting -= 1;
            if caller.waiting.is_empty() {
                self.turns.retain(|waiting| waiting != user);
            }
        }
        self.forget_if_idle(user);
        waited
    }

    fn take_turn(&mut self) -> Option<QueuePosition> {
        if self.running >= self.capacity.running {
            return None;
        }
        let limit = self.capacity.running_per_caller;
        let place = self.turns.iter().position(|user| self.callers[user].running < limit)?;
        let user = self.turns.remove(place)?;
        let caller = self.callers.get_mut(&user)?;
        let position = caller.waiting.pop_front()?;
        caller.bounded -= usize::from(position.is_bounded);
        self.bounded -= usize::from(position.is_bounded);
        caller.running += 1;
        if !caller.waiting.is_empty() {
            self.turns.push_back(user);
        }
        self.running += 1;
        self.waiting -= 1;
        Some(position)
    }

    fn forget_if_idle(&mut self, user: &UserName) {
        if self.callers.get(user).is_some_and(CallerQueue::is_idle) {
            self.callers.remove(user);
        }
    }
}

#[cfg(test)]
mod tests;
