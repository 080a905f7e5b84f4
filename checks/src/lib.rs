//! Reads the workspace's sources, for the tests in `tests/it`: which module imports which, what the
//! public interface of a crate is, and how it is documented.
//!
//! Sources are parsed, not compiled. Names are resolved as far as that takes no types: through modules,
//! imports and re-exports, and through the crate's own simple macros.

#![forbid(unsafe_code)]

mod api;
mod cfg;
mod cycles;
mod docs;
mod examples;
mod expand;
mod imports;
mod item;
mod resolve;
mod returned;
mod shared;
mod source;
mod text;

pub use api::public_api;
pub use cycles::Graph;
pub use docs::{Rule, breaks, summary};
pub use examples::compiling_examples;
pub use imports::{Import, ModuleName, imports};
pub use item::{Kind, PublicItem};
pub use shared::copies_of_shared_code;
pub use source::{SourceTree, Sources, workspace};
