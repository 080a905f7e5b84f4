//! Avro's binary encoding, straight between bytes and our records (specification 1.12, "Binary
//! Encoding").

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use splengine_core::Request;

/// A value with an Avro schema.
pub(crate) trait Datum: Sized {
    /// Its type, as it stands in a protocol, for the test that compares them.
    #[cfg(test)]
    fn schema() -> serde_json::Value;
    fn write(&self, to: &mut Vec<u8>);
    fn read(from: &mut Reader) -> Result<Self, DatumError>;
}

/// Bytes that are no such value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatumError(Fault);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Short,
    Varint,
    Length { claimed: i64, left: usize },
    Many,
    TooLong { max: usize },
    Utf8,
    Boolean(u8),
    Branch(i64),
    Symbol(i64),
    Range,
    Left(usize),
    Deep,
    Costly,
}

impl DatumError {
    /// That values lie too deep in each other, or are of a kind that we do not take.
    pub(crate) fn deep() -> Self {
        Self(Fault::Deep)
    }

    /// That values take far more memory than their bytes.
    pub(crate) fn costly() -> Self {
        Self(Fault::Costly)
    }
}

/// Reads values one after the other. Nothing is allocated on the word of a length: what it claims
/// must be there.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
    at: usize,
    /// How many more elements of lists there may be.
    elements_left: usize,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0, elements_left: MAX_ELEMENTS }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What was not read.
    pub(crate) fn rest(self) -> Bytes {
        self.bytes.slice(self.at..)
    }

    /// That everything was read.
    pub(crate) fn finish(self) -> Result<(), DatumError> {
        if self.left() == 0 { Ok(()) } else { Err(DatumError(Fault::Left(self.left()))) }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DatumError> {
        let byte = *self.bytes.get(self.at).ok_or(DatumError(Fault::Short))?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn long(&mut self) -> Result<i64, DatumError> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.byte()?;
            // The tenth byte has elements_left for one bit.
            if shift == 63 && byte > 1 {
                return Err(DatumError(Fault::Varint));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
        }
    }

    /// So many bytes, without a copy.
    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, DatumError> {
        if length > self.left() {
            return Err(DatumError(Fault::Short));
        }
        let taken = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(taken)
    }

    /// Where a text or bytes lie.
    fn sized(&mut self) -> Result<std::ops::Range<usize>, DatumError> {
        let claimed = self.long()?;
        let left = self.left();
        match usize::try_from(claimed) {
            Ok(length) if length <= left => {
                self.at += length;
                Ok(self.at - length..self.at)
            }
            _ => Err(DatumError(Fault::Length { claimed, left })),
        }
    }

    /// Steps over a text or bytes.
    pub(crate) fn skip_sized(&mut self) -> Result<(), DatumError> {
        self.sized().map(drop)
    }

    pub(crate) fn sized_bytes(&mut self) -> Result<Bytes, DatumError> {
        let range = self.sized()?;
        Ok(self.bytes.slice(range))
    }

    pub(crate) fn text(&mut self) -> Result<&str, DatumError> {
        let range = self.sized()?;
        std::str::from_utf8(&self.bytes[range]).map_err(|_| DatumError(Fault::Utf8))
    }

    /// The number of elements in the next block of an array or a map; 0 is its end. None of our
    /// elements takes less than a byte.
    pub(crate) fn block(&mut self, smallest: usize) -> Result<usize, DatumError> {
        let mut claimed = self.long()?;
        if claimed < 0 {
            // The block's size in bytes, for those who skip it.
            self.long()?;
            claimed = claimed.checked_neg().ok_or(DatumError(Fault::Varint))?;
        }
        let left = self.left();
        let count = usize::try_from(claimed).unwrap_or(usize::MAX);
        if count.saturating_mul(smallest) > left {
            return Err(DatumError(Fault::Length { claimed, left }));
        }
        self.elements_left =
            self.elements_left.checked_sub(count).ok_or(DatumError(Fault::Many))?;
        Ok(count)
    }

    pub(crate) fn symbol(&mut self, count: usize) -> Result<usize, DatumError> {
        let place = self.long()?;
        usize::try_from(place)
            .ok()
            .filter(|place| *place < count)
            .ok_or(DatumError(Fault::Symbol(place)))
    }

    pub(crate) fn branch(&mut self, count: usize) -> Result<usize, DatumError> {
        let place = self.long()?;
        usize::try_from(place)
            .ok()
            .filter(|place| *place < count)
            .ok_or(DatumError(Fault::Branch(place)))
    }
}

