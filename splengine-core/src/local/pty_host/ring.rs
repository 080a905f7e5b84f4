//! The end of what a held program printed, in memory that two processes share in turn.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// A ring in a file without a name: how much was ever printed (8 bytes), then the ring. Whoever
/// reads the terminal at the time writes it: the engine, and the PTY host while there is none.
#[derive(Debug)]
pub(crate) struct Ring {
    file: File,
    capacity: u64,
    end: u64,
}

impl Ring {
    /// An empty one that keeps `capacity` bytes, which must not be zero.
    pub(crate) fn new(capacity: u64) -> io::Result<Self> {
        let file = memfd_create("splengine-output", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, HEADER + capacity)?;
        Ok(Self { file: file.into(), capacity, end: 0 })
    }

    /// The one that another process has written.
    pub(crate) fn open(file: OwnedFd) -> io::Result<Self> {
        let file = File::from(file);
        let capacity = file.metadata()?.len().checked_sub(HEADER).filter(|capacity| *capacity > 0);
        let capacity = capacity.ok_or(io::ErrorKind::InvalidData)?;
        let mut ring = Self { file, capacity, end: 0 };
        ring.reload()?;
        Ok(ring)
    }

    /// Goes on where another process has left off.
    pub(crate) fn reload(&mut self) -> io::Result<()> {
        let mut end = [0; HEADER as usize];
        self.file.read_exact_at(&mut end, 0)?;
        self.end = u64::from_be_bytes(end);
        Ok(())
    }

    pub(crate) fn append(&mut self, data: &[u8]) -> io::Result<()> {
        let end = self.end + data.len() as u64;
        let kept = usize::try_from(self.capacity).map_or(data.len(), |most| data.len().min(most));
        let mut rest = &data[data.len() - kept..];
        let mut at = end - kept as u64;
        while !rest.is_empty() {
            let place = at % self.capacity;
            let room = usize::try_from(self.capacity - place).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(rest.len().min(room));
            self.file.write_all_at(now, HEADER + place)?;
            at += now.len() as u64;
            rest = later;
        }
        // Last: a writer that is killed before has not printed it.
        self.end = end;
        self.file.write_all_at(&end.to_be_bytes(), 0)
    }

    /// What was printed from `offset` on, and how much of it is not kept any more.
    pub(crate) fn since(&self, offset: u64) -> io::Result<(u64, Vec<u8>)> {
        let oldest = self.end.saturating_sub(self.capacity);
        let from = offset.clamp(oldest, self.end);
        let mut data = vec![0; usize::try_from(self.end - from).map_err(io::Error::other)?];
        let mut done = 0;
        while done < data.len() {
            let place = (from + done as u64) % self.capacity;
            let room = usize::try_from(self.capacity - place).unwrap_or(usize::MAX);
            let piece = (data.len() - done).min(room);
            self.file.read_exact_at(&mut data[done..done + piece], HEADER + place)?;
            done += piece;
        }
        Ok((from.saturating_sub(offset), data))
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

const HEADER: u64 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever reads on gets every byte once, or is told how many are missing, whichever of
        /// two processes wrote them.
        #[test]
        fn it_keeps_the_end(
            pieces in proptest::collection::vec((any::<bool>(), 0usize..150), 1..20),
            read_at in 0u64..600,
        ) {
            let mut one = Ring::new(100).expect("a ring");
            let mut other = Ring::open(one.file.try_clone().expect("a file").into()).expect("opens");
            let mut all = Vec::new();
            for (by_one, length) in pieces {
                let piece: Vec<u8> = (0..length).map(|n| (all.len() + n) as u8).collect();
                let ring = if by_one { &mut one } else { &mut other };
                ring.reload().expect("reads");
                ring.append(&piece).expect("writes");
                all.extend(piece);
            }
            one.reload().expect("reads");
            let (missed, data) = one.since(read_at).expect("reads");
            let from = usize::try_from(read_at + missed).expect("small").min(all.len());
            prop_assert_eq!(&data, &all[from..]);
            prop_assert!(missed == 0 || data.len() == 100);
        }
    }
}
