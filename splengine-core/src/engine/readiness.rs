use std::sync::Arc;

use crate::engine::Engine;
use crate::store::StoreFault;

/// Readiness of an [`Engine`] to take work, part by part. Got from [`Engine::readiness`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    parts: Vec<(&'static str, PartState)>,
}

/// The state of a part of an [`Engine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartState {
    /// The part takes work.
    Ready,
    /// The part takes work; but something that was kept before is not there any more, or can't be
    /// read. The reason is for anybody, as that of [`Failing`](Self::Failing).
    Degraded {
        /// What is missing.
        reason: &'static str,
    },
    /// The part takes no work any more, since the engine is shutting down.
    Draining,
    /// The part takes no work at the moment. The reason is for anybody: it tells nothing of the
    /// host.
    Failing {
        /// Why.
        reason: &'static str,
    },
}

impl Readiness {
    /// Returns whether all parts take work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.parts.iter().all(|(_, state)| state.takes_work())
    }

    /// Each part that the engine has, with its state: `executions`, `sessions`, `batches`.
    #[must_use]
    pub fn parts(&self) -> &[(&'static str, PartState)] {
        &self.parts
    }

    /// The state of the whole: that of the first part that takes no work.
    #[must_use]
    pub fn state(&self) -> PartState {
        let mut states = self.parts.iter().map(|(_, state)| *state);
        states.find(|state| !state.takes_work()).unwrap_or(PartState::Ready)
    }
}

impl PartState {
    fn takes_work(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded { .. })
    }
}

impl Engine {
    /// Returns whether work is taken, part by part. Sessions and batches are not while their store
    /// can't be written or has no room. That is looked at once a second at most: the one of
    /// sessions is written to each time, that of batches where the last write failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn readiness(&self) -> Readiness {
        let own = if self.is_open() { PartState::Ready } else { PartState::Draining };
        let mut parts = vec![("executions", own)];
        if self.has_sessions() {
            let state = match own {
                PartState::Ready => self.0.sessions.state_of_store().await,
                _ => own,
            };
            parts.push(("sessions", state));
        }
        if let Some(registry) = &self.0.batches {
            let state = match own {
                PartState::Ready => registry.journal.fault().await.map_or(own, failing),
                _ => own,
            };
            parts.push(("batches", state));
        }
        Readiness { parts }
    }
}

fn failing(fault: Arc<StoreFault>) -> PartState {
    let reason = match *fault {
        StoreFault::Full => "there is no room left on the disk for the store of batches",
        StoreFault::Damaged(_) => "the store of batches is damaged",
        _ => "the store of batches can't be written",
    };
    PartState::Failing { reason }
}
