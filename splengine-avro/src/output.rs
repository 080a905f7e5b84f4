//! Answers of a connection that are not sent yet.

use std::collections::VecDeque;
use std::ops::Deref;

use bytes::{Buf as _, BytesMut};
use splengine_core::quota::Reservation;

use crate::answer::Written;
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
        let before = self.reserved.len();
        while self.reserved.front().is_some_and(|(end, _)| *end <= self.sent) {
            self.reserved.pop_front();
        }
        if self.reserved.len() < before {
            // The buffer would keep the capacity of the large answer that was sent.
            self.bytes = BytesMut::from(&self.bytes[..]);
        }
    }
}

impl Deref for Unsent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use splengine_core::quota::MemoryBudget;

    use super::*;

    #[test]
    fn the_capacity_of_a_large_answer_is_given_back_with_its_memory() {
        const LARGE: usize = 1 << 20;
        let budget = MemoryBudget::new(2 * LARGE);
        let mut memory = budget.reservation();
        memory.try_resize(LARGE).expect("nothing else is reserved");
        let mut unsent = Unsent::default();
        unsent.write(
            &Frames::classic(4 * LARGE),
            0,
            Written { bytes: vec![1; LARGE], memory: Some(memory) },
        );
        let large = unsent.len();
        unsent.write(&Frames::classic(4 * LARGE), 0, vec![2; 100]);
        // The small answer behind it is sent in part.
        unsent.advance(large + 50);
        assert_eq!(budget.available(), 2 * LARGE);
        assert!(unsent.bytes.capacity() < 1 << 10, "{}", unsent.bytes.capacity());
        assert!(unsent.starts_with(&[2; 10]));
    }
}
