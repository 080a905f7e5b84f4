//! The rule for which kept batches or lost sessions are removed when there are too many. Pure.

use std::collections::{BTreeMap, VecDeque};

/// How many of them are kept, and how many bytes they may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) count: usize,
    pub(crate) bytes: u64,
    pub(crate) count_per_caller: usize,
    pub(crate) bytes_per_caller: u64,
}

/// One of what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) user: String,
    pub(crate) bytes: u64,
}

/// What one caller has.
#[derive(Debug, Default)]
struct CallerTotal {
    /// The oldest first.
    places: VecDeque<usize>,
    bytes: u64,
}

/// The places in `kept`, which has the oldest first, of those that are over the bounds. Each
/// caller's own bounds come first; then the oldest go of whoever has the most, until the bounds of
/// all are kept. So nobody loses one to others who has less than they.
pub(crate) fn surplus(kept: &[Kept], bounds: Bounds) -> Vec<usize> {
    let mut shares: BTreeMap<&str, CallerTotal> = BTreeMap::new();
    for (place, batch) in kept.iter().enumerate() {
        let share = shares.entry(&batch.user).or_default();
        share.places.push_back(place);
        share.bytes = share.bytes.saturating_add(batch.bytes);
    }
    let mut gone = Vec::new();
    let mut drop_oldest = |share: &mut CallerTotal| {
        if let Some(place) = share.places.pop_front() {
            share.bytes = share.bytes.saturating_sub(kept[place].bytes);
            gone.push(place);
        }
    };
    for share in shares.values_mut() {
        while share.places.len() > bounds.count_per_caller
            || (share.bytes > bounds.bytes_per_caller && !share.places.is_empty())
        {
            drop_oldest(share);
        }
    }
    let mut count: usize = shares.values().map(|share| share.places.len()).sum();
    while count > bounds.count {
        let Some(largest) = shares.values_mut().max_by_key(|share| share.places.len()) else {
            break;
        };
        drop_oldest(largest);
        count -= 1;
    }
    while total_bytes(&shares) > bounds.bytes {
        let has_any = |share: &&mut CallerTotal| !share.places.is_empty();
        let largest = shares.values_mut().filter(has_any).max_by_key(|share| share.bytes);
        let Some(largest) = largest else { break };
        drop_oldest(largest);
    }
    gone.sort_unstable();
    gone
}

fn total_bytes(shares: &BTreeMap<&str, CallerTotal>) -> u64 {
    shares.values().fold(0, |sum, share| sum.saturating_add(share.bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept() -> impl Strategy<Value = Vec<Kept>> {
        let one = ("[a-d]", 0..100_u64).prop_map(|(user, bytes)| Kept { user, bytes });
        prop::collection::vec(one, 0..60)
    }

    fn totals(kept: &[Kept], gone: &[usize], user: Option<&str>) -> (usize, u64) {
        let stays = kept.iter().enumerate().filter(|(place, batch)| {
            !gone.contains(place) && user.is_none_or(|user| batch.user == user)
        });
        stays.fold((0, 0), |(count, bytes), (_, batch)| (count + 1, bytes + batch.bytes))
    }

    proptest! {
        #[test]
        fn bounds_are_kept_and_nobody_pays_for_who_has_more(
            kept in kept(),
            (count, bytes) in (0..60_usize, 0..3000_u64),
            (count_per_caller, bytes_per_caller) in (0..30_usize, 0..1500_u64),
        ) {
            let bounds = Bounds { count, bytes, count_per_caller, bytes_per_caller };
            let gone = surplus(&kept, bounds);
            let (left, left_bytes) = totals(&kept, &gone, None);
            prop_assert!(left <= count && left_bytes <= bytes);
            for user in ["a", "b", "c", "d"] {
                let (own, own_bytes) = totals(&kept, &gone, Some(user));
                prop_assert!(own <= count_per_caller && own_bytes <= bytes_per_caller);
                // The oldest go first.
                let of_user = |place: &usize| kept[*place].user == user;
                let places: Vec<usize> = (0..kept.len()).filter(of_user).collect();
                let own_gone: Vec<usize> = gone.iter().copied().filter(of_user).collect();
                prop_assert_eq!(&places[..own_gone.len()], &own_gone[..]);
                // Whoever has a fair part of everything keeps it.
                let (had, had_bytes) = totals(&kept, &[], Some(user));
                if had <= count_per_caller.min(count / 4)
                    && had_bytes <= bytes_per_caller.min(bytes / 4)
                {
                    prop_assert!(own_gone.is_empty(), "{user} had {had} of {count}");
                }
            }
        }

        #[test]
        fn nothing_goes_that_need_not(kept in kept()) {
            let bounds = Bounds { count: 60, bytes: 6000, count_per_caller: 60, bytes_per_caller: 6000 };
            prop_assert_eq!(surplus(&kept, bounds), Vec::<usize>::new());
        }
    }
}
