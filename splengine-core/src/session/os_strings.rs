//! A command's words in a record: text, or an array of bytes where a word is not UTF-8.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use serde::{Deserialize, Deserializer, Serialize as _, Serializer};

#[derive(serde::Serialize, Deserialize)]
#[serde(untagged)]
enum Arg {
    Text(String),
    Bytes(Vec<u8>),
}

pub(crate) fn serialize<S: Serializer>(words: &[OsString], to: S) -> Result<S::Ok, S::Error> {
    let words = words.iter().map(|word| match word.to_str() {
        Some(text) => Arg::Text(text.to_owned()),
        None => Arg::Bytes(word.as_bytes().to_vec()),
    });
    words.collect::<Vec<_>>().serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<OsString>, D::Error> {
    let words = Vec::<Arg>::deserialize(from)?.into_iter().map(|word| match word {
        Arg::Text(text) => text.into(),
        Arg::Bytes(bytes) => OsString::from_vec(bytes),
    });
    Ok(words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_and_text_stays_text() {
        let words = vec![OsString::from("ls"), OsString::from_vec(b"\xff/a".to_vec())];
        let mut written = Vec::new();
        serialize(&words, &mut serde_json::Serializer::new(&mut written)).expect("written");
        assert_eq!(written, br#"["ls",[255,47,97]]"#);
        let read = deserialize(&mut serde_json::Deserializer::from_slice(&written)).expect("read");
        assert_eq!(read, words);
    }
}