pub(crate) fn write_long(value: i64, to: &mut Vec<u8>) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        to.push(left as u8 | 0x80);
        left >>= 7;
    }
    to.push(left as u8);
}

pub(crate) fn write_sized(bytes: &[u8], to: &mut Vec<u8>) {
    write_long(i64::try_from(bytes.len()).unwrap_or(i64::MAX), to);
    to.extend_from_slice(bytes);
}

impl fmt::Display for DatumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Fault::Short => f.write_str("they end too soon"),
            Fault::Varint => f.write_str("a number in them has more than 64 bits"),
            Fault::Length { claimed, left } => {
                write!(f, "they claim {claimed} more, and {left} bytes are left")
            }
            Fault::Many => write!(f, "their lists hold more than {MAX_ELEMENTS} elements"),
            Fault::TooLong { max } => {
                write!(f, "a list or map in them holds more than {max} elements, the maximum")
            }
            Fault::Utf8 => f.write_str("a text in them is not UTF-8"),
            Fault::Boolean(byte) => write!(f, "a boolean in them is {byte}, not 0 or 1"),
            Fault::Branch(place) => write!(f, "a union in them has no branch {place}"),
            Fault::Symbol(place) => write!(f, "an enum in them has no symbol {place}"),
            Fault::Range => f.write_str("a number in them has more than 32 bits"),
            Fault::Deep => f.write_str("values in them lie too deep, or are of no kind known here"),
            Fault::Costly => f.write_str("values in them take too much memory for their size"),
            Fault::Left(left) => write!(f, "{left} bytes follow their end"),
        }
    }
}

impl std::error::Error for DatumError {}

impl Datum for bool {
    #[cfg(test)]
    fn schema() -> serde_json::Value {
        "boolean".into()
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }
    fn read(from: &mut Reader) -> Result<Self, DatumError> {
        match from.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            byte => Err(DatumError(Fault::Boolean(byte))),
        }
    }
}

impl Datum for i32 {
    #[cfg(test)]
    fn schema() -> serde_json::Value {
        "int".into()
    }
    fn write(&self, to: &mut Vec<u8>) {
        write_long(i64::from(*self), to);
    }
    fn read(from: &mut Reader) -> Result<Self, DatumError> {
        from.long()?.try_into().map_err(|_| DatumError(Fault::Range))
    }
}

impl Datum for i64 {
    #[cfg(test)]
    fn schema() -> serde_json::Value {
        "long".into()
    }
    fn write(&self, to: &mut Vec<u8>) {
        write_long(*self, to);
    }
    fn read(from: &mut Reader) -> Result<Self, DatumError> {
        from.long()
    }
}

impl Datum for String {
    #[cfg(test)]
    fn schema() -> serde_json::Value {
        "string".into()
    }
    fn write(&self, to: &mut Vec<u8>) {
        write_sized(self.as_bytes(), to);
    }
    fn read(from: &mut Reader) -> Result<Self, DatumError> {
        from.text().map(str::to_owned)
    }
}

impl Datum for Bytes {
    #[cfg(test)]
    fn schema() -> serde_json::Value {
        "bytes".into()
    }
    fn write(&self, to: &mut Vec<u8>) {
        write_sized(self, to);
    }
    fn read(from: &mut Reader) -> Result<Self, DatumError> {
        from.sized_bytes()
    }
}

/// Nothing, as the answer of whatever has none.
impl Datum for () {
    #[cfg(test)]
    fn schema() -> serde_json::Value {
        "null".into()
    }
    fn write(&self, _: &mut Vec<u8>) {}
    fn read(_: &mut Reader) -> Result<Self, DatumError> {
        Ok(())
    }
}

impl<T: Datum> Datum for Option<T> {
    #[cfg(test)]
    fn schema() -> serde_json::Value {
        serde_json::json!(["null", T::schema()])
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.push(if self.is_some() { 2 } else { 0 });
        if let Some(value) = self {
            value.write(to);
        }
    }
    fn read(from: &mut Reader) -> Result<Self, DatumError> {
        if from.branch(2)? == 0 { Ok(None) } else { T::read(from).map(Some) }
    }
}

