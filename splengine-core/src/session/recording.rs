//! Recordings in asciicast, version 2, which every stock player plays
//! (<https://docs.asciinema.org/manual/asciicast/v2/>), with keyframes beside them to seek by.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::session::keyframes::{self, Keyframes};
use crate::terminal::Size;
use crate::text::Utf8Pieces;

/// Writes a recording. An error is final: the recording then ends with its last whole event.
#[derive(Debug)]
pub(crate) struct Recorder {
    cast: BufWriter<File>,
    keyframes: File,
    begun: Instant,
    /// What was recorded before, by an engine before this one.
    before: Duration,
    /// Output up to here is in it.
    until: u64,
    written: u64,
    most: u64,
    /// Events are JSON, which holds no half of a character.
    pieces: Utf8Pieces,
    last_keyframe: (u64, Instant),
    /// Length of the last one.
    keyframe_length: u64,
}

/// How far a recording has come: so many bytes of file, with the output up to an offset in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordingMark {
    pub(crate) length: u64,
    pub(crate) until: u64,
}

/// Why a recording stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It is as large as it may get.
    Limit,
    /// The disk is full.
    DiskFull,
    /// It can't be written.
    Failed,
}

impl Stopped {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::DiskFull => "diskFull",
            Self::Failed => "failed",
        }
    }
}

impl Recorder {
    /// Begins a recording.
    pub(crate) fn begin(
        cast: File,
        keyframes: File,
        most: u64,
        size: Size,
    ) -> Result<Self, Stopped> {
        let now = Instant::now();
        let mut recorder = Self {
            cast: BufWriter::with_capacity(BUFFER, cast),
            keyframes,
            begun: now,
            before: Duration::ZERO,
            until: 0,
            written: 0,
            most,
            pieces: Utf8Pieces::default(),
            last_keyframe: (0, now),
            keyframe_length: 0,
        };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = json!({
            "version": 2,
            "width": size.cols(),
            "height": size.rows(),
            "timestamp": since_epoch.as_secs(),
            "env": {"TERM": "xterm-256color"},
        });
        recorder.line(&header)?;
        Ok(recorder)
    }

    /// Adds a piece of what draws the screen that the session begins with. It is to be added before any
    /// output.
    pub(crate) fn first_screen(&mut self, piece: &[u8]) -> Result<(), Stopped> {
        let text = self.pieces.push(piece);
        if text.is_empty() { Ok(()) } else { self.event("o", &text) }
    }

    /// Goes on with a recording that another engine began so long ago and left at this mark.
    pub(crate) fn resume(
        mut cast: File,
        mut keyframes: File,
        most: u64,
        mark: RecordingMark,
        before: Duration,
    ) -> io::Result<Self> {
        if cast.metadata()?.len() < mark.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        cast.set_len(mark.length)?;
        cast.seek(SeekFrom::End(0))?;
        let mut kept = 0;
        let mut frames = Keyframes::new(keyframes.try_clone()?);
        while let Some(frame) = frames.next()? {
            if frame.offset > mark.length {
                break;
            }
            kept = frame.end;
        }
        keyframes.set_len(kept)?;
        keyframes.seek(SeekFrom::End(0))?;
        let now = Instant::now();
        Ok(Self {
            cast: BufWriter::with_capacity(BUFFER, cast),
            keyframes,
            begun: now,
            before,
            until: mark.until,
            written: mark.length,
            most,
            pieces: Utf8Pieces::default(),
            last_keyframe: (mark.length, now),
            keyframe_length: 0,
        })
    }

    /// How far it has come, all of it handed to the operating system.
    pub(crate) fn mark(&mut self) -> Result<RecordingMark, Stopped> {
        self.flush()?;
        Ok(RecordingMark { length: self.written, until: self.until })
    }

