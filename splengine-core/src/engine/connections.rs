use std::sync::Arc;

use crate::engine::Engine;
use crate::net::ConnectionLimits;

impl ConnectionLimits {
    /// Counts these connections in the [statistics](Engine::stats) of `engine`.
    pub fn counted_by(mut self, engine: &Engine) -> Self {
        self.counters = Arc::clone(&engine.0.connections);
        self
    }
}
