//! Recordings in asciicast, version 2, which every stock player plays
//! (<https://docs.asciinema.org/manual/asciicast/v2/>), with keyframes beside them to seek by.

use std::fs::File;
use std::io::{self, BufRead, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::session::keyframes::{Head, Keyframes};
use crate::session::recording_writer::{RecordingWriter, Stopped, Write};
use crate::terminal::Size;
use crate::text::Utf8Pieces;

/// Makes the events of a recording, and never waits: a [`RecordingWriter`] writes them. An error is
/// final: the recording then ends with its last whole event.
#[derive(Debug)]
pub(crate) struct Recorder {
    writer: Arc<RecordingWriter>,
    /// Whole lines that are not queued yet.
    buffer: Vec<u8>,
    begun: Instant,
    /// What was recorded before, by an engine before this one.
    before: Duration,
    /// Output up to here is in it.
    until: u64,
    /// Length of the recording, with what is not written yet.
    length: u64,
    most: u64,
    /// The terminal's size as it was recorded last.
    size: Size,
    /// Events are JSON, which holds no half of a character.
    pieces: Utf8Pieces,
    last_keyframe: LastKeyframe,
}

#[derive(Debug)]
struct LastKeyframe {
    /// Length of the recording before it.
    offset: u64,
    when: Instant,
    /// Length of its line.
    length: u64,
    /// Number of its write.
    write: u64,
}

/// How far a recording has come: so many bytes of file, with the output up to an offset in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordingMark {
    pub(crate) length: u64,
    pub(crate) until: u64,
}

impl Recorder {
    /// Begins a recording.
    pub(crate) fn begin(
        cast: File,
        keyframes: File,
        most: u64,
        size: Size,
    ) -> Result<Self, Stopped> {
        let mut recorder = Self::at(RecordingWriter::new(cast, keyframes, 0), most, size);
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
    /// output, and blocks until it is written.
    pub(crate) fn first_screen(&mut self, piece: &[u8]) -> Result<(), Stopped> {
        let text = self.pieces.push(piece);
        if text.is_empty() {
            return Ok(());
        }
        self.event("o", &text)?;
        self.writer.write_queued()
    }

    /// Goes on with a recording that another engine began so long ago and left at this mark.
    pub(crate) fn resume(
        mut cast: File,
        mut keyframes: File,
        most: u64,
        size: Size,
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
        let writer = RecordingWriter::new(cast, keyframes, mark.length);
        let mut recorder = Self::at(writer, most, size);
        recorder.before = before;
        recorder.until = mark.until;
        recorder.length = mark.length;
        recorder.last_keyframe.offset = mark.length;
        Ok(recorder)
    }

    fn at(writer: RecordingWriter, most: u64, size: Size) -> Self {
        let now = Instant::now();
        Self {
            writer: Arc::new(writer),
            buffer: Vec::new(),
            begun: now,
            before: Duration::ZERO,
            until: 0,
            length: 0,
            most,
            size,
            pieces: Utf8Pieces::default(),
            last_keyframe: LastKeyframe { offset: 0, when: now, length: 0, write: 0 },
        }
    }

    /// What writes it.
    pub(crate) fn writer(&self) -> &Arc<RecordingWriter> {
        &self.writer
    }

    /// How far it has come, once the write of this number is done.
    pub(crate) fn mark(&mut self) -> Result<(RecordingMark, u64), Stopped> {
        let write = self.flush()?;
        Ok((RecordingMark { length: self.length, until: self.until }, write))
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
        self.size = size;
        self.event("r", &format!("{}x{}", size.cols(), size.rows()))
    }

    /// Whether it is time for a keyframe. Those of a large screen are rarer, so that all of them together
    /// take at most 16 times as much as the recording, and one. While one is being written there is no
    /// other.
    pub(crate) fn wants_keyframe(&self) -> bool {
        let last = &self.last_keyframe;
        let grown = self.length - last.offset;
        let is_time = grown >= last.length.max(KEYFRAME_BYTES)
            || (grown > last.length / MAX_KEYFRAME_FACTOR && last.when.elapsed() >= KEYFRAME_EVERY);
        is_time && self.writer.is_done(last.write)
    }

    /// Adds the screen as it is now: from here on a player needs nothing of what lies before. Without
    /// effect where the terminal has got another size meanwhile.
    pub(crate) fn keyframe(&mut self, size: Size, screen: Bytes) -> Result<(), Stopped> {
        if size != self.size {
            return Ok(());
        }
        self.flush()?;
        let head = Head::new(self.time(), self.length, size, &screen);
        let length = head.line_length();
        let write = self.writer.push(Write::Keyframe(head, screen))?;
        let (offset, when) = (self.length, Instant::now());
        self.last_keyframe = LastKeyframe { offset, when, length, write };
        Ok(())
    }

    /// Waits with the next keyframe as if there were one.
    pub(crate) fn put_off_keyframe(&mut self) {
        self.last_keyframe.offset = self.length;
        self.last_keyframe.when = Instant::now();
    }

    /// Queues everything; returns the number of the last write.
    pub(crate) fn flush(&mut self) -> Result<u64, Stopped> {
        if self.buffer.is_empty() {
            return self.writer.last();
        }
        self.writer.push(Write::Events(std::mem::take(&mut self.buffer)))
    }

    fn time(&self) -> f64 {
        ((self.before + self.begun.elapsed()).as_secs_f64() * 1e6).round() / 1e6
    }

    fn event(&mut self, code: &str, data: &str) -> Result<(), Stopped> {
        self.line(&json!([self.time(), code, data]))
    }

    fn line(&mut self, value: &Value) -> Result<(), Stopped> {
        let line = value.to_string();
        let length = line.len() as u64 + 1;
        if self.length + length > self.most {
            return Err(Stopped::Limit);
        }
        self.length += length;
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.flush();
        self.writer.close();
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

/// Maximum length of an event: of what is read from a terminal, or typed, at once, each byte of it
/// written as `\uXXXX`.
pub(super) const MAX_EVENT_BYTES: usize = 8 << 20;
/// So much is written at a time, unless somebody waits for it.
const BUFFER_BYTES: usize = 32 << 10;
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
        let screen = Bytes::from(vec![b'x'; 1 << 20]);
        let mut count = 0;
        for offset in 0..4000 {
            recorder.output(offset * 1000, &[b'y'; 1000]).expect("is written");
            tokio::time::advance(Duration::from_secs(1)).await;
            if recorder.wants_keyframe() {
                recorder.keyframe(size, screen.clone()).expect("is queued");
                recorder.writer.write_queued().expect("is written");
                count += 1;
            }
        }
        let written = |name| std::fs::metadata(dir.path().join(name)).expect("is there").len();
        recorder.flush().expect("is queued");
        recorder.writer.write_queued().expect("is written");
        assert!(written("keys") <= 16 * written("cast") + (2 << 20), "{}", written("keys"));
        assert!(count > 10, "{count}");
        // Of a small screen they are as many as ever.
        recorder.keyframe(size, Bytes::from_static(b"small")).expect("is queued");
        recorder.output(1 << 30, b"y").expect("is queued");
        tokio::time::advance(KEYFRAME_EVERY).await;
        assert!(!recorder.wants_keyframe(), "one is being written");
        recorder.writer.write_queued().expect("is written");
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