    /// Records output, of which some may be in it already.
    pub(crate) fn output(&mut self, offset: u64, data: &[u8]) -> Result<(), Stopped> {
        let known = usize::try_from(self.until.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.until = self.until.max(offset + data.len() as u64);
        let data = &data[known.min(data.len())..];
        let text = self.pieces.push(data);
        if text.is_empty() { Ok(()) } else { self.event("o", &text) }
    }

    pub(crate) fn input(&mut self, data: &[u8]) -> Result<(), Stopped> {
        self.event("i", &String::from_utf8_lossy(data))
    }

    pub(crate) fn resize(&mut self, size: Size) -> Result<(), Stopped> {
        self.event("r", &format!("{}x{}", size.cols(), size.rows()))
    }

    /// Whether it is time for a keyframe. Those of a large screen are rarer, so that all of them together
    /// take at most 16 times as much as the recording, and one.
    pub(crate) fn wants_keyframe(&self) -> bool {
        let (at, when) = self.last_keyframe;
        let grown = self.written - at;
        grown >= self.keyframe_length.max(KEYFRAME_BYTES)
            || (grown > self.keyframe_length / MAX_KEYFRAME_FACTOR
                && when.elapsed() >= KEYFRAME_EVERY)
    }

    /// Adds the screen as it is now: from here on a player needs nothing of what lies before.
    pub(crate) fn keyframe(&mut self, size: Size, screen: &[u8]) -> Result<(), Stopped> {
        self.flush()?;
        let (time, offset, now) = (self.time(), self.written, Instant::now());
        let written = keyframes::write(&self.keyframes, time, offset, size, screen);
        self.last_keyframe = (offset, now);
        self.keyframe_length = written.map_err(|error| stopped(&error))?;
        Ok(())
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&mut self) -> Result<(), Stopped> {
        self.cast.flush().map_err(|error| stopped(&error))
    }

    fn time(&self) -> f64 {
        ((self.before + self.begun.elapsed()).as_secs_f64() * 1e6).round() / 1e6
    }

    fn event(&mut self, code: &str, data: &str) -> Result<(), Stopped> {
        self.line(&json!([self.time(), code, data]))
    }

    fn line(&mut self, value: &Value) -> Result<(), Stopped> {
        let mut line = value.to_string();
        line.push('\n');
        if self.written + line.len() as u64 > self.most {
            let _ = self.flush();
            return Err(Stopped::Limit);
        }
        // A line that does not fit on the disk must not leave a part of itself.
        if let Err(error) = self.cast.write_all(line.as_bytes()) {
            return Err(stopped(&error));
        }
        self.written += line.len() as u64;
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.flush();
        // What a full disk cut off in the middle of a line is taken back, so that players play it.
        let file = self.cast.get_ref();
        if let Ok(metadata) = file.metadata()
            && metadata.len() > self.written
        {
            let _ = file.set_len(self.written);
        }
    }
}

/// The next line, without its end; `None` at the end of the file.
///
/// # Errors
///
/// Also for one that is longer than `most` bytes: nobody here wrote it.
pub(super) fn next_line(reader: &mut impl BufRead, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.take(most as u64 + 1).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((read > 0).then_some(line))
}

fn stopped(error: &io::Error) -> Stopped {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Stopped::DiskFull
        }
        _ => Stopped::Failed,
    }
}

/// Maximum length of an event: of what is read from a terminal, or typed, at once, each byte of it
/// written as `\uXXXX`.
pub(super) const MAX_EVENT_BYTES: usize = 8 << 20;
const BUFFER: usize = 32 * 1024;
const KEYFRAME_BYTES: u64 = 256 * 1024;
/// By it keyframes may take more than what they are frames of.
const MAX_KEYFRAME_FACTOR: u64 = 16;
const KEYFRAME_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// With screens of a few MiB a recording of little text took gigabytes.
    #[tokio::test(start_paused = true)]
    async fn keyframes_take_little_more_than_the_recording() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name| File::create(dir.path().join(name)).expect("made");
        let size = Size::default();
        let begun = Recorder::begin(file("cast"), file("keys"), 1 << 30, size);
        let mut recorder = begun.expect("begins");
        let screen = vec![b'x'; 1 << 20];
        let mut count = 0;
        for offset in 0..4000 {
            recorder.output(offset * 1000, &[b'y'; 1000]).expect("is written");
            tokio::time::advance(Duration::from_secs(1)).await;
            if recorder.wants_keyframe() {
                recorder.keyframe(size, &screen).expect("is written");
                count += 1;
            }
        }
        let written = |name| std::fs::metadata(dir.path().join(name)).expect("is there").len();
        recorder.flush().expect("is written");
        assert!(written("keys") <= 16 * written("cast") + (2 << 20), "{}", written("keys"));
        assert!(count > 10, "{count}");
        // Of a small screen they are as many as ever.
        recorder.keyframe(size, b"small").expect("is written");
        recorder.output(1 << 30, b"y").expect("is written");
        tokio::time::advance(KEYFRAME_EVERY).await;
        assert!(recorder.wants_keyframe());
    }

    #[test]
    fn no_more_than_a_line_may_have_is_read() {
        let mut reader = io::Cursor::new(b"four\n\nfive5\nfour");
        let mut next = |most| next_line(&mut reader, most);
        assert_eq!(next(4).expect("fits").as_deref(), Some(&b"four"[..]));
        assert_eq!(next(4).expect("fits").as_deref(), Some(&b""[..]));
        assert_eq!(next(4).expect_err("too long").kind(), io::ErrorKind::InvalidData);
        assert_eq!(reader.position(), 11);
        reader.set_position(12);
        let mut next = |most| next_line(&mut reader, most);
        assert_eq!(next(4).expect("fits").as_deref(), Some(&b"four"[..]));
        assert_eq!(next(4).expect("the end"), None);
    }
}
