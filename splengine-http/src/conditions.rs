//! Conditions of requests (RFC 9110, section 13).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use headers::{
    ETag, Header, HeaderMapExt as _, IfMatch, IfModifiedSince, IfNoneMatch, IfRange,
    IfUnmodifiedSince, LastModified,
};
use splengine_core::FileInfo;

use crate::problem::Problem;

/// What must be true of a file for a request to be met.
#[derive(Debug)]
pub(crate) struct Conditions {
    matches: Option<IfMatch>,
    unmodified: Option<IfUnmodifiedSince>,
    matches_none: Option<IfNoneMatch>,
    modified: Option<IfModifiedSince>,
    range: Option<IfRange>,
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
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        for name in [IF_MATCH, IF_NONE_MATCH] {
            check_tags(headers, &name)?;
        }
        Ok(Self {
            matches: typed(headers)?,
            unmodified: typed(headers)?,
            matches_none: typed(headers)?,
            modified: typed(headers)?,
            range: typed(headers)?,
        })
    }

    /// In the order of section 13.2.2.
    pub(crate) fn read(&self, info: &FileInfo) -> Result<Reading, Problem> {
        let tag = tag(info);
        if !self.allows_present(info, &tag) {
            return Err(failed());
        }
        let has_it = match (&self.matches_none, &self.modified) {
            (Some(condition), _) => !condition.precondition_passes(&tag),
            (None, Some(condition)) => !condition.is_modified(modified(info)),
            (None, None) => false,
        };
        if has_it {
            return Ok(Reading::NotModified);
        }
        let last = LastModified::from(modified(info));
        let ranges = self.range.as_ref();
        let ranges = ranges.is_none_or(|range| !range.is_modified(Some(&tag), Some(&last)));
        Ok(Reading::File { ranges })
    }

    /// Whether what is there, if anything is, may be changed.
    pub(crate) fn allow_change(&self, present: Option<&FileInfo>) -> bool {
        let Some(info) = present else { return self.matches.is_none() };
        let tag = tag(info);
        let none = self.matches_none.as_ref();
        self.allows_present(info, &tag)
            && none.is_none_or(|condition| condition.precondition_passes(&tag))
    }

    fn allows_present(&self, info: &FileInfo, tag: &ETag) -> bool {
        match (&self.matches, &self.unmodified) {
            (Some(condition), _) => condition.precondition_passes(tag),
            (None, Some(condition)) => condition.precondition_passes(modified(info)),
            (None, None) => true,
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

/// When its content changed last, as far as a date can say that: a program may have set any time.
pub(crate) fn modified(info: &FileInfo) -> SystemTime {
    info.modified.clamp(UNIX_EPOCH, UNIX_EPOCH + END_OF_DATES)
}

/// The last second of the year 9999.
const END_OF_DATES: Duration = Duration::from_secs(253_402_300_799);

fn tag(info: &FileInfo) -> ETag {
    // Hexadecimal digits and hyphens always are one.
    tag_text(info).parse().unwrap_or_else(|_| unreachable!("{}", info.revision()))
}

/// What is no tag would match nothing, and nobody would know why.
fn check_tags(headers: &HeaderMap, name: &HeaderName) -> Result<(), Problem> {
    let are_tags = headers.get_all(name).iter().all(|value| {
        let text = value.to_str().unwrap_or_default().trim();
        let tags = text.strip_prefix("W/").unwrap_or(text);
        text == "*" || tags.len() > 1 && tags.starts_with('"') && tags.ends_with('"')
    });
    if are_tags {
        return Ok(());
    }
    let detail = format!("the header `{name}` must be `*`, or tags with their quotation marks");
    Err(Problem::malformed(detail))
}

fn typed<T: Header>(headers: &HeaderMap) -> Result<Option<T>, Problem> {
    headers.typed_try_get().map_err(|_| {
        Problem::malformed(format!("the header `{}` is not of its form (RFC 9110)", T::name()))
    })
}
