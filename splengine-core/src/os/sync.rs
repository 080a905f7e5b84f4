//! Waits until what was written is on the disk.

use std::os::fd::AsFd;

#[cfg(not(target_vendor = "apple"))]
use rustix::fs::fdatasync;
use rustix::fs::fsync;

/// Waits for all that was written to a file, and for its attributes.
pub(crate) fn sync(file: impl AsFd) -> rustix::io::Result<()> {
    // There fsync(2) leaves it in the memory of the disk.
    #[cfg(target_vendor = "apple")]
    if rustix::fs::fcntl_fullfsync(&file).is_ok() {
        return Ok(());
    }
    fsync(file)
}

/// Waits for all that was written to a file.
pub(crate) fn sync_data(file: impl AsFd) -> rustix::io::Result<()> {
    #[cfg(target_vendor = "apple")]
    return sync(file);
    #[cfg(not(target_vendor = "apple"))]
    fdatasync(file)
}
