//! Frames: what stands in them, and how. `PROTOCOL.md` describes them for those who write clients.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::value::{EnumAccessDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, IntoDeserializer as _, VariantAccess,
    Visitor,
};
use serde_json::Value;
use splengine_core::Request;

/// A control frame from a client. Read through [`Tagged`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase")]
pub(crate) enum Frame {
    Hello {},
    Input {
        data: String,
    },
    Resize {
        cols: u64,
        rows: u64,
    },
    NewSession {
        command: Option<String>,
        #[serde(
            default,
            deserialize_with = "splengine_http::bounded::list::<{ Request::MAX_ARGS }, _, _>"
        )]
        args: Option<Vec<String>>,
        workdir: Option<String>,
        name: Option<String>,
        cols: Option<u64>,
        rows: Option<u64>,
    },
    Attach {
        session_id: String,
        access: Option<AccessWord>,
        epoch: Option<String>,
        offset: Option<u64>,
        client: Option<String>,
        cols: Option<u64>,
        rows: Option<u64>,
    },
    SaveSession {
        name: Option<String>,
    },
    LoadSession {
        saved_id: String,
    },
    CloseSession {},
    Reset {},
    /// The colours of the client's terminal where a program has set none.
    Colors {
        foreground: Rgb,
        background: Rgb,
        cursor: Option<Rgb>,
    },
    Control {
        op: ControlOp,
        to: Option<String>,
    },
    Ping {
        t: Option<Value>,
    },
    /// Ignored, so that clients may know more than we do.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AccessWord {
    View,
    Control,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ControlOp {
    Take,
    Release,
    Grant,
}

/// A colour, written `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Rgb(pub(crate) [u8; 3]);

impl TryFrom<String> for Rgb {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let value = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let [_, red, green, blue] = value.ok_or("expected a colour as `#rrggbb`")?.to_be_bytes();
        Ok(Self([red, green, blue]))
    }
}

/// A control frame, with the ticket that the first may carry.
#[derive(Debug)]
pub(crate) struct TextFrame {
    pub(crate) frame: Frame,
    pub(crate) ticket: Option<String>,
}

impl TextFrame {
    /// Reads a text frame. The error says what is wrong, and repeats nothing: it may be a secret.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // A list would be taken for the members in our order.
        let head = Some(text).filter(|text| text.trim_start().starts_with('{'));
        let head = head.and_then(|text| serde_json::from_str::<Head<'_>>(text).ok());
        let Some(Head { kind, ticket }) = head else {
            return Err("a text frame must be a JSON object with `type`".to_owned());
        };
        if kind == "ping" && text.len() > MAX_PING_BYTES {
            return Err(format!("a `ping` may have {MAX_PING_BYTES} bytes"));
        }
        let mut members = serde_json::Deserializer::from_str(text);
        let tagged = Tagged { kind: &kind, members: &mut members };
        let frame = Frame::deserialize(EnumAccessDeserializer::new(tagged)).map_err(|error| {
            let kind: String = kind.chars().take(40).collect();
            format!("`{kind}`: {}", without_values(&error))
        })?;
        Ok(Self { frame, ticket })
    }
}

/// What is read first of a text frame: by its type it is known what else to read.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    ticket: Option<String>,
}

/// The variant `kind` of an enum, whose members are read straight from an object. What the variant does
/// not know is skipped where it stands; serde's `tag` would make values of it first, which take a hundred
/// times as much memory as their text.
struct Tagged<'a, D> {
    kind: &'a str,
    members: D,
}

impl<'de, D: Deserializer<'de>> EnumAccess<'de> for Tagged<'_, D> {
    type Error = D::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), D::Error> {
        let kind: StrDeserializer<'_, D::Error> = self.kind.into_deserializer();
        Ok((seed.deserialize(kind)?, self))
    }
}

impl<'de, D: Deserializer<'de>> VariantAccess<'de> for Tagged<'_, D> {
    type Error = D::Error;

    fn unit_variant(self) -> Result<(), D::Error> {
        IgnoredAny::deserialize(self.members).map(drop)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, D::Error> {
        seed.deserialize(self.members)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.members.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.members.deserialize_struct("frame", fields, visitor)
    }
}

/// What is expected, not what was found.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    match text.split_once("expected ") {
        Some((_, expected)) => format!("a member has the wrong type or value; expected {expected}"),
        None => text.to_owned(),
    }
}

/// A binary frame from a client that speaks `spl.term.v1`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Input { number: u64, data: Bytes },
    Ack { offset: u64 },
}

impl Binary {
    pub(crate) fn parse(mut frame: Bytes) -> Result<Self, &'static str> {
        let kind = *frame.first().ok_or("a binary frame must not be empty")?;
        let number = frame.get(1..9).and_then(|bytes| bytes.try_into().ok());
        let number = number.map(u64::from_be_bytes);
        match (kind, number) {
            (INPUT, Some(number)) => {
                let data = frame.split_off(9);
                match number.checked_add(data.len() as u64) {
                    Some(_) => Ok(Self::Input { number, data }),
                    None => Err("the number of an INPUT frame is too large"),
                }
            }
            (ACK, Some(offset)) if frame.len() == 9 => Ok(Self::Ack { offset }),
            (INPUT | ACK, _) => Err("a binary frame has the wrong length"),
            _ => Err("a binary frame must begin with 0x11 (INPUT) or 0x12 (ACK)"),
        }
    }
}

