//! The signals that end the server.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// SIGTERM, from an orchestrator, and SIGINT, from a keyboard, both counted.
pub(crate) struct Signals(watch::Receiver<usize>);

impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (count, counted) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(counted))
    }

    /// Waits until there were so many.
    pub(crate) async fn have_come(&self, wanted: usize) {
        // The sender is there as long as the runtime.
        let _ = self.0.clone().wait_for(|count| *count >= wanted).await;
    }
}