impl<T: Datum> Datum for Vec<T> {
    #[cfg(test)]
    fn schema() -> serde_json::Value {
        serde_json::json!({"type": "array", "items": T::schema()})
    }
    fn write(&self, to: &mut Vec<u8>) {
        if !self.is_empty() {
            write_long(i64::try_from(self.len()).unwrap_or(i64::MAX), to);
            self.iter().for_each(|element| element.write(to));
        }
        to.push(0);
    }
    fn read(from: &mut Reader) -> Result<Self, DatumError> {
        let mut all = Self::new();
        loop {
            match from.block(1)? {
                0 => return Ok(all),
                count => {
                    check_length(all.len(), count, Request::MAX_ARGS)?;
                    for _ in 0..count {
                        all.push(T::read(from)?);
                    }
                }
            }
        }
    }
}

impl<T: Datum> Datum for BTreeMap<String, T> {
    #[cfg(test)]
    fn schema() -> serde_json::Value {
        serde_json::json!({"type": "map", "values": T::schema()})
    }
    fn write(&self, to: &mut Vec<u8>) {
        if !self.is_empty() {
            write_long(i64::try_from(self.len()).unwrap_or(i64::MAX), to);
            for (key, value) in self {
                write_sized(key.as_bytes(), to);
                value.write(to);
            }
        }
        to.push(0);
    }
    fn read(from: &mut Reader) -> Result<Self, DatumError> {
        let mut all = Self::new();
        loop {
            match from.block(2)? {
                0 => return Ok(all),
                count => {
                    check_length(all.len(), count, Request::MAX_VARIABLES)?;
                    for _ in 0..count {
                        let key = from.text()?.to_owned();
                        all.insert(key, T::read(from)?);
                    }
                }
            }
        }
    }
}

/// Refuses `more` elements before they are read, where a list or map of `length` would have too many.
fn check_length(length: usize, more: usize, max: usize) -> Result<(), DatumError> {
    if length.saturating_add(more) > max { Err(DatumError(Fault::TooLong { max })) } else { Ok(()) }
}

/// Milliseconds since 1970, as the logical type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timestamp(pub(crate) i64);

impl Datum for Timestamp {
    #[cfg(test)]
    fn schema() -> serde_json::Value {
        serde_json::json!({"type": "long", "logicalType": "timestamp-millis"})
    }
    fn write(&self, to: &mut Vec<u8>) {
        self.0.write(to);
    }
    fn read(from: &mut Reader) -> Result<Self, DatumError> {
        i64::read(from).map(Self)
    }
}

/// An enum of the protocol.
pub(crate) trait Symbols: Copy + 'static {
    const ALL: &'static [Self];
    fn symbol(self) -> &'static str;
}

/// The one with this symbol.
pub(crate) fn named<T: Symbols>(symbol: &str) -> Option<T> {
    T::ALL.iter().copied().find(|known| known.symbol() == symbol)
}

/// Records of the protocol, whose fields stand in its order.
macro_rules! records {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type,)*
        }

        impl $crate::datum::Datum for $name {
            #[cfg(test)]
            fn schema() -> serde_json::Value {
                stringify!($name).into()
            }
            fn write(&self, to: &mut Vec<u8>) {
                let _ = &to;
                $($crate::datum::Datum::write(&self.$field, to);)*
            }
            fn read(
                from: &mut $crate::datum::Reader,
            ) -> Result<Self, $crate::datum::DatumError> {
                let _ = &from;
                Ok(Self { $($field: $crate::datum::Datum::read(from)?,)* })
            }
        }

        #[cfg(test)]
        impl $crate::datum::Fields for $name {
            const NAME: &'static str = stringify!($name);
            fn fields() -> Vec<(&'static str, serde_json::Value)> {
                vec![$((
                    stringify!($field),
                    <$type as $crate::datum::Datum>::schema(),
                ),)*]
            }
        }
    )*};
}

