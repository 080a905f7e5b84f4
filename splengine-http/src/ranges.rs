//! Parts of what is asked for (RFC 9110, section 14).

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use crate::headers::header;
use crate::problem::Problem;

/// The part that `Range` asks for of what has this length, or all of it.
pub(crate) fn answer(
    headers: &HeaderMap,
    length: u64,
    media_type: &'static str,
    body: impl FnOnce(u64, u64) -> Body,
) -> Result<Response, Problem> {
    let wanted = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let (status, from, until) = match wanted.map(|text| range(text, length)) {
        None | Some(Wanted::Whole) => (StatusCode::OK, 0, length),
        Some(Wanted::Part(from, until)) => (StatusCode::PARTIAL_CONTENT, from, until),
        Some(Wanted::Nothing) => {
            let detail = format!("there are {length} bytes");
            let mut response =
                Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail).into_response();
            response.headers_mut().insert(CONTENT_RANGE, header(&format!("bytes */{length}")));
            return Ok(response);
        }
    };
    let mut response = (status, body(from, until)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(until - from));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {from}-{}/{length}", until - 1);
        headers.insert(CONTENT_RANGE, header(&value));
    }
    Ok(response)
}

/// The part, for fuzzers: `None` for the whole, and where nothing is left.
#[cfg(any(fuzzing, test))]
pub(crate) fn part(text: &str, length: u64) -> Option<(u64, u64)> {
    match range(text, length) {
        Wanted::Part(from, until) => Some((from, until)),
        Wanted::Whole | Wanted::Nothing => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(u64, u64),
    Nothing,
}

/// The one range of RFC 9110, section 14.2, that is asked for; several, or what is no range, are
/// answered with the whole, as it allows.
fn range(text: &str, length: u64) -> Wanted {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|text| text.split_once('-'))
    else {
        return Wanted::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    let (from, until) = if first.is_empty() {
        let Some(count) = number(last) else { return Wanted::Whole };
        (length.saturating_sub(count), length)
    } else {
        let Some(from) = number(first) else { return Wanted::Whole };
        let until = match number(last) {
            Some(last) if last < from => return Wanted::Whole,
            Some(last) => last.saturating_add(1).min(length),
            None if last.is_empty() => length,
            None => return Wanted::Whole,
        };
        (from, until)
    };
    if from < until { Wanted::Part(from, until) } else { Wanted::Nothing }
}

/// Digits and nothing else; more than can be are the most that can be.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (text, expected) in [
            ("bytes=0-4", Wanted::Part(0, 5)),
            ("bytes=5-", Wanted::Part(5, 10)),
            ("bytes=-3", Wanted::Part(7, 10)),
            ("bytes=-30", Wanted::Part(0, 10)),
            ("bytes=8-30", Wanted::Part(8, 10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes=x-1", Wanted::Whole),
            ("bytes=+1-4", Wanted::Whole),
            ("bytes=1-+4", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=2-99999999999999999999999", Wanted::Part(2, 10)),
        ] {
            assert_eq!(range(text, 10), expected, "{text}");
        }
    }
}
