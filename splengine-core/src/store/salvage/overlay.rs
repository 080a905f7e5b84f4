//! A file as the crate sees it, which is not changed whatever that writes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use redb::{BackendError, StorageBackend};

/// A way to look at the file.
#[derive(Debug, Clone, Copy)]
pub(super) enum View {
    /// As it is opened otherwise, after a crash with the repair of the crate.
    Whole,
    /// Without looking for damage, from either of the two roots that there are.
    Trusting { other_root: bool },
}

/// What is written is kept in memory, and read again from there.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    length: u64,
    /// By their places; each is [`BLOCK_BYTES`] long.
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(file: File, view: View) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let overlay = Self { file, state: Mutex::new(State { length, blocks: BTreeMap::new() }) };
        if let View::Trusting { other_root } = view
            && length > FLAGS_OFFSET
        {
            let mut flags = [0];
            overlay.read_at(FLAGS_OFFSET, &mut flags)?;
            flags[0] &= !(RECOVERY_REQUIRED | PRIMARY_UNFLUSHED);
            if other_root {
                flags[0] ^= PRIMARY_SLOT;
            }
            overlay.write_at(FLAGS_OFFSET, &flags)?;
        }
        Ok(overlay)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > state.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        let mut left = out;
        while !left.is_empty() {
            let (block, within) = (at / BLOCK_BYTES, (at % BLOCK_BYTES) as usize);
            let length = left.len().min(BLOCK_BYTES as usize - within);
            let (part, rest) = left.split_at_mut(length);
            match state.blocks.get(&block) {
                Some(bytes) => part.copy_from_slice(&bytes[within..within + length]),
                None => self.read_file(at, part)?,
            }
            at += length as u64;
            left = rest;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = offset;
        let mut left = data;
        while !left.is_empty() {
            let (block, within) = (at / BLOCK_BYTES, (at % BLOCK_BYTES) as usize);
            let length = left.len().min(BLOCK_BYTES as usize - within);
            let bytes = match state.blocks.entry(block) {
                Entry::Occupied(bytes) => bytes.into_mut(),
                Entry::Vacant(place) => {
                    let mut bytes = vec![0; BLOCK_BYTES as usize];
                    self.read_file(block * BLOCK_BYTES, &mut bytes)?;
                    place.insert(bytes)
                }
            };
            bytes[within..within + length].copy_from_slice(&left[..length]);
            at += length as u64;
            left = &left[length..];
        }
        state.length = state.length.max(at);
        Ok(())
    }

    /// From the file; beyond its end are zeros.
    fn read_file(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        while !out.is_empty() {
            match self.file.read_at(out, at)? {
                0 => {
                    out.fill(0);
                    return Ok(());
                }
                length => {
                    at += length as u64;
                    out = &mut out[length..];
                }
            }
        }
        Ok(())
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner).length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if length > self.file.metadata()?.len().saturating_add(MAX_GROWTH_BYTES) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(offset, data)
    }

    // The store's own lock keeps others out.

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}

const BLOCK_BYTES: u64 = 4096;
/// What the repair of a file makes it longer by at most.
const MAX_GROWTH_BYTES: u64 = 64 << 20;
/// Of the flags in the header of a file of `redb`, format 3.
const FLAGS_OFFSET: u64 = 9;
const PRIMARY_SLOT: u8 = 1;
const RECOVERY_REQUIRED: u8 = 2;
const PRIMARY_UNFLUSHED: u8 = 8;
