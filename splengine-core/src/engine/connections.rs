use std::sync::Arc;

use crate::engine::Engine;
use crate::net::ConnectionLimits;

impl ConnectionLimits {
    /// Counts these connections in the [statistics](Engine::stats) of `engine`, and what they hold of
    /// [`max_http2_bytes`](Self::max_http2_bytes) as part of its
    /// [memory](crate::engine::EngineBuilder::max_buffered_bytes).
    pub fn counted_by(mut self, engine: &Engine) -> Self {
        self.counters = Arc::clone(&engine.0.connections);
        self.engine_memory = Some(engine.0.runner.memory.clone());
        self
    }
}
