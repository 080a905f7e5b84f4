//! Lists and maps of requests, whose elements are counted while they are read: for `deserialize_with`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads a list of at most `MAX` elements, or null. Nothing is made of those beyond.
///
/// # Errors
///
/// The deserializer's own; one that tells the maximum.
pub fn list<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    deserializer.deserialize_option(Bounded::<MAX, Vec<T>>(PhantomData))
}

/// Reads an object of at most `MAX` members, or null, as [`list`] does.
///
/// # Errors
///
/// As [`list`].
pub fn map<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, T>>, D::Error> {
    deserializer.deserialize_option(Bounded::<MAX, BTreeMap<String, T>>(PhantomData))
}

/// What an error begins with that tells of too many elements.
pub(crate) const TOO_MANY: &str = "has more than ";

fn too_many<E: Error>(max: usize) -> E {
    E::custom(format_args!("{TOO_MANY}{max} elements, the maximum"))
}

struct Bounded<const MAX: usize, C>(PhantomData<C>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Bounded<MAX, Vec<T>> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(element) = list.next_element()? {
            if all.len() >= MAX {
                return Err(too_many(MAX));
            }
            all.push(element);
        }
        Ok(Some(all))
    }
}

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de>
    for Bounded<MAX, BTreeMap<String, T>>
{
    type Value = Option<BTreeMap<String, T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            all.insert(name, value);
            if all.len() > MAX {
                return Err(too_many(MAX));
            }
        }
        Ok(Some(all))
    }
}
