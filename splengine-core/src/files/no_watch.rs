use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::files::open_files::OpenPermit;
use crate::files::{FileError, FileEvent, ServedFiles};

/// Watch on one directory. There is none here: it takes inotify(7) of Linux.
pub struct FileWatch(Infallible);

impl FileWatch {
    /// Maximum number of events that are kept for a slow reader.
    pub const MAX_PENDING: usize = 1024;

    pub(crate) fn open(
        shared: &Arc<ServedFiles>,
        path: &Path,
        _permit: OpenPermit,
    ) -> Result<Self, FileError> {
        shared.tree.find_directory(path)?;
        Err(FileError::impossible(path, "can't be watched: the engine's host is not Linux"))
    }

    /// Waits for the next event.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing is lost.
    pub async fn next(&mut self) -> Option<FileEvent> {
        match self.0 {}
    }
}

impl fmt::Debug for FileWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWatch").finish_non_exhaustive()
    }
}
