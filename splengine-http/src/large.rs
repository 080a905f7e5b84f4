//! Work on large bodies, which takes time: done apart from the workers of the runtime, on which all
//! others are served.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use crate::problem::Problem;

/// Permits to work on a large body, half as many as there are processors, at least one. Who waits for
/// one is served in order.
#[derive(Debug, Clone)]
pub(crate) struct LargeWork(Arc<Semaphore>);

impl LargeWork {
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new((processors / 2).max(1))))
    }

    /// Does `work` on a body of `bytes`: on a blocking thread if it is large, else at once. Work that
    /// was begun on a blocking thread is ended also when the future is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if bytes < MIN_BYTES {
            return Ok(work());
        }
        let permit = Arc::clone(&self.0).acquire_owned().await.expect("nobody closes it");
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "work on a large body failed");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the engine failed to do it")
        })
    }
}

/// Smaller bodies take less than a millisecond.
const MIN_BYTES: usize = 64 << 10;
