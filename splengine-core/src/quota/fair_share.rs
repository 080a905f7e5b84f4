//! The rule for how much of a shared bound one caller may hold. Pure.

use std::collections::HashMap;

use crate::user_name::UserName;

/// What each caller holds of something that all share, such as bytes or places, and how much they may
/// hold: half of what the others leave, rounded up. One caller alone gets half of all, two who want as
/// much as they can a third each at least, and so on. Whoever holds more than that keeps it, and gets
/// no more; so that there is always a part left for who holds less.
///
/// What is taken is not bounded by this: whoever takes it asks for the [limit](Self::limit) first.
#[derive(Debug)]
pub(crate) struct FairShares {
    max: usize,
    all: usize,
    callers: HashMap<UserName, usize>,
}

/// Whose giving back something would help a caller who gets no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// The caller's own; or nobody's, where it is more than one caller may ever hold.
    OfCaller,
    /// That of other callers.
    OfAll,
}

impl FairShares {
    /// Shares in `max`, of which nobody holds anything yet.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, all: 0, callers: HashMap::new() }
    }

    /// How much all callers may hold together.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// How much `user` holds.
    pub(crate) fn held(&self, user: &UserName) -> usize {
        self.callers.get(user).copied().unwrap_or_default()
    }

    /// How much all callers hold, which may be more than they may.
    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// How much nobody holds.
    pub(crate) fn free(&self) -> usize {
        self.max.saturating_sub(self.all)
    }

    /// How much `user` may hold in all at the moment.
    pub(crate) fn limit(&self, user: &UserName) -> usize {
        self.left_by_others(user).div_ceil(2)
    }

    /// How much the other callers leave to `user`.
    pub(crate) fn left_by_others(&self, user: &UserName) -> usize {
        self.max.saturating_sub(self.all - self.held(user))
    }

    /// Why `user` may not change something from `from` to `to`, if it is more; the caller's other
    /// things stay as they are.
    pub(crate) fn check(&self, user: &UserName, from: usize, to: usize) -> Result<(), Shortage> {
        let limit = self.limit(user);
        if to <= from || self.held(user).saturating_sub(from).saturating_add(to) <= limit {
            Ok(())
        } else if to <= limit || to > self.max.div_ceil(2) {
            Err(Shortage::OfCaller)
        } else {
            Err(Shortage::OfAll)
        }
    }

    /// Counts `to` instead of `from` as held by `user`. Callers who hold nothing are forgotten.
    pub(crate) fn replace(&mut self, user: &UserName, from: usize, to: usize) {
        let replaced = |held: usize| held.saturating_sub(from).saturating_add(to);
        self.all = replaced(self.all);
        match replaced(self.held(user)) {
            0 => self.callers.remove(user),
            own => self.callers.insert(user.clone(), own),
        };
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.all == 0 && self.callers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(number: usize) -> UserName {
        format!("user-{number}").parse().expect("a name")
    }

    #[test]
    fn a_refusal_says_who_could_change_it() {
        let mut shares = FairShares::new(64);
        let [alice, bob, carol] = [1, 2, 3].map(user);
        shares.replace(&alice, 0, 32);
        assert_eq!(shares.check(&alice, 32, 33), Err(Shortage::OfCaller));
        assert_eq!(shares.check(&alice, 0, 1), Err(Shortage::OfCaller));
        assert_eq!(shares.check(&alice, 32, 32), Ok(()));
        assert_eq!(shares.check(&bob, 0, 16), Ok(()));
        assert_eq!(shares.check(&bob, 0, 17), Err(Shortage::OfAll));
        assert_eq!(shares.check(&bob, 0, 33), Err(Shortage::OfCaller), "more than anybody gets");
        shares.replace(&bob, 0, 4);
        assert_eq!(
            shares.check(&bob, 0, 16),
            Err(Shortage::OfCaller),
            "what bob holds is in the way"
        );
        assert_eq!(shares.check(&bob, 4, 16), Ok(()));
        assert_eq!(shares.check(&bob, 0, 17), Err(Shortage::OfAll), "what alice holds");
        // More than the limit is kept when others come.
        shares.replace(&bob, 4, 16);
        assert_eq!((shares.limit(&alice), shares.check(&alice, 32, 24)), (24, Ok(())));
        shares.replace(&carol, 0, 100);
        assert_eq!((shares.free(), shares.limit(&alice)), (0, 0));
        for (who, held) in [(&alice, 32), (&bob, 16), (&carol, 100)] {
            shares.replace(who, held, 0);
        }
        assert!(shares.is_empty());
    }

    proptest! {
        #[test]
        fn there_is_always_something_for_who_holds_nothing(
            wanted in prop::collection::vec((0usize..6, 0usize..50), 0..40),
        ) {
            let mut shares = FairShares::new(100);
            for (who, more) in wanted {
                let who = user(who);
                if shares.check(&who, 0, more).is_ok() {
                    shares.replace(&who, 0, more);
                }
                prop_assert!(shares.held(&who) <= 50);
                prop_assert!(shares.all <= 100);
            }
            prop_assert!(shares.free() == 0 || shares.check(&user(9), 0, 1).is_ok());
        }
    }
}
