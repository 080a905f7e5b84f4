//! Answers of a connection that are not sent yet.

use std::collections::VecDeque;
use std::ops::Deref;

use bytes::{Buf as _, BytesMut};
use splengine_core::Reservation;

use crate::call::Written;
use crate::framing::Frames;

/// Answers of a connection that are not sent yet, and the memory that is reserved for the large ones.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    bytes: BytesMut,
    /// How many bytes were sent in all.
    sent: u64,
    /// Until so many were sent.
    reserved: VecDeque<(u64, Reservation)>,
}

impl Unsent {
    /// Appends an answer.
    pub(crate) fn write(&mut self, frames: &Frames, serial: u32, answer: impl Into<Written>) {
        let Written { bytes, memory } = answer.into();
        frames.write(serial, &bytes, &mut self.bytes);
        let end = self.sent + self.bytes.len() as u64;
        self.reserved.extend(memory.map(|memory| (end, memory)));
    }

    /// Notes that so many bytes were sent.
    pub(crate) fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.sent += count as u64;
        if self.reserved.is_empty() {
            return;
        }
        if self.bytes.is_empty() {
            // It would keep the room of the largest answer.
            self.bytes = BytesMut::new();
            self.reserved.clear();
        }
        while self.reserved.front().is_some_and(|(end, _)| *end <= self.sent) {
            self.reserved.pop_front();
        }
    }
}

impl Deref for Unsent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
