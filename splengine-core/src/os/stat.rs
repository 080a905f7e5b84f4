//! Numbers of files, whose widths differ among operating systems.

use rustix::fs::{Mode, RawMode, Stat};

/// A device and an inode on it: what a file is, whatever its names.
pub(crate) type Identity = (u64, u64);

pub(crate) fn identity(stat: &Stat) -> Identity {
    (device(stat), wide(stat.st_ino))
}

/// The file system that a file is on.
pub(crate) fn device(stat: &Stat) -> u64 {
    wide(stat.st_dev)
}

/// When its content changed last: seconds since 1970, and nanoseconds.
pub(crate) fn modified(stat: &Stat) -> (i64, u64) {
    (stat.st_mtime, wide(stat.st_mtime_nsec))
}

/// These permission bits, of all bits only those of `0o777`.
pub(crate) fn permissions(bits: u32) -> Mode {
    Mode::from_raw_mode(narrow(bits & 0o777))
}

/// The bits of a mode without those that say what kind of file it is: at most `0o7777`.
pub(crate) fn mode_bits(mode: RawMode) -> u32 {
    wide(Mode::from_raw_mode(mode).bits()) as u32
}

/// Any number, a negative one as its complement.
pub(crate) fn wide(number: impl Into<i128>) -> u64 {
    number.into() as u64
}

fn narrow<T: TryFrom<u32> + Default>(number: u32) -> T {
    number.try_into().unwrap_or_default()
}
