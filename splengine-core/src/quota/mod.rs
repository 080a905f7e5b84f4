//! Bounds on what callers hold: memory, places and disk space.
//!
//! [`MemoryBudget`] bounds memory, and [`CallerBudgets`] shares one among callers; [`GatherLimits`]
//! collects a body within one. [`CallerPlaces`] bounds a number of things that callers hold, [`CallerBytes`]
//! the bytes of some kind, [`KeyedSemaphore`] what is worked at at once for each, and [`DiskReserve`] keeps a part of a disk free. Servers use them for what they
//! read and write; the engine's own bounds are settings of its [builder](crate::engine::EngineBuilder).

mod budget;
mod caller_bytes;
mod disk;
mod fair_share;
mod gather;
mod heap;
mod input_budget;
mod keyed_semaphore;
mod large_work;
mod places;
mod retention;

pub use budget::{CallerBudgets, MemoryBudget, MemoryError, Reservation};
pub(crate) use budget::{EngineMemory, held_with};
pub use caller_bytes::{BytesError, CallerBytes};
pub use disk::{BelowFloor, DiskReserve, ReleasedSpace};
pub(crate) use fair_share::{FairShares, Shortage};
pub use gather::{GatherError, GatherLimits, Gathered};
pub(crate) use heap::note_connection_closed;
pub(crate) use input_budget::{InputBudget, InputReservation, InputShortage, MIN_COUNTED_BYTES};
pub use keyed_semaphore::{KeyedPermit, KeyedSemaphore, KeyedSemaphoreError};
pub(crate) use large_work::CallerLargeWork;
pub use large_work::{LargeWork, LargeWorkError, LargeWorkPermit};
pub use places::{CallerPlace, CallerPlaces, PlaceError};
pub(crate) use retention::{Bounds, Kept, surplus};
