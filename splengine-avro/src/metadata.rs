//! The metadata of calls and answers.

use std::time::Duration;

use bytes::Bytes;
use splengine_core::auth::{Credentials, Secret};

use crate::datum::{DatumError, Reader, write_long, write_sized};
use crate::error::Failure;
use crate::records::ErrorCode;

/// What a call's metadata says to us; of what else it holds we know nothing.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    authorization: Option<Bytes>,
    deadline: Option<Bytes>,
    pub(crate) request_id: Option<Bytes>,
    pub(crate) trace_parent: Option<Bytes>,
    /// By which avro-js tells answers apart: the answer's is the negation.
    id: Option<i32>,
}

/// The metadata of an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Echo {
    request_id: Option<Bytes>,
    id: Option<i32>,
    pub(crate) error_code: Option<&'static str>,
    pub(crate) reason: Option<&'static str>,
}

impl Metadata {
    pub(crate) fn read(from: &mut Reader) -> Result<Self, DatumError> {
        let begin = from.left();
        let mut metadata = Self::default();
        loop {
            let count = from.block(2)?;
            if count == 0 {
                return Ok(metadata);
            }
            for _ in 0..count {
                let slot = match from.text()? {
                    "spl-authorization" => Some(&mut metadata.authorization),
                    "spl-deadline-ms" => Some(&mut metadata.deadline),
                    "spl-request-id" => Some(&mut metadata.request_id),
                    "traceparent" => Some(&mut metadata.trace_parent),
                    "id" => {
                        let value = from.sized_bytes()?;
                        metadata.id = value.as_ref().try_into().ok().map(i32::from_be_bytes);
                        None
                    }
                    _ => {
                        from.skip_sized()?;
                        None
                    }
                };
                if let Some(slot) = slot {
                    *slot = Some(from.sized_bytes()?);
                }
                if begin - from.left() > MAX_METADATA_BYTES {
                    return Err(DatumError::deep());
                }
            }
        }
    }

    /// What the call shows of who it is from.
    pub(crate) fn credentials(&self) -> Result<Credentials, Failure> {
        let Some(value) = &self.authorization else { return Ok(Credentials::None) };
        let text = std::str::from_utf8(value).ok().map(str::trim);
        let shown = text.and_then(|text| match text.contains(' ') {
            true => Credentials::parse_bearer(text).or_else(|| Credentials::parse_basic(text)),
            // The token alone.
            false => Some(Credentials::Bearer(Secret::new(text))),
        });
        shown.ok_or_else(|| {
            let message = "`spl-authorization` must be of the form `Bearer TOKEN`";
            Failure::new(ErrorCode::Unauthenticated, message)
        })
    }

    /// How long the caller waits for the answer.
    pub(crate) fn deadline(&self) -> Result<Option<Duration>, Failure> {
        let Some(value) = &self.deadline else { return Ok(None) };
        let is_number = value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).ok().filter(|_| is_number);
        let millis = text.and_then(|text| text.parse::<u64>().ok());
        let millis = millis.ok_or_else(|| {
            Failure::invalid("`spl-deadline-ms` must be a whole number of milliseconds, in digits")
        })?;
        if millis == 0 { Err(Failure::overdue()) } else { Ok(Some(Duration::from_millis(millis))) }
    }

    pub(crate) fn echo(&self) -> Echo {
        let request_id = self.request_id.clone().filter(|id| id.len() <= MAX_ID_BYTES);
        let id = self.id.filter(|id| *id < 0).map(i32::wrapping_neg);
        Echo { request_id, id, error_code: None, reason: None }
    }
}

impl Echo {
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        let id = self.id.map(i32::to_be_bytes);
        let entries = [
            ("spl-error-code", self.error_code.map(str::as_bytes)),
            ("spl-reason", self.reason.map(str::as_bytes)),
            ("spl-request-id", self.request_id.as_deref()),
            ("id", id.as_ref().map(|id| &id[..])),
        ];
        let count = entries.iter().filter(|(_, value)| value.is_some()).count();
        if count > 0 {
            write_long(count as i64, to);
            for (key, value) in entries {
                if let Some(value) = value {
                    write_sized(key.as_bytes(), to);
                    write_sized(value, to);
                }
            }
        }
        to.push(0);
    }
}

/// All of it, in bytes. A call with more is refused.
const MAX_METADATA_BYTES: usize = 64 << 10;
/// A longer one is not echoed.
const MAX_ID_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::datum::Datum as _;

    fn metadata(entries: &[(&str, &[u8])]) -> Metadata {
        let map: BTreeMap<String, Bytes> = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Bytes::copy_from_slice(value)))
            .collect();
        let mut bytes = Vec::new();
        map.write(&mut bytes);
        Metadata::read(&mut Reader::new(bytes.into())).expect("metadata")
    }

    #[test]
    fn credentials_are_found_and_never_shown() {
        for value in ["Bearer t0ken", "bearer  t0ken", "t0ken"] {
            let metadata = metadata(&[("spl-authorization", value.as_bytes())]);
            let Ok(Credentials::Bearer(token)) = metadata.credentials() else { panic!() };
            assert_eq!(token.expose(), "t0ken");
        }
        let basic = metadata(&[("spl-authorization", b"Basic dXNlcg==")]);
        assert!(basic.credentials().is_err());
        let nothing = metadata(&[("other", b"x")]);
        assert!(matches!(nothing.credentials(), Ok(Credentials::None)));
    }

    #[test]
    fn the_id_of_avro_js_comes_back_negated() {
        let mut bytes = Vec::new();
        metadata(&[("id", &[0xff; 4])]).echo().write(&mut bytes);
        assert_eq!(bytes, b"\x02\x04id\x08\0\0\0\x01\0");
        let mut bytes = Vec::new();
        metadata(&[("id", b"mine")]).echo().write(&mut bytes);
        assert_eq!(bytes, [0]);
    }

    #[test]
    fn deadlines_are_numbers() {
        let deadline = |text: &str| metadata(&[("spl-deadline-ms", text.as_bytes())]).deadline();
        assert_eq!(deadline("250"), Ok(Some(Duration::from_millis(250))));
        for wrong in ["", "-1", "+1", "1s", "0"] {
            assert!(deadline(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn too_much_of_it_is_refused() {
        let map = BTreeMap::from([("x".to_owned(), Bytes::from(vec![0; MAX_METADATA_BYTES]))]);
        let mut bytes = Vec::new();
        map.write(&mut bytes);
        assert!(Metadata::read(&mut Reader::new(bytes.into())).is_err());
    }
}
