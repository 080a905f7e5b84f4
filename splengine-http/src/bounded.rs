//! Lists and maps of requests, whose elements are counted while they are read: for `deserialize_with`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads a list of at most `MAX` elements, or null.
///
/// # Errors
///
/// The deserializer's own; one that tells the maximum, at the first element beyond it.
pub fn list<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    Ok(Option::<List<MAX, T>>::deserialize(deserializer)?.map(|list| list.0))
}

/// Reads an object of at most `MAX` members, or null, as [`list`] does.
///
/// # Errors
///
/// As [`list`].
pub fn map<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, T>>, D::Error> {
    Ok(Option::<Map<MAX, T>>::deserialize(deserializer)?.map(|map| map.0))
}

/// What an error begins with that tells of too many elements.
pub(crate) const TOO_MANY: &str = "has more than ";

fn too_many<E: Error>(max: usize) -> E {
    E::custom(format_args!("{TOO_MANY}{max} elements, the maximum"))
}

struct List<const MAX: usize, T>(Vec<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Deserialize<'de> for List<MAX, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements::<MAX, T>(PhantomData)).map(Self)
    }
}

struct Map<const MAX: usize, T>(BTreeMap<String, T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Deserialize<'de> for Map<MAX, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members::<MAX, T>(PhantomData)).map(Self)
    }
}

struct Elements<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Elements<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(element) = list.next_element()? {
            if all.len() >= MAX {
                return Err(too_many(MAX));
            }
            all.push(element);
        }
        Ok(all)
    }
}

struct Members<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Members<MAX, T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            all.insert(name, value);
            if all.len() > MAX {
                return Err(too_many(MAX));
            }
        }
        Ok(all)
    }
}
