//! Conditions of requests (RFC 9110, section 13). Pure, but for the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use splengine_core::files::FileInfo;

use crate::problem::Problem;

/// What must be true of a file for a request to be met.
#[derive(Debug)]
pub(crate) struct Conditions {
    matches: Option<Tags>,
    matches_none: Option<Tags>,
    modified_since: Option<SystemTime>,
    unmodified_since: Option<SystemTime>,
    range: Option<String>,
}

/// Entity tags that a client names.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    /// Those that are strong, with their quotation marks, and those that are weak, without `W/`.
    These {
        strong: Vec<String>,
        weak: Vec<String>,
    },
}

/// How a request to read goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// With the file; a part of it only if that is asked for and `ranges` is true.
    File { ranges: bool },
    /// The client has it.
    NotModified,
}

impl Conditions {
    /// Dates that are none are ignored, as sections 13.1.3 to 13.1.5 want it; tags that are none
    /// are refused: they would protect nothing, and nobody would know.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            matches: Tags::of(headers, &IF_MATCH)?,
            matches_none: Tags::of(headers, &IF_NONE_MATCH)?,
            modified_since: date(headers, &IF_MODIFIED_SINCE),
            unmodified_since: date(headers, &IF_UNMODIFIED_SINCE),
            range: headers
                .get(IF_RANGE)
                .map(|value| value.to_str().unwrap_or_default().trim().to_owned()),
        })
    }

    /// In the order of section 13.2.2.
    pub(crate) fn read(&self, info: &FileInfo) -> Result<Reading, Problem> {
        if !self.allow_present(info) {
            return Err(failed());
        }
        let tag = tag_text(info);
        let has_it = match (&self.matches_none, self.modified_since) {
            (Some(tags), _) => tags.match_weakly(&tag),
            (None, Some(since)) => modified(info) <= since,
            (None, None) => false,
        };
        if has_it {
            return Ok(Reading::NotModified);
        }
        // A date is as exact as a second, and a file may change more often: whoever shows one gets
        // the whole.
        let ranges = self.range.as_ref().is_none_or(|range| *range == tag);
        Ok(Reading::File { ranges })
    }

    /// The same for what has a tag, but no time of change: its dates are passed over. What is not
    /// complete yet is never what a client has already.
    pub(crate) fn read_tagged(&self, tag: &str, is_complete: bool) -> Result<Reading, Problem> {
        if self.matches.as_ref().is_some_and(|tags| !tags.match_strongly(tag)) {
            return Err(failed());
        }
        if is_complete && self.matches_none.as_ref().is_some_and(|tags| tags.match_weakly(tag)) {
            return Ok(Reading::NotModified);
        }
        Ok(Reading::File { ranges: self.range.as_ref().is_none_or(|range| range == tag) })
    }

    /// Whether what is there, if anything is, may be changed.
    pub(crate) fn allow_change(&self, present: Option<&FileInfo>) -> bool {
        let Some(info) = present else { return self.matches.is_none() };
        let none = self.matches_none.as_ref();
        self.allow_present(info) && none.is_none_or(|tags| !tags.match_weakly(&tag_text(info)))
    }

    fn allow_present(&self, info: &FileInfo) -> bool {
        match (&self.matches, self.unmodified_since) {
            (Some(tags), _) => tags.match_strongly(&tag_text(info)),
            (None, Some(since)) => modified(info) <= since,
            (None, None) => true,
        }
    }
}

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        if !headers.contains_key(name) {
            return Ok(None);
        }
        let lines: Option<Vec<&str>> =
            headers.get_all(name).iter().map(|value| value.to_str().ok()).collect();
        let tags = lines.and_then(|lines| Self::parse(&lines.join(",")));
        let detail =
            || format!("the header `{name}` must be `*`, or tags with their quotation marks");
        tags.map(Some).ok_or_else(|| Problem::malformed(detail()))
    }

    /// `*`, or a list, which may have empty elements (sections 5.6.1.2 and 8.8.3).
    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let (mut strong, mut weak) = (Vec::new(), Vec::new());
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let (is_weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
            let end = tag.strip_prefix('"')?.find('"')? + 2;
            let (tag, after) = tag.split_at(end);
            if tag.contains([' ', '\t']) {
                return None;
            }
            if is_weak { &mut weak } else { &mut strong }.push(tag.to_owned());
            rest = after.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(',') {
                return None;
            }
        }
        (!strong.is_empty() || !weak.is_empty()).then_some(Self::These { strong, weak })
    }

    fn match_strongly(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These { strong, .. } => strong.iter().any(|known| known == tag),
        }
    }

    fn match_weakly(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These { strong, weak } => strong.iter().chain(weak).any(|known| known == tag),
        }
    }
}

pub(crate) fn failed() -> Problem {
    let detail = "it is not, or no longer, as the condition says; look at it again";
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}

pub(crate) fn tag_text(info: &FileInfo) -> String {
    format!("\"{}\"", info.revision())
}

/// When its content changed last, in whole seconds and as far as a date can say that: a program may
/// have set any time, and none may be in the future (section 8.8.2.1).
pub(crate) fn modified(info: &FileInfo) -> SystemTime {
    let time = info.modified.clamp(UNIX_EPOCH, SystemTime::now().max(UNIX_EPOCH));
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_the_standard_says() {
        let these = |strong: &[&str], weak: &[&str]| {
            let owned = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
            Some(Tags::These { strong: owned(strong), weak: owned(weak) })
        };
        for (text, expected) in [
            ("*", Some(Tags::Any)),
            (" \"a\" ", these(&["\"a\""], &[])),
            ("\"a\",W/\"b\" , \"\"", these(&["\"a\"", "\"\""], &["\"b\""])),
            (", \"a,b\",,", these(&["\"a,b\""], &[])),
            ("\"a\" \"b\"", None),
            ("\"a b\"", None),
            ("\"a", None),
            ("a", None),
            ("w/\"a\"", None),
            ("W/", None),
            ("*, \"a\"", None),
            (",", None),
            ("", None),
        ] {
            assert_eq!(Tags::parse(text), expected, "{text}");
        }
        let tags = Tags::parse("W/\"a\", \"b\"").expect("two");
        assert!(tags.match_weakly("\"a\"") && !tags.match_strongly("\"a\""));
        assert!(tags.match_weakly("\"b\"") && tags.match_strongly("\"b\""));
    }
}
