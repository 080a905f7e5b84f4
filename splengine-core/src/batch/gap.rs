//! The part of a step's output that is missing.

use crate::batch::log_entry::{INDEX_PIECE, LogEntry};
use crate::batch::outputs::Part;
use crate::batch::{BatchError, StepOutput};
use crate::execute::Gap;

impl StepOutput {
    /// Returns the part that was left out of it, as far as is known now: over the output limit, that is
    /// known before anything behind it can be read; what could not be written, once the run is over,
    /// as long as no other run of the step has begun. Where several parts are missing, [one](Gap)
    /// stands for them. What was looked at by an earlier call is not read again.
    ///
    /// # Errors
    ///
    /// [`BatchError::Internal`] when that can't be found out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn gap(&mut self) -> Result<Option<Gap>, BatchError> {
        if self.gap.recorded.is_none() {
            self.gap.recorded = self.recorded_gap().await?;
        }
        if let Some(recorded) = self.gap.recorded {
            return Ok(recorded);
        }
        if self.gap.found.is_some() {
            return Ok(self.gap.found);
        }
        let Part::Stream(stream) = self.part else { return Ok(None) };
        let index = self.part(Part::Index);
        loop {
            let bytes = index.read(self.gap.index_offset, INDEX_PIECE).await?;
            let (entries, _) = bytes.as_chunks::<{ LogEntry::SIZE }>();
            if entries.is_empty() {
                return Ok(None);
            }
            for bytes in entries {
                self.gap.index_offset += LogEntry::SIZE as u64;
                let entry = LogEntry::parse(bytes).filter(|entry| entry.stream == stream);
                let Some(LogEntry { is_gap, length, .. }) = entry else { continue };
                if is_gap {
                    self.gap.found = Some(Gap { at: self.gap.stream_offset, bytes: length });
                    return Ok(self.gap.found);
                }
                self.gap.stream_offset += length;
            }
        }
    }
}
