//! All rows that can be read, where reading some others fails. Pure but for the reading itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::store::Rows;

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Rescued {
    pub(super) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) problems: Vec<String>,
}

impl Rescued {
    pub(super) fn nothing(problem: String) -> Self {
        Self { rows: BTreeMap::new(), problems: vec![problem] }
    }
}

/// Reads at most so many rows between two keys, forwards or backwards.
pub(super) type Read<'a> = dyn FnMut(&[u8], &[u8], bool, usize) -> Result<Rows, String> + 'a;

/// Reads from both ends towards what can't be read, and, up to [`MAX_READS`], what lies within that
/// from the middles of what is left.
pub(super) fn rescue(read: &mut Read<'_>) -> Rescued {
    let mut rows = BTreeMap::new();
    let mut failed = Vec::new();
    let mut reads = 0;
    let mut left: VecDeque<(Vec<u8>, Vec<u8>)> = VecDeque::from([(vec![0], vec![0xff; 8])]);
    while let Some((mut from, mut until)) = left.pop_front() {
        reads += 1;
        let mut is_done = reach(read, &mut from, &mut until, false, &mut rows).is_ok();
        let mut problem = String::new();
        if !is_done {
            match reach(read, &mut from, &mut until, true, &mut rows) {
                Ok(()) => is_done = true,
                Err(error) => problem = error,
            }
        }
        if is_done {
            continue;
        }
        failed.push((from.clone(), problem));
        if reads < MAX_READS
            && let Some(middle) = middle(&from, &until)
        {
            left.push_back((from, middle.clone()));
            left.push_back((middle, until));
        }
    }
    let mut holes = BTreeSet::new();
    for (at, problem) in failed {
        let before = rows.range(..at.clone()).next_back().map(|(key, _)| show(key));
        let after = rows.range(at..).next().map(|(key, _)| show(key));
        let place = match (before, after) {
            (Some(before), Some(after)) => format!("between `{before}` and `{after}`"),
            (Some(before), None) => format!("after `{before}`"),
            (None, Some(after)) => format!("before `{after}`"),
            (None, None) => "anywhere".to_owned(),
        };
        holes.insert((place, problem));
    }
    let mut problems: BTreeMap<String, String> = BTreeMap::new();
    for (place, problem) in holes {
        problems.entry(place).or_insert(problem);
    }
    let problems = problems
        .into_iter()
        .map(|(place, problem)| format!("rows {place} can't be read: {problem}"))
        .collect();
    Rescued { rows, problems }
}

/// Reads from one end as far as it goes; an error when that is not the other end.
fn reach(
    read: &mut Read<'_>,
    from: &mut Vec<u8>,
    until: &mut Vec<u8>,
    backwards: bool,
    rows: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) -> Result<(), String> {
    let mut most = ROWS;
    loop {
        match read(from, until, backwards, most) {
            Ok(found) => {
                let is_last = found.len() < most;
                if let Some((key, _)) = found.last() {
                    if backwards {
                        until.clone_from(key);
                    } else {
                        from.clone_from(key);
                        from.push(0);
                    }
                }
                rows.extend(found);
                if is_last {
                    return Ok(());
                }
            }
            Err(_) if most > 1 => most = 1,
            Err(error) => return Err(error),
        }
    }
}

/// A key about halfway between two others; `None` where they are too close.
fn middle(from: &[u8], until: &[u8]) -> Option<Vec<u8>> {
    let same = from.iter().zip(until).take_while(|(one, other)| one == other).count();
    let number = |key: &[u8]| {
        let mut bytes = [0; 8];
        for (byte, found) in bytes.iter_mut().zip(&key[same.min(key.len())..]) {
            *byte = *found;
        }
        u64::from_be_bytes(bytes)
    };
    let (low, high) = (number(from), number(until));
    let middle = low + high.checked_sub(low)? / 2;
    if middle == low {
        return None;
    }
    let mut key = from[..same].to_vec();
    key.extend_from_slice(&middle.to_be_bytes());
    Some(key)
}

/// A key for people: they are text and numbers between zeros.
fn show(key: &[u8]) -> String {
    let is_shown = |byte: &u8| byte.is_ascii_graphic();
    let text = key.iter().map(|byte| if is_shown(byte) { char::from(*byte) } else { ' ' });
    text.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

const ROWS: usize = 256;
/// Beyond so many failures, what lies between others that fail is given up.
const MAX_READS: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(all: &BTreeMap<Vec<u8>, Vec<u8>>, bad: &BTreeSet<Vec<u8>>) -> Rescued {
        rescue(&mut |from, until, backwards, most| {
            if from >= until {
                return Ok(Vec::new());
            }
            let range = all.range(from.to_vec()..until.to_vec());
            let found: Vec<_> = if backwards {
                range.rev().take(most).collect()
            } else {
                range.take(most).collect()
            };
            if found.iter().any(|(key, _)| bad.contains(*key)) {
                return Err("damaged".to_owned());
            }
            Ok(found.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect())
        })
    }

    proptest! {
        #[test]
        fn everything_but_what_is_damaged_is_found(
            keys in prop::collection::btree_set(prop::collection::vec(1..=254_u8, 1..6), 0..400),
            bad in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        ) {
            let keys: Vec<_> = keys.into_iter().collect();
            let bad: BTreeSet<_> = bad.iter()
                .filter(|_| !keys.is_empty())
                .map(|index| keys[index.index(keys.len())].clone())
                .collect();
            let all: BTreeMap<_, _> = keys.iter().map(|key| (key.clone(), key.clone())).collect();
            let found = read_all(&all, &bad);
            prop_assert_eq!(found.problems.is_empty(), bad.is_empty());
            for key in &keys {
                prop_assert_eq!(found.rows.contains_key(key), !bad.contains(key), "{:?}", key);
            }
        }
    }

    #[test]
    fn what_lies_between_is_named() {
        let all: BTreeMap<_, _> =
            ["b\0one", "b\0three", "b\0two"].map(|key| (key.into(), Vec::new())).into();
        let found = read_all(&all, &BTreeSet::from([b"b\0three".to_vec()]));
        assert_eq!(found.problems, ["rows between `b one` and `b two` can't be read: damaged"]);
    }
}