pub(crate) fn output(offset: u64, data: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(9 + data.len());
    frame.put_u8(OUTPUT);
    frame.put_u64(offset);
    frame.put_slice(data);
    frame.freeze()
}

pub(crate) fn snapshot(offset: u64, cols: u16, rows: u16, data: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(SNAPSHOT_HEAD_BYTES + data.len());
    frame.put_u8(SNAPSHOT);
    frame.put_u64(offset);
    frame.put_u16(cols);
    frame.put_u16(rows);
    frame.put_slice(data);
    frame.freeze()
}

/// Maximum length of a `ping` in bytes: a pong that repeats what it holds waits for a client that does
/// not read.
const MAX_PING_BYTES: usize = 256;
const SNAPSHOT_HEAD_BYTES: usize = 13;
const OUTPUT: u8 = 0x01;
const SNAPSHOT: u8 = 0x02;
const INPUT: u8 = 0x11;
const ACK: u8 = 0x12;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn binary_frames_are_read_as_the_protocol_lays_them_out() {
        let input = Bytes::from_static(b"\x11\0\0\0\0\0\0\x01\x02hi");
        let read = Binary::Input { number: 258, data: Bytes::from_static(b"hi") };
        assert_eq!(Binary::parse(input), Ok(read));
        let ack = Bytes::from_static(b"\x12\0\0\0\0\0\0\0\x07");
        assert_eq!(Binary::parse(ack), Ok(Binary::Ack { offset: 7 }));
        for bad in [
            &b""[..],
            b"\x11",
            b"\x12\0\0\0\0\0\0\0\x07x",
            b"\x13\0\0\0\0\0\0\0\x07",
            b"\x11\xff\xff\xff\xff\xff\xff\xff\xffx",
        ] {
            assert!(Binary::parse(Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(&output(258, b"x")[..], b"\x01\0\0\0\0\0\0\x01\x02x");
        assert_eq!(&snapshot(1, 80, 24, b"x")[..], b"\x02\0\0\0\0\0\0\0\x01\0\x50\0\x18x");
    }

    #[test]
    fn a_session_gets_so_many_arguments_only() {
        let frame = |count| {
            let args = vec!["\"\""; count].join(",");
            TextFrame::parse(&format!("{{\"type\":\"new_session\",\"args\":[{args}]}}"))
        };
        assert!(frame(Request::MAX_ARGS).is_ok());
        let refused = frame(Request::MAX_ARGS + 1).expect_err("refused");
        assert_eq!(refused, "`new_session`: has more than 131072 elements, the maximum");
    }

    #[test]
    fn text_frames_are_forgiving_and_tell_no_secrets() {
        let read = TextFrame::parse(r#"{"type":"attach","sessionId":"x","ticket":"t","new":1}"#);
        assert_eq!(read.expect("fine").ticket.as_deref(), Some("t"));
        let unknown = TextFrame::parse(r#"{"type":"future","data":1}"#).expect("ignored");
        assert!(matches!(unknown.frame, Frame::Unknown));
        let colors = r##"{"type":"colors","foreground":"#1f2733","background":"#FCFCFD"}"##;
        let Frame::Colors { foreground, background, cursor } =
            TextFrame::parse(colors).expect("fine").frame
        else {
            panic!("no colours");
        };
        assert_eq!((foreground.0, background.0), ([0x1f, 0x27, 0x33], [0xfc, 0xfc, 0xfd]));
        assert_eq!(cursor, None);
        for bad in ["hunter2", "#+1+2+3", "#77777", "#77é77"] {
            let colors = json!({"type": "colors", "foreground": bad, "background": "#000000"});
            let error = TextFrame::parse(&colors.to_string()).expect_err(bad);
            assert!(error.contains("`#rrggbb`") && !error.contains("77"), "{error}");
        }
        // What is not known is skipped, and nothing is made of it first, of which depth is a sign.
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        for kind in ["future", "input"] {
            let text = format!(r#"{{"type":"{kind}","data":"x","future":{deep}}}"#);
            TextFrame::parse(&text).expect(kind);
        }
        let error = TextFrame::parse(r#"{"type":"resize","cols":7}"#).expect_err("no rows");
        assert_eq!(error, "`resize`: missing field `rows`");
        let ping =
            |length| TextFrame::parse(&json!({"type":"ping","t":"x".repeat(length)}).to_string());
        assert!(ping(200).is_ok() && ping(256).is_err());
        for bad in [
            "",
            "hunter2",
            "[]",
            r#"["ping"]"#,
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"input","data":77}"#,
        ] {
            let error = TextFrame::parse(bad).expect_err(bad);
            assert!(!error.contains("hunter2") && !error.contains("77"), "{error}");
        }
    }
}
