//! The keyframes beside a recording: screens to seek by. Each is a line of JSON, which is found, passed
//! and drawn without being in memory as a whole.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::terminal::Size;

/// One keyframe, without its screen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Keyframe {
    /// Seconds since the recording began.
    pub(crate) time: f64,
    /// Length of the recording that lies before it.
    pub(crate) offset: u64,
    pub(crate) size: Size,
    /// Where its line ends.
    pub(crate) end: u64,
    screen: Base64Range,
}

/// The Base64 of a screen: where it begins, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Base64Range {
    begin: u64,
    length: u64,
}

/// All but the screen, which stands at the end of the line in `screen`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    time: f64,
    offset: u64,
    cols: u16,
    rows: u16,
    /// Length of the Base64, by which it is passed. An earlier version did not write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
}

impl Head {
    /// Of a keyframe with this `screen`.
    pub(crate) fn new(time: f64, offset: u64, size: Size, screen: &[u8]) -> Self {
        let length = screen.len().div_ceil(3) as u64 * 4;
        Self { time, offset, cols: size.cols(), rows: size.rows(), length: Some(length) }
    }

    /// Length of the keyframe's line.
    pub(crate) fn line_length(&self) -> u64 {
        let around = self.before_screen().len() + END.len();
        around as u64 + self.length.unwrap_or_default()
    }

    /// The line as far as the screen.
    fn before_screen(&self) -> String {
        let head = serde_json::to_string(self).expect("numbers are JSON");
        let head = head.strip_suffix('}').unwrap_or(&head);
        format!("{head},{SCREEN}")
    }
}

/// Appends a keyframe to `file`. Calls `took` whenever a piece is written.
///
/// # Errors
///
/// Those of the disk. A part of the line may then be there.
pub(crate) fn write(file: &File, head: &Head, screen: &[u8], took: impl Fn()) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(PIECE_BYTES, file);
    writer.write_all(head.before_screen().as_bytes())?;
    for piece in screen.chunks(PIECE_BYTES / 4 * 3) {
        writer.write_all(BASE64_STANDARD.encode(piece).as_bytes())?;
        took();
    }
    writer.write_all(END)?;
    writer.flush()
}

/// Reads the keyframes of a recording, the first one first.
#[derive(Debug)]
pub(crate) struct Keyframes {
    reader: BufReader<File>,
    at: u64,
}

impl Keyframes {
    pub(crate) fn new(file: File) -> Self {
        Self { reader: BufReader::with_capacity(4 << 10, file), at: 0 }
    }

    /// The next one; `None` at the end, and where something stands that is not a whole keyframe.
    ///
    /// # Errors
    ///
    /// When the file can't be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Keyframe>> {
        let mut line = Vec::new();
        while !line.ends_with(SCREEN.as_bytes()) {
            let left = MAX_HEAD_BYTES.saturating_sub(line.len()) as u64;
            if self.reader.by_ref().take(left).read_until(b'"', &mut line)? == 0 {
                return Ok(None);
            }
        }
        let begin = self.at + line.len() as u64;
        let head = [&line[..], b"\"}"].concat();
        let length = match serde_json::from_slice::<Head>(&head) {
            Ok(Head { length: Some(length), .. }) if length <= MAX_SCREEN_BYTES => {
                // No more than 96 MiB.
                self.reader.seek_relative(length as i64)?;
                length
            }
            Ok(Head { length: Some(_), .. }) => return Ok(None),
            // The time stands behind the screen.
            _ => self.pass_to_quote()?,
        };
        let before = line.len();
        self.reader.by_ref().take(MAX_HEAD_BYTES as u64).read_until(b'\n', &mut line)?;
        if !line[before..].ends_with(b"\n") {
            return Ok(None);
        }
        let Ok(head) = serde_json::from_slice::<Head>(&line) else { return Ok(None) };
        self.at += line.len() as u64 + length;
        Ok(Some(Keyframe {
            time: head.time,
            offset: head.offset,
            size: Size::clamped(head.cols, head.rows),
            end: self.at,
            screen: Base64Range { begin, length },
        }))
    }

    /// Goes on to the next quotation mark, or the end of the file; returns how far that was.
    fn pass_to_quote(&mut self) -> io::Result<u64> {
        let mut passed = 0;
        loop {
            let piece = self.reader.fill_buf()?;
            let found = piece.iter().position(|byte| *byte == b'"');
            let count = found.unwrap_or(piece.len());
            passed += count as u64;
            self.reader.consume(count);
            if found.is_some() || count == 0 {
                return Ok(passed);
            }
        }
    }

    /// Goes to the screen of `keyframe`, one of these.
    ///
    /// # Errors
    ///
    /// When the file can't be read.
    pub(crate) fn screen(self, keyframe: &Keyframe) -> io::Result<ScreenPieces> {
        let mut file = self.reader.into_inner();
        let Base64Range { begin, length } = keyframe.screen;
        file.seek(SeekFrom::Start(begin))?;
        Ok(ScreenPieces { file, left: length })
    }
}

