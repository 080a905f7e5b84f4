//! Work on threads that may wait, or take time.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs `work`, which may wait for a disk, on a blocking thread, and returns its result.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Permits to work on much data, half as many as there are processors, at least one. Who waits for one
/// is served in order. Cheap to clone: clones share the permits.
#[derive(Debug, Clone)]
pub(crate) struct LargeWork(Arc<Semaphore>);

impl LargeWork {
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new((processors / 2).max(1))))
    }

    /// Does `work` on `bytes`: on a blocking thread if they are many, else at once. Work that was begun on
    /// a blocking thread is ended also when the future is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes < MIN_BYTES {
            return work();
        }
        let permit = Arc::clone(&self.0).acquire_owned().await.expect("nobody closes it");
        blocking(move || {
            let _permit = permit;
            work()
        })
        .await
    }
}

/// Work on fewer bytes takes less than a millisecond.
const MIN_BYTES: usize = 64 << 10;
