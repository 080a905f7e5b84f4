//! Frames: what stands in them, and how.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;

/// A control frame from a client.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
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
        let value: Value = serde_json::from_str(text)
            .map_err(|_| "a text frame must be a JSON object with `type`".to_owned())?;
        let Some(kind) = value.get("type").and_then(Value::as_str) else {
            return Err("a text frame must be a JSON object with `type`".to_owned());
        };
        let kind: String = kind.chars().take(40).collect();
        let ticket = value.get("ticket").and_then(Value::as_str).map(str::to_owned);
        let frame = serde_json::from_value(value)
            .map_err(|error| format!("`{kind}`: {}", without_values(&error)))?;
        Ok(Self { frame, ticket })
    }
}

/// What is expected, not what was found.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once("expected ") {
        Some((_, expected)) => format!("a member has the wrong type or value; expected {expected}"),
        None => text,
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
    let mut frame = BytesMut::with_capacity(13 + data.len());
    frame.put_u8(SNAPSHOT);
    frame.put_u64(offset);
    frame.put_u16(cols);
    frame.put_u16(rows);
    frame.put_slice(data);
    frame.freeze()
}

const OUTPUT: u8 = 0x01;
const SNAPSHOT: u8 = 0x02;
const INPUT: u8 = 0x11;
const ACK: u8 = 0x12;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn binary_frames_are_read_as_the_contract_lays_them_out() {
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
        for bad in ["", "hunter2", "[]", "{}", r#"{"type":7}"#, r#"{"type":"input","data":77}"#] {
            let error = TextFrame::parse(bad).expect_err(bad);
            assert!(!error.contains("hunter2") && !error.contains("77"), "{error}");
        }
    }
}
