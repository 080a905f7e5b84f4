//! JSON bodies of requests: what is taken beside the letter of RFC 8259, and what is said of those
//! that do not fit.

use std::borrow::Cow;
use std::fmt;

use axum::http::StatusCode;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use crate::bounded::TOO_MANY;
use crate::problem::Problem;

/// Parses a body. A byte order mark before it is skipped, and whole numbers may be written with a
/// fraction of zeros or an exponent (`30000.0`, `3e4`), as many languages write them.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    // Their members stand by their names; serde would take a list of them in our order, too.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::malformed("the body is not a request: it is a list, not an object"));
    }
    if has_more_members(bytes, MAX_MEMBERS) {
        let detail =
            format!("the body has more than {MAX_MEMBERS} members and elements, the maximum");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let bytes = plain_whole_numbers(bytes);
    let mut deserializer = serde_json::Deserializer::from_slice(&bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let dto = parsed.map_err(|error| match problem_in::<T>(&bytes, &error) {
        Some(words) => misfit(error.path(), &words),
        None => not_json(error.inner()),
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(dto)
}

/// Returns whether the list `member` of a body has more than `max` elements. Nothing is made of them,
/// which may take a hundred times as much memory as their text does. A body that is none is not judged
/// here.
pub(crate) fn is_longer(bytes: &[u8], member: &str, max: usize) -> bool {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut is_longer = false;
    let members = Members { member, elements: Elements { max, is_longer: &mut is_longer } };
    // An error is that it is longer, or what the parser will say.
    let _ = serde_json::Deserializer::from_slice(bytes).deserialize_map(members);
    is_longer
}

struct Members<'a> {
    member: &'a str,
    elements: Elements<'a>,
}

struct Elements<'a> {
    max: usize,
    is_longer: &'a mut bool,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Elements { max, is_longer } = self.elements;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if name == self.member {
                map.next_value_seed(Elements { max, is_longer: &mut *is_longer })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut count = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
            if count > self.max {
                *self.is_longer = true;
                return Err(A::Error::custom("it is too long"));
            }
        }
        Ok(())
    }
}

/// The words of a serde error, such as `unknown variant`, as what is said of a member.
pub(crate) fn in_words(error: &str) -> Complaint {
    let error = error.split(" at line ").next().unwrap_or(error);
    for start in ["invalid type: ", "invalid value: "] {
        let found = error.strip_prefix(start).and_then(|rest| rest.split_once(", expected "));
        if let Some((found, expected)) = found {
            return Complaint::of(format!("must be {}, not {}", wanted(expected), shown(found)));
        }
    }
    if let Some((name, expected)) = quoted_after(error, "unknown variant `") {
        return Complaint::of(format!("must be {}, not `{name}`", wanted(expected)));
    }
    if let Some((name, expected)) = quoted_after(error, "unknown field `") {
        let known = expected.strip_prefix("one of ").unwrap_or(expected);
        return Complaint::of_member(
            name,
            format!("is out of place: unknown field `{name}`; there is: {known}"),
        );
    }
    for (start, what) in [("missing field `", "is missing"), ("duplicate field `", "stands twice")]
    {
        if let Some(name) = error.strip_prefix(start) {
            return Complaint::of_member(name.trim_end_matches('`'), what.to_owned());
        }
    }
    if error.starts_with(TOO_MANY) {
        return Complaint { is_over: true, ..Complaint::of(error.to_owned()) };
    }
    Complaint::of(format!("is wrong: {error}"))
}

/// What is wrong, and with which member of the place that an error names, if not the place itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    member: Option<String>,
    pub(crate) what: String,
    /// It is over a maximum.
    is_over: bool,
}

impl Complaint {
    fn of(what: String) -> Self {
        Self { member: None, what, is_over: false }
    }

    fn of_member(name: &str, what: String) -> Self {
        Self { member: Some(name.to_owned()), what, is_over: false }
    }
}

/// `name` and what is expected, of "…`name`, expected …".
fn quoted_after<'a>(error: &'a str, start: &str) -> Option<(&'a str, &'a str)> {
    error.strip_prefix(start)?.split_once("`, expected ")
}

/// Serde's name of what it expected, in JSON's words.
fn wanted(expected: &str) -> Cow<'_, str> {
    let largest = match expected {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => return "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => return "a whole number".into(),
        "f32" | "f64" => return "a number".into(),
        "a boolean" => return "true or false".into(),
        "a sequence" => return "a list".into(),
        "a map" => return "an object".into(),
        "a borrowed string" | "string or map" => return "a string".into(),
        _ if expected.starts_with("struct ") => return "an object".into(),
        _ => return expected.into(),
    };
    format!("a whole number from 0 to {largest}").into()
}

/// Serde's name of what it found. What a string holds may be a secret.
fn shown(found: &str) -> Cow<'_, str> {
    if found.starts_with("string ") {
        return "a string".into();
    }
    match found {
        "map" => "an object".into(),
        "sequence" => "a list".into(),
        "unit" | "Option value" => "null".into(),
        _ => match found.split_once(" `") {
            Some(("integer" | "floating point", number)) => {
                format!("the number {}", number.trim_end_matches('`')).into()
            }
            Some((_, value)) => value.trim_end_matches('`').to_owned().into(),
            None => found.into(),
        },
    }
}

