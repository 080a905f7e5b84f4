//! The memory of a record that was read.

use std::sync::Arc;

use crate::quota::Reservation;

/// Memory of one record, given back when the record is dropped. All are equal: it is no part of what a
/// record tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecordMemory {
    _reservation: Option<Arc<Reservation>>,
}

impl RecordMemory {
    /// Keeps `bytes` of `reservation` until it is dropped.
    pub(crate) async fn new(mut reservation: Reservation, bytes: usize) -> Self {
        // Never more than was reserved, so that it does not wait.
        reservation.resize(bytes).await;
        Self { _reservation: Some(Arc::new(reservation)) }
    }
}

impl PartialEq for RecordMemory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for RecordMemory {}
