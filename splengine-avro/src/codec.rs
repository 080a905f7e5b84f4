//! `Command` and `ExecutionResult` outside of calls: as bare data, as single objects, and in the
//! form of schema registries, as Kafka's users have them.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use bytes::Bytes;

use crate::datum::{Datum, DatumError, Reader};
use crate::protocol::ours;
use crate::records::{Command, ExecutionResult};

/// Bytes that are no such record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes do not begin as this form does.
    #[error("the bytes do not begin with {0}")]
    Marker(&'static str),
    /// The bytes were written with another schema.
    #[error("the bytes were written with the schema {found:016x}, and not with {expected:016x}")]
    Schema {
        /// The fingerprint that they have.
        found: u64,
        /// The record's own.
        expected: u64,
    },
    /// The datum after the header can't be read.
    #[error("the bytes can't be read: {0}")]
    Datum(#[from] DatumError),
}

/// A record's schema, as JSON and as its CRC-64-AVRO fingerprint.
struct Known {
    json: String,
    fingerprint: u64,
}

impl Known {
    fn of(name: &str) -> Self {
        let schema = ours().declared.schema(name).expect("a test says that it is there");
        let json = serde_json::to_string(&schema).unwrap_or_default();
        Self { fingerprint: fingerprint(&schema), json }
    }
}

fn fingerprint(schema: &Schema) -> u64 {
    let sum = schema.fingerprint::<Rabin>();
    sum.bytes.try_into().map(u64::from_le_bytes).unwrap_or_default()
}

static COMMAND: LazyLock<Known> = LazyLock::new(|| Known::of("Command"));
static RESULT: LazyLock<Known> = LazyLock::new(|| Known::of("ExecutionResult"));

macro_rules! codecs {
    ($record:ident, $known:ident) => {
        impl $record {
            /// Returns the schema, as JSON: what a schema registry is given.
            #[must_use]
            pub fn schema() -> &'static str {
                &$known.json
            }

            /// Returns the schema's CRC-64-AVRO fingerprint (specification 1.12, "Schema Fingerprints").
            #[must_use]
            pub fn fingerprint() -> u64 {
                $known.fingerprint
            }

            /// Bare binary encoding.
            #[must_use]
            pub fn to_datum(&self) -> Vec<u8> {
                let mut bytes = Vec::new();
                self.write(&mut bytes);
                bytes
            }

            /// Reads bare binary encoding.
            ///
            /// # Errors
            ///
            /// [`DatumError`] for bytes that are no such record, or more than one. A length is refused
            /// unless its bytes are there; lists hold 262,144 elements at most.
            pub fn from_datum(bytes: impl Into<Bytes>) -> Result<Self, DatumError> {
                let mut reader = Reader::new(bytes.into());
                let record = Self::read(&mut reader)?;
                reader.finish()?;
                Ok(record)
            }

            /// Single-object encoding (specification 1.12): `C3 01`, the fingerprint, the datum.
            #[must_use]
            pub fn to_single_object(&self) -> Vec<u8> {
                let mut bytes = MARKER.to_vec();
                bytes.extend_from_slice(&Self::fingerprint().to_le_bytes());
                self.write(&mut bytes);
                bytes
            }

            /// Reads single-object encoding.
            ///
            /// # Errors
            ///
            /// [`CodecError`], also if they were written with another schema, whose fingerprint the
            /// error has.
            pub fn from_single_object(bytes: impl Into<Bytes>) -> Result<Self, CodecError> {
                let mut bytes = bytes.into();
                let (marker, sum) = (MARKER, bytes.get(2..10));
                let Some(sum) = sum.filter(|_| bytes.starts_with(&marker)) else {
                    return Err(CodecError::Marker("C3 01 and a fingerprint"));
                };
                let found = sum.try_into().map(u64::from_le_bytes).unwrap_or_default();
                let expected = Self::fingerprint();
                if found != expected {
                    return Err(CodecError::Schema { found, expected });
                }
                Ok(Self::from_datum(bytes.split_off(10))?)
            }

            /// Returns the form of schema registries: a zero byte, the id that the registry gave the
            /// schema, big-endian, the datum.
            #[must_use]
            pub fn to_registry_form(&self, id: u32) -> Vec<u8> {
                let mut bytes = vec![0];
                bytes.extend_from_slice(&id.to_be_bytes());
                self.write(&mut bytes);
                bytes
            }

            /// Reads the form of schema registries, and returns the id that stood there as well.
            /// Whether that is this record's schema is the registry's to say.
            ///
            /// # Errors
            ///
            /// [`CodecError`].
            pub fn from_registry_form(bytes: impl Into<Bytes>) -> Result<(u32, Self), CodecError> {
                let mut bytes = bytes.into();
                let id = bytes.get(1..5).filter(|_| bytes.starts_with(&[0]));
                let id = id.and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
                let id = id.ok_or(CodecError::Marker("00 and the id of a schema"))?;
                Ok((id, Self::from_datum(bytes.split_off(5))?))
            }
        }
    };
}

codecs!(Command, COMMAND);
codecs!(ExecutionResult, RESULT);

const MARKER: [u8; 2] = [0xc3, 0x01];

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> ExecutionResult {
        ExecutionResult {
            exit_code: 0,
            stdout: "hi\n".to_owned(),
            stderr: String::new(),
            duration: 1,
            session_id: "s1".to_owned(),
        }
    }

    #[test]
    fn every_form_comes_back() {
        let result = result();
        // As captured from Avro's own implementations.
        assert_eq!(result.to_datum(), b"\0\x06hi\n\0\x02\x04s1");
        assert_eq!(ExecutionResult::from_datum(result.to_datum()), Ok(result.clone()));
        let object = result.to_single_object();
        assert_eq!(object[..10], [0xc3, 1, 0xfd, 0xe2, 0xfc, 0xe2, 0x83, 0x9d, 0xdd, 0x31]);
        assert_eq!(ExecutionResult::from_single_object(object.clone()), Ok(result.clone()));
        assert!(matches!(Command::from_single_object(object), Err(CodecError::Schema { .. })));
        let form = result.to_registry_form(258);
        assert_eq!(form[..5], [0, 0, 0, 1, 2]);
        assert_eq!(ExecutionResult::from_registry_form(form), Ok((258, result)));
    }

    #[test]
    fn other_bytes_are_refused() {
        for bytes in [&b""[..], b"\0", b"\xc3\x01short", b"\0\0\0\0"] {
            assert!(ExecutionResult::from_datum(bytes).is_err());
            assert!(ExecutionResult::from_single_object(bytes).is_err());
            assert!(ExecutionResult::from_registry_form(bytes).is_err());
        }
        let more = [result().to_datum(), vec![0]].concat();
        assert!(ExecutionResult::from_datum(more).is_err());
        assert!(Command::schema().contains("workdir"));
    }
}
