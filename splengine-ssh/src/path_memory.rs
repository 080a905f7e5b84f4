//! The memory of names that wait to be copied.

use splengine_core::quota::{MemoryBudget, MemoryError, Reservation};

/// What one copy holds of names and paths, of its caller's share.
pub(crate) struct PathMemory {
    reservation: Reservation,
    bytes: usize,
}

impl PathMemory {
    pub(crate) fn new(budget: &MemoryBudget) -> Self {
        Self { reservation: budget.reservation(), bytes: 0 }
    }

    /// Counts so many bytes of one path, and what it takes beside them.
    pub(crate) fn take(&mut self, length: usize) -> Result<(), MemoryError> {
        let bytes = self.bytes.saturating_add(length).saturating_add(PATH_BYTES);
        // However many names there are, they are no message of a largest size: never beyond the share.
        self.reservation.try_grow(bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// How much is held.
    pub(crate) fn held(&self) -> usize {
        self.bytes
    }

    /// Gives back what was taken beyond so many bytes.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(bytes);
        // Less is always there.
        let _ = self.reservation.try_resize(self.bytes);
    }
}

const PATH_BYTES: usize = 64;
