use std::sync::Arc;

use crate::engine::Engine;
use crate::part_state::PartState;
use crate::store::StoreFault;

/// Readiness of an [`Engine`] to take work, part by part. Got from [`Engine::readiness`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    parts: Vec<(&'static str, PartState)>,
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

    /// Returns the state of the whole: that of the first part that takes no work.
    #[must_use]
    pub fn state(&self) -> PartState {
        let mut states = self.parts.iter().map(|(_, state)| *state);
        states.find(|state| !state.takes_work()).unwrap_or(PartState::Ready)
    }
}

impl Engine {
    /// Returns whether work is taken, part by part. Sessions and batches take none while their store
    /// can't be written or has no space. This is checked once a second at most: the store of sessions
    /// by a write each time, that of batches only after a write has failed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use splengine_core::engine::PartState;
    /// use splengine_core::{Engine, LocalExecutor};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// assert!(engine.readiness().await.is_ready());
    ///
    /// engine.drain(Duration::ZERO).await;
    /// assert_eq!(engine.readiness().await.state(), PartState::Draining);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn readiness(&self) -> Readiness {
        let own = if self.is_open() { PartState::Ready } else { PartState::Draining };
        let mut parts = vec![("executions", own)];
        if self.has_sessions() {
            let state = match own {
                PartState::Ready => self.0.sessions.registry.state_of_store().await,
                _ => own,
            };
            parts.push(("sessions", state));
        }
        if let Ok(registry) = self.0.batches.registry() {
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
