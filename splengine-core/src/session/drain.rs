//! The end of all sessions of an engine.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::blocking::blocking;
use crate::session::live_session::{INPUT_BYTES, LiveSession};
use crate::session::registry::Registry;
use crate::session::store::Store;
use crate::session::{Closed, Notice};
use crate::time::after;

impl Registry {
    /// Tells clients, writes everything down and ends all programs: at once those whose shell only
    /// waits for input, the others after `grace`. Those that outlive this process are left to the next.
    /// What is not written down within `grace`, or the policy's `save_timeout` if that is longer, is
    /// told in the log.
    pub(crate) async fn drain(self: &Arc<Self>, grace: Duration) {
        self.close();
        let grace_ends = after(grace);
        let saving_ends = after(grace.max(self.policy.save_timeout));
        // Found out before anybody is told: what they do then may change it.
        let is_busy = |live: Arc<LiveSession>| (live.terminal().status().busy, live);
        let all: Vec<(bool, Arc<LiveSession>)> = self.all_live().into_iter().map(is_busy).collect();
        for (_, live) in &all {
            live.state().notify(Notice::Restart);
            live.wake();
        }
        let mut drains = JoinSet::new();
        for (is_busy, live) in all {
            // Whoever is still there is hearing of its end.
            if live.state().end.is_some() {
                continue;
            }
            let registry = Arc::clone(self);
            drains.spawn(async move {
                if live.terminal().outlives() {
                    registry.let_go(&live, saving_ends).await;
                    return;
                }
                if let Some(store) = registry.store.clone() {
                    registry.save_at_end(&live, store, saving_ends).await;
                }
                let is_over =
                    is_busy && timeout_at(grace_ends, live.terminal().ended()).await.is_ok();
                // Clients of a program that has ended by itself get its last output, and its end.
                if !is_over {
                    live.close(Closed::Restart);
                }
                live.end().await;
            });
        }
        while drains.join_next().await.is_some() {}
    }

    async fn save_at_end(&self, live: &Arc<LiveSession>, store: Arc<Store>, until: Instant) {
        let saving = async {
            let (record, screen) = live.state_record().await;
            let turn = self.io.write_turn().await;
            blocking(move || {
                let _turn = turn;
                store.save(&record, &screen, None)
            })
            .await
        };
        match timeout_at(until, saving).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, session = %live.id, "a session can't be saved");
            }
            Err(_) => tracing::warn!(session = %live.id, "a session is not saved in time"),
        }
    }

    /// Leaves a session to the next engine: when everything that its clients sent is typed.
    async fn let_go(&self, live: &Arc<LiveSession>, until: Instant) {
        live.close(Closed::Restart);
        let all = u32::try_from(INPUT_BYTES).unwrap_or(u32::MAX);
        let _ = timeout(TYPED_WITHIN, live.input_permits.acquire_many(all)).await;
        let Some(store) = self.store.clone() else { return };
        let id = live.id.clone();
        let writing = async {
            let (record, screen) = live.state_record().await;
            let turn = self.io.write_turn().await;
            blocking(move || {
                let _turn = turn;
                store.session(&id)?.write_state(&record, &screen)
            })
            .await
        };
        match timeout_at(until, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, session = %live.id, "the state of a session can't be kept");
            }
            Err(_) => {
                let problem = "the state of a session is not kept in time: the next engine goes on \
                               from an earlier one";
                tracing::warn!(session = %live.id, "{problem}");
            }
        }
    }
}

/// A program that does not read what is typed has no more time to.
const TYPED_WITHIN: Duration = Duration::from_secs(1);