/// Reads the screen of a keyframe.
#[derive(Debug)]
pub(crate) struct ScreenPieces {
    file: File,
    left: u64,
}

impl ScreenPieces {
    /// The next 48 KiB at most; none at the end.
    ///
    /// # Errors
    ///
    /// When the file can't be read, or holds something else.
    pub(crate) fn next(&mut self) -> io::Result<Bytes> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let mut text = vec![0; length];
        self.file.read_exact(&mut text)?;
        self.left -= length as u64;
        let data = BASE64_STANDARD.decode(&text);
        Ok(data.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?.into())
    }
}

const SCREEN: &str = "\"screen\":\"";
const END: &[u8] = b"\"}\n";
const MAX_HEAD_BYTES: usize = 512;
/// A screen may be as large as a state's, and is written in Base64.
const MAX_SCREEN_BYTES: u64 = 96 << 20;
const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(content: &[u8]) -> Vec<(Keyframe, Vec<u8>)> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keyframes");
        std::fs::write(&path, content).expect("written");
        let open = || Keyframes::new(File::open(&path).expect("opens"));
        let (mut frames, mut all) = (open(), Vec::new());
        while let Some(frame) = frames.next().expect("is read") {
            let mut pieces = open().screen(&frame).expect("is there");
            let mut screen = Vec::new();
            while let piece = pieces.next().expect("is read")
                && !piece.is_empty()
            {
                screen.extend_from_slice(&piece);
            }
            all.push((frame, screen));
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_written_is_read(
            screens in prop::collection::vec((0usize..200_000, any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("keyframes");
            let file = File::create(&path).expect("made");
            let mut ends = Vec::new();
            let mut end = 0;
            for (number, (length, byte)) in screens.iter().enumerate() {
                let screen = vec![*byte; *length];
                let (time, offset) = (number as f64 * 1.5, number as u64 * 7);
                let head = Head::new(time, offset, Size::clamped(80, 24), &screen);
                write(&file, &head, &screen, || ()).expect("written");
                end += head.line_length();
                ends.push(end);
            }
            let content = std::fs::read(&path).expect("reads");
            prop_assert_eq!(content.len() as u64, end);
            let all = read(&content);
            prop_assert_eq!(all.len(), screens.len());
            for (number, (frame, screen)) in all.iter().enumerate() {
                prop_assert_eq!(frame.time, number as f64 * 1.5);
                prop_assert_eq!((frame.offset, frame.end), (number as u64 * 7, ends[number]));
                prop_assert_eq!(screen, &vec![screens[number].1; screens[number].0]);
            }
            // One that is being written is not there yet.
            let cut = cut.index(content.len() + 1);
            let whole = ends.iter().filter(|end| **end <= cut as u64).count();
            prop_assert_eq!(read(&content[..cut]).len(), whole);
            // Nor without the end of its line.
            if !screens.is_empty() {
                prop_assert_eq!(read(&content[..content.len() - 1]).len(), screens.len() - 1);
            }
        }
    }

    #[test]
    fn what_an_earlier_version_wrote_is_read_and_anything_else_ends_it() {
        let earlier = "{\"cols\":81,\"offset\":10,\"rows\":25,\"screen\":\"YWJj\",\"time\":2.5}\n";
        let all = read(format!("{earlier}{earlier}").as_bytes());
        assert_eq!(all.len(), 2);
        let (frame, screen) = &all[1];
        assert_eq!((frame.time, frame.offset, &screen[..]), (2.5, 10, &b"abc"[..]));
        assert_eq!((frame.size, frame.end), (Size::clamped(81, 25), earlier.len() as u64 * 2));
        let long = format!("{earlier}{}", "x\"".repeat(10_000));
        assert_eq!(read(long.as_bytes()).len(), 1);
        for length in [u64::MAX, i64::MAX as u64] {
            let head = "{\"time\":1,\"offset\":2,\"cols\":80,\"rows\":24";
            let huge = format!("{head},\"length\":{length},\"screen\":\"YWJj\"}}\n");
            assert!(read(huge.as_bytes()).is_empty(), "{length}");
        }
        // Whatever stands around a screen is read into memory, so it is short.
        for (blanks, count) in [(100, 1), (MAX_HEAD_BYTES, 0)] {
            let blanks = " ".repeat(blanks);
            let before = earlier.replacen('{', &format!("{{{blanks}"), 1);
            assert_eq!(read(before.as_bytes()).len(), count, "before it: {}", blanks.len());
            let after = earlier.replacen('}', &format!("{blanks}}}"), 1);
            assert_eq!(read(after.as_bytes()).len(), count, "after it: {}", blanks.len());
        }
        for other in ["", "\n", "\"screen\":\"", "{}\n", "{\"screen\":\"YWJj\"}\n"] {
            assert!(read(other.as_bytes()).is_empty(), "{other:?}");
        }
    }
}
