use std::ffi::OsString;

/// Event in a watched directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileEvent {
    /// A file or directory has this name now: it was made, or moved here. What had that name before is
    /// gone: a file that was [replaced](crate::Files::replace) in one step is told as created anew.
    /// That opens the old one and closes the new one for writing, so that there may be a
    /// [`Modified`](Self::Modified) before this and after it.
    Created {
        /// Name in the directory: any bytes but `/` and NUL.
        name: OsString,
        /// `true` for a directory; a link is none.
        is_directory: bool,
    },
    /// The content or the attributes of a file changed, or a process that could have changed it
    /// closed it: what is written through a mapping shows only then. Told once for all changes
    /// since this name was told of last.
    Modified {
        /// Name in the directory.
        name: OsString,
    },
    /// The name is gone: the file or directory was removed, or moved away.
    Removed {
        /// The name that it had.
        name: OsString,
    },
    /// A file got another name in this directory. What else had that name before is gone.
    Renamed {
        /// The name that it had.
        from: OsString,
        /// New name of the file.
        to: OsString,
    },
    /// More happened than is kept, and all events that were not yet given are lost. A list that is
    /// begun after this one shows the present state.
    Overflow,
    /// The directory was removed or moved, or its file system was unmounted. This is the last event.
    /// For a removed directory it comes once no process has it open or works in it.
    Gone,
}
