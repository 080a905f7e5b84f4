//! What is given of a session to those who are not attached: its screen, its recording.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;

use crate::blocking::blocking;
use crate::screen::Screen;
use crate::session::bounds::IoMemory;
use crate::terminal::Size;

/// A session's screen at one moment. It counts against the memory for what its caller
/// [reads](crate::session::SessionPolicy::max_read_bytes) until the last clone of it is dropped.
#[derive(Debug, Clone)]
pub struct ScreenShot {
    pub(crate) size: Size,
    pub(crate) text: String,
    pub(crate) ansi: Bytes,
    /// What it takes, of the share of who asked for it.
    _memory: Arc<IoMemory>,
}

impl ScreenShot {
    /// What `memory` was reserved for.
    pub(crate) fn of(screen: &Screen, mut memory: IoMemory) -> Self {
        let (cols, rows) = screen.size();
        let (text, mut ansi) = (screen.text(), screen.snapshot());
        ansi.shrink_to_fit();
        memory.shrink(text.capacity() + ansi.len());
        let (size, ansi) = (Size::clamped(cols, rows), ansi.into());
        Self { size, text, ansi, _memory: Arc::new(memory) }
    }

    /// Returns the size of the screen.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Returns its lines, without blanks at their ends and without empty lines at the end.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Escape bytes that draw it with everything above it, on a terminal of its size.
    #[must_use]
    pub fn ansi(&self) -> Bytes {
        self.ansi.clone()
    }
}

/// A recording in asciicast, version 2.
#[derive(Debug, Clone)]
pub struct RecordingFile {
    pub(crate) file: Arc<std::fs::File>,
    pub(crate) length: u64,
}

impl RecordingFile {
    /// Returns its length in bytes when it was asked for; it may grow.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// At most `most` bytes from `offset` on; none at its end.
    ///
    /// # Errors
    ///
    /// When the file can't be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let file = Arc::clone(&self.file);
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; most.min(left)];
        blocking(move || {
            let length = file.read_at(&mut buffer, offset)?;
            buffer.truncate(length);
            Ok(buffer.into())
        })
        .await
    }
}
