//! What is given of a session to those who are not attached: its screen, its recording.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;

use crate::screen::Screen;
use crate::session::Size;
use crate::session::checks::blocking;

/// A session's screen at one moment.
#[derive(Debug, Clone)]
pub struct ScreenShot {
    pub(crate) size: Size,
    pub(crate) text: String,
    pub(crate) ansi: Bytes,
}

impl ScreenShot {
    pub(crate) fn of(screen: &Screen) -> Self {
        let (cols, rows) = screen.size();
        Self {
            size: Size::clamped(cols, rows),
            text: screen.text(),
            ansi: screen.snapshot().into(),
        }
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
