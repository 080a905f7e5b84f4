//! The engine: what adapters hold.

mod admission;
mod builder;
mod drive;
mod handle;
mod rota;
mod stats;

pub use builder::{BuildError, EngineBuilder};
pub use handle::Engine;
pub(crate) use handle::{Inner, SESSION_VARIABLE, check_env};
pub use stats::{EngineStats, HistogramStats};