/// What is wrong with a body that is JSON; nothing when it is none.
fn problem_in<T: DeserializeOwned>(
    bytes: &[u8],
    error: &serde_path_to_error::Error<serde_json::Error>,
) -> Option<Complaint> {
    let inner = error.inner();
    if inner.is_data() {
        return Some(in_words(&inner.to_string()));
    }
    // Where a word is expected, anything but a string is an error of syntax for serde_json.
    let is_json = inner.is_syntax()
        && std::str::from_utf8(bytes).is_ok()
        && serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    is_json.then(|| {
        let words = misplaced::<T>(bytes, &pointer(error.path()));
        words.unwrap_or_else(|| Complaint::of("must be a string, one of a few words".to_owned()))
    })
}

/// What is said of a value that should have been a word: those that there are, by asking for one
/// that there is not.
fn misplaced<T: DeserializeOwned>(bytes: &[u8], pointer: &str) -> Option<Complaint> {
    if bytes.len() > MAX_EXPLAINED_BYTES {
        return None;
    }
    let mut body: Value = serde_json::from_slice(bytes).ok()?;
    let value = body.pointer_mut(pointer)?;
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    *value = Value::String(String::new());
    let error = T::deserialize(body).err()?.to_string();
    let (_, expected) = quoted_after(&error, "unknown variant `")?;
    Some(Complaint::of(format!("must be {expected}, not {found}")))
}

fn misfit(path: &Path, words: &Complaint) -> Problem {
    let Complaint { member, what, is_over } = words;
    let (mut pointer, mut path) = (pointer(path), path.to_string());
    if path == "." {
        path.clear();
    }
    if let Some(member) = member {
        let step = escaped(member);
        if !pointer.ends_with(&format!("/{step}")) {
            pointer = format!("{pointer}/{step}");
            path = if path.is_empty() { member.clone() } else { format!("{path}.{member}") };
        }
    }
    if path.is_empty() {
        return Problem::malformed(format!("the body is not a request: it {what}"));
    }
    let status = if *is_over { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
    Problem::new(status, format!("`{path}` {what} (at {pointer})")).at(pointer)
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::malformed(format!("the body is not JSON: {error}"))
}

/// The JSON pointer (RFC 6901) of a place.
fn pointer(path: &Path) -> String {
    let steps = path.iter().map(|segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", escaped(key)),
        Segment::Enum { variant } => format!("/{}", escaped(variant)),
        Segment::Unknown => "/?".to_owned(),
    });
    steps.collect()
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The same text with whole numbers written as digits alone.
fn plain_whole_numbers(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut plain = Vec::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let end = at + bytes[at..].iter().take_while(is_part).count();
                if let Some(digits) = whole_number(&bytes[at..end]) {
                    plain.extend_from_slice(&bytes[copied..at]);
                    plain.extend_from_slice(digits.as_bytes());
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(bytes);
    }
    plain.extend_from_slice(&bytes[copied..]);
    Cow::Owned(plain)
}

/// Whether all objects and lists of a text in JSON have more members and elements than `max`: whether more
/// commas stand outside of strings. Counted before anything is made of them.
fn has_more_members(bytes: &[u8], max: usize) -> bool {
    let (mut count, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        if byte == b'"' {
            at = end_of_string(bytes, at);
            continue;
        }
        count += usize::from(byte == b',');
        at += 1;
    }
    count > max
}

/// Where the string that begins at `at` is over.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'"' => return end + 1,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    bytes.len()
}

/// The digits of a number with a fraction or an exponent that is whole, and has no more digits than
/// any number here.
fn whole_number(token: &[u8]) -> Option<String> {
    let token = std::str::from_utf8(token).ok()?;
    let (sign, rest) = match token.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", token),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (integer, fraction) = match mantissa.split_once('.') {
        Some((integer, fraction)) => (integer, Some(fraction)),
        None => (mantissa, None),
    };
    if exponent.is_none() && fraction.is_none() {
        return None;
    }
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let has_leading_zero = integer.len() > 1 && integer.starts_with('0');
    if !is_digits(integer) || has_leading_zero || !fraction.is_none_or(is_digits) {
        return None;
    }
    let power: i64 = match exponent {
        None => 0,
        Some(text) => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            if !is_digits(digits) {
                return None;
            }
            text.parse().ok()?
        }
    };
    let digits = [integer, fraction.unwrap_or_default()].concat();
    let significant = digits.trim_end_matches('0');
    let dropped = digits.len() - significant.len();
    let power = power.checked_add(i64::try_from(dropped).ok()?)?;
    let power = power.checked_sub(i64::try_from(fraction.unwrap_or_default().len()).ok()?)?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let zeros = usize::try_from(power).ok().filter(|zeros| *zeros <= MAX_DIGITS)?;
    if significant.len() + zeros > MAX_DIGITS {
        return None;
    }
    Some(format!("{sign}{significant}{}", "0".repeat(zeros)))
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Maximum number of members and elements of all objects and lists of a body.
const MAX_MEMBERS: usize = 1 << 18;
/// Of `u64::MAX`.
const MAX_DIGITS: usize = 20;
/// Largest body that is parsed a second time to say which words there are.
const MAX_EXPLAINED_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests;
