//! The share of one caller in a budget.

use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::sync::{Mutex, Notify};

use crate::quota::fair_share::FairShares;
use crate::user_name::UserName;

/// The share of a caller in granules, as [`FairShares`] has it.
#[derive(Debug)]
pub(super) struct FairShare {
    pub(super) user: UserName,
    pub(super) callers: Arc<Callers>,
    /// Whoever waits first; the others of this caller wait for that.
    turn: Mutex<()>,
}

/// What callers hold of one budget, in granules.
#[derive(Debug)]
pub(super) struct Callers {
    shares: std::sync::Mutex<FairShares>,
    /// Wakes those who wait, since a caller holds less.
    freed: Notify,
}

impl FairShare {
    pub(super) fn new(user: &UserName, callers: &Arc<Callers>) -> Self {
        Self { user: user.clone(), callers: Arc::clone(callers), turn: Mutex::default() }
    }

    /// Waits until `to` granules instead of `from` are within the share, and counts them.
    pub(super) async fn grown(&self, from: usize, to: usize) {
        let _turn = self.turn.lock().await;
        loop {
            let mut freed = std::pin::pin!(self.callers.freed.notified());
            freed.as_mut().enable();
            if self.try_grow(from, to) {
                return;
            }
            freed.await;
        }
    }

    pub(super) fn try_grow(&self, from: usize, to: usize) -> bool {
        let mut shares = self.callers.lock();
        let is_fair = shares.check(&self.user, from, to).is_ok();
        if is_fair {
            shares.replace(&self.user, from, to);
        }
        is_fair
    }
}

impl Callers {
    /// Shares in so many granules.
    pub(super) fn new(max: usize) -> Self {
        let shares = std::sync::Mutex::new(FairShares::new(max));
        Self { shares, freed: Notify::new() }
    }

    pub(super) fn replace(&self, user: &UserName, from: usize, to: usize) {
        if from == to {
            return;
        }
        self.lock().replace(user, from, to);
        if to < from {
            self.freed.notify_waiters();
        }
    }

    /// Whether `user` holds no more than their share.
    pub(super) fn is_within(&self, user: &UserName) -> bool {
        let shares = self.lock();
        shares.held(user) <= shares.limit(user)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, FairShares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
