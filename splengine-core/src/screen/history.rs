//! The memory of the rows above a screen.

use std::fmt;
use std::sync::Arc;

/// Memory that the rows above a screen are reserved from.
pub(crate) trait HistoryMemory: fmt::Debug + Send + Sync {
    /// Reserves so many bytes more, or returns `false`.
    fn reserve(&self, bytes: usize) -> bool;
    /// Gives back so many bytes of those that were reserved.
    fn release(&self, bytes: usize);
}

/// How much memory the rows above a screen take, and how much is reserved for them.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Bytes that the rows take.
    pub(super) bytes: usize,
    reserved: usize,
    /// Number of rows for which no memory is asked for, since there was none.
    rests: usize,
    /// `None`: memory is not counted.
    source: Option<Arc<dyn HistoryMemory>>,
}

impl History {
    pub(super) fn new(source: Arc<dyn HistoryMemory>) -> Self {
        Self { source: Some(source), ..Self::default() }
    }

    /// Returns whether the memory that the rows take is reserved; reserves more where that is needed.
    pub(super) fn fits(&mut self) -> bool {
        let Some(source) = &self.source else { return true };
        if self.bytes <= self.reserved {
            return true;
        }
        if self.rests > 0 {
            self.rests -= 1;
            return false;
        }
        let more = (self.bytes - self.reserved).next_multiple_of(CHUNK_BYTES);
        if source.reserve(more) {
            self.reserved += more;
            return true;
        }
        self.rests = ROWS_BETWEEN_ATTEMPTS;
        false
    }

    /// Gives back what is reserved beyond the bytes that the rows take.
    pub(super) fn release_rest(&mut self) {
        let rest = self.reserved.saturating_sub(self.bytes.next_multiple_of(CHUNK_BYTES));
        if let Some(source) = self.source.as_ref().filter(|_| rest > 0) {
            source.release(rest);
        }
        self.reserved -= rest;
        self.rests = 0;
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.bytes = 0;
        self.release_rest();
    }
}

/// In such steps memory is reserved, so that not every row asks for it.
const CHUNK_BYTES: usize = 64 << 10;
const ROWS_BETWEEN_ATTEMPTS: usize = 32;
