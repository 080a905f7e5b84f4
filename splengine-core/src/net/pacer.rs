//! Turns that come one after the other, with all other tasks of the runtime in between.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::yield_now;

/// A line of those who wait for a turn. A turn is not given back: after each, the tasks that are ready then run before
/// the next, so that nobody who has one holds up the others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pacer(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<oneshot::Sender<()>>,
    /// There is a task that gives turns.
    is_served: bool,
}

impl Pacer {
    /// Joins the line. Resolves when it is the turn. Within a tokio runtime.
    pub(crate) fn turn(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let (sender, turn) = oneshot::channel();
        let mut line = self.line();
        line.waiting.push_back(sender);
        if !line.is_served {
            line.is_served = true;
            tokio::spawn(self.clone().serve());
        }
        async {
            // Only the end of the runtime drops the sender.
            let _ = turn.await;
        }
    }

    async fn serve(self) {
        loop {
            let next = {
                let mut line = self.line();
                let next = line.waiting.pop_front();
                line.is_served = next.is_some();
                next
            };
            match next.map(|next| next.send(())) {
                None => return,
                Some(Ok(())) => yield_now().await,
                // It waits no more.
                Some(Err(())) => {}
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[tokio::test]
    async fn other_tasks_run_between_two_turns() {
        let (pacer, ran) = (Pacer::default(), Arc::new(AtomicUsize::new(0)));
        let held = pacer.turn();
        let turns: Vec<_> = (0..3).map(|_| pacer.turn()).collect();
        drop(pacer.turn());
        let last = pacer.turn();
        for (number, turn) in turns.into_iter().enumerate() {
            let ran = Arc::clone(&ran);
            tokio::spawn(async move {
                turn.await;
                assert_eq!(ran.load(Relaxed), number, "what the turns before have spawned");
                tokio::spawn(async move { ran.fetch_add(1, Relaxed) });
            });
        }
        last.await;
        assert_eq!(ran.load(Relaxed), 3);
        // One that nobody looks at holds up nobody.
        drop(held);
        pacer.turn().await;
    }
}
