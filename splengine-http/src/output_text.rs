//! Output as text within JSON, made piece by piece.

use std::mem;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use splengine_core::text::Utf8Pieces;

use crate::dto::EncodingDto;

/// How output is put into text.
pub(crate) enum Text {
    Utf8(Utf8Pieces),
    /// What does not make three bytes yet.
    Base64(Vec<u8>),
}

impl Text {
    pub(crate) fn new(encoding: EncodingDto) -> Self {
        match encoding {
            EncodingDto::Utf8 => Self::Utf8(Utf8Pieces::default()),
            EncodingDto::Base64 => Self::Base64(Vec::new()),
        }
    }

    pub(crate) fn push(&mut self, data: &[u8]) -> String {
        match self {
            Self::Utf8(pieces) => pieces.push(data),
            Self::Base64(rest) => {
                rest.extend_from_slice(data);
                let left = rest.split_off(rest.len() / 3 * 3);
                BASE64_STANDARD.encode(mem::replace(rest, left))
            }
        }
    }

    /// What stands on either side of a gap, or is of two steps, forms no character.
    pub(crate) fn pause(&mut self) -> String {
        match self {
            Self::Utf8(pieces) => pieces.finish(),
            Self::Base64(_) => String::new(),
        }
    }

    /// The last of it.
    pub(crate) fn finish(&mut self) -> String {
        match self {
            Self::Utf8(_) => self.pause(),
            Self::Base64(rest) => BASE64_STANDARD.encode(mem::take(rest)),
        }
    }
}

/// Appends `text` as a part of a string of JSON.
pub(crate) fn quote(text: &str, json: &mut String) {
    if !text.is_empty() {
        let quoted = serde_json::to_string(text).expect("text is written to memory");
        json.push_str(&quoted[1..quoted.len() - 1]);
    }
}

/// What stands before, between and after the two empty outputs in an object. Within strings the same
/// is written with backslashes.
pub(crate) fn around_outputs(object: &str) -> Option<[&str; 3]> {
    let second = object.rfind(EMPTY_STDERR)?;
    let first = object[..second].rfind(EMPTY_STDOUT)? + EMPTY_STDOUT.len() - 1;
    let second = second + EMPTY_STDERR.len() - 1;
    Some([&object[..first], &object[first..second], &object[second..]])
}

const EMPTY_STDOUT: &str = r#""stdout":"""#;
const EMPTY_STDERR: &str = r#""stderr":"""#;