/// Enums of the protocol, whose symbols stand in its order.
macro_rules! symbols {
    ($($(#[$meta:meta])* $vis:vis enum $name:ident { $($variant:ident = $symbol:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name { $($variant,)* }

        impl $crate::datum::Symbols for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn symbol(self) -> &'static str {
                match self { $(Self::$variant => $symbol,)* }
            }
        }

        impl $crate::datum::Datum for $name {
            #[cfg(test)]
            fn schema() -> serde_json::Value {
                stringify!($name).into()
            }
            fn write(&self, to: &mut Vec<u8>) {
                $crate::datum::write_long(*self as i64, to);
            }
            fn read(
                from: &mut $crate::datum::Reader,
            ) -> Result<Self, $crate::datum::DatumError> {
                let all = <Self as $crate::datum::Symbols>::ALL;
                Ok(all[from.symbol(all.len())?])
            }
        }
    )*};
}

pub(crate) use {records, symbols};

/// The fields of a record, for the test that compares them with the protocol's.
#[cfg(test)]
pub(crate) trait Fields {
    const NAME: &'static str;
    fn fields() -> Vec<(&'static str, serde_json::Value)>;
}

/// In all lists and maps of one value together.
pub(crate) const MAX_ELEMENTS: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            number in any::<i64>(), small in any::<i32>(), text in ".*", flag in any::<bool>(),
            list in prop::collection::vec(prop::option::of(".*"), 0..20),
            map in prop::collection::btree_map(".*", prop::collection::vec(any::<u8>(), 0..9), 0..9),
        ) {
            let map: BTreeMap<String, Bytes> =
                map.into_iter().map(|(key, value)| (key, value.into())).collect();
            let mut bytes = Vec::new();
            number.write(&mut bytes);
            small.write(&mut bytes);
            text.write(&mut bytes);
            flag.write(&mut bytes);
            list.write(&mut bytes);
            map.write(&mut bytes);
            let mut reader = Reader::new(bytes.into());
            prop_assert_eq!(i64::read(&mut reader), Ok(number));
            prop_assert_eq!(i32::read(&mut reader), Ok(small));
            prop_assert_eq!(String::read(&mut reader), Ok(text));
            prop_assert_eq!(bool::read(&mut reader), Ok(flag));
            prop_assert_eq!(Vec::<Option<String>>::read(&mut reader), Ok(list));
            prop_assert_eq!(BTreeMap::<String, Bytes>::read(&mut reader), Ok(map));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn lists_and_maps_have_so_many_elements_only() {
        // Empty texts, in one block or in blocks of one.
        let encoded = |count: usize, element: &[u8], blocks: usize| {
            let mut bytes = Vec::new();
            for _ in 0..blocks {
                write_long(i64::try_from(count / blocks).expect("small"), &mut bytes);
                bytes.extend(element.repeat(count / blocks));
            }
            bytes.push(0);
            Reader::new(bytes.into())
        };
        let list = |count, blocks| {
            Vec::<String>::read(&mut encoded(count, &[0], blocks)).map(|all| all.len())
        };
        let max = Request::MAX_ARGS;
        assert_eq!(list(max, 1), Ok(max));
        for blocks in [1, max + 1] {
            assert_eq!(list(max + 1, blocks), Err(DatumError(Fault::TooLong { max })));
        }
        let map = |count| {
            BTreeMap::<String, String>::read(&mut encoded(count, &[0, 0], 1)).map(|all| all.len())
        };
        let max = Request::MAX_VARIABLES;
        assert!(map(max).is_ok());
        assert_eq!(map(max + 1), Err(DatumError(Fault::TooLong { max })));
    }

    #[test]
    fn claims_are_not_believed() {
        let read = |bytes: &[u8]| Vec::<String>::read(&mut Reader::new(bytes.to_vec().into()));
        let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert!(matches!(read(&huge), Err(DatumError(Fault::Length { .. }))));
        assert_eq!(read(&[0xff; 11]), Err(DatumError(Fault::Varint)));
        assert_eq!(read(&[]), Err(DatumError(Fault::Short)));
        // The least that there is, whose negation does not fit.
        let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00];
        assert_eq!(read(&least), Err(DatumError(Fault::Varint)));
        // Blocks with their size in bytes, as some writers give it.
        assert_eq!(read(&[1, 4, 2, b'a', 0]), Ok(vec!["a".to_owned()]));
    }
}
