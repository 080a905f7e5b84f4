//! Values that are looked up once a second at most, however often they are asked for.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// What a look has found, for as long as that is taken for true.
#[derive(Debug)]
pub(crate) struct Fresh<T>(Mutex<Option<(Instant, T)>>);

impl<T: Clone> Fresh<T> {
    /// What was found less than [`FRESH_FOR`] ago; else what `look` finds, for which others wait.
    pub(crate) async fn get(&self, look: impl Future<Output = T>) -> T {
        let mut found = self.0.lock().await;
        if let Some((at, found)) = &*found
            && at.elapsed() < FRESH_FOR
        {
            return found.clone();
        }
        let latest = look.await;
        *found = Some((Instant::now(), latest.clone()));
        latest
    }

    /// Takes `latest` for what was found now.
    pub(crate) async fn set(&self, latest: T) {
        *self.0.lock().await = Some((Instant::now(), latest));
    }
}

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

const FRESH_FOR: Duration = Duration::from_secs(1);
