//! Connections on which nobody has been recognised yet. They may lie idle, as those of clients that
//! connect early do; but so many only: for one more the oldest goes, so that they never take the
//! places of all others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Strangers {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// In the order of their coming.
    all: BTreeMap<u64, Arc<Notify>>,
}

/// One of them, until it is recognised or gone.
#[derive(Debug)]
pub(crate) struct Stranger {
    number: u64,
    sent_away: Arc<Notify>,
    is_known: AtomicBool,
    strangers: Arc<Strangers>,
}

impl Strangers {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), waiting: Mutex::default() })
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Arc<Stranger> {
        let sent_away = Arc::new(Notify::new());
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.all.insert(number, Arc::clone(&sent_away));
        if waiting.all.len() > self.most
            && let Some((_, oldest)) = waiting.all.pop_first()
        {
            oldest.notify_one();
        }
        drop(waiting);
        let strangers = Arc::clone(self);
        Arc::new(Stranger { number, sent_away, is_known: AtomicBool::new(false), strangers })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Makes it one no longer.
    pub(crate) fn recognise(&self) {
        if !self.is_known.swap(true, Relaxed) {
            self.strangers.lock().all.remove(&self.number);
        }
    }

    pub(crate) fn is_known(&self) -> bool {
        self.is_known.load(Relaxed)
    }

    /// Resolves when it has to make room.
    pub(crate) async fn sent_away(&self) {
        self.sent_away.notified().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.recognise();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_oldest_that_nobody_knows_goes() {
        let strangers = Strangers::new(2);
        let goes = |stranger: &Arc<Stranger>| stranger.sent_away().now_or_never().is_some();
        let [first, second, third] = [(); 3].map(|()| strangers.enter());
        assert_eq!([&first, &second, &third].map(goes), [true, false, false]);
        second.recognise();
        let fourth = strangers.enter();
        assert_eq!([&second, &third, &fourth].map(goes), [false; 3]);
        drop(fourth);
        let fifth = strangers.enter();
        assert_eq!([&third, &fifth].map(goes), [false; 2]);
        let sixth = strangers.enter();
        assert_eq!([&second, &third, &fifth, &sixth].map(goes), [false, true, false, false]);
    }
}
