//! Sessions that an engine before this one left behind.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::ids::SessionId;
use crate::quota::{Bounds, Kept, surplus};
use crate::session::SessionError;
use crate::session::record::Record;
use crate::session::store::Store;

/// What sessions an engine before this one left behind, without their end; and whether there is
/// anything that can't be read, which stays where it is or is set aside, and is never removed.
pub(crate) fn lost_in(store: &Store) -> (HashMap<SessionId, Arc<Record>>, bool) {
    let mut lost = Vec::new();
    let mut has_unreadable = false;
    let sessions = store.sessions().unwrap_or_else(|error| {
        has_unreadable = true;
        tracing::error!(%error, "the directory of sessions can't be read");
        Vec::new()
    });
    for (id, files) in sessions {
        let files = match files {
            Ok(files) => files,
            Err(error) => {
                has_unreadable = true;
                tracing::error!(%error, session = %id, "the files of a session can't be opened");
                continue;
            }
        };
        let state = files.state().and_then(|(record, screen)| {
            screen.check()?;
            Ok(record)
        });
        match state {
            Ok(record) if record.exit.is_none() => lost.push((id, Arc::new(record.described()))),
            Ok(_) => store.remove_session(&id),
            // It was begun and never told of.
            Err(SessionError::NoSaved(_)) => {
                tracing::info!(session = %id, "of a session nothing was kept yet");
            }
            Err(error @ SessionError::Damaged(_)) => match store.set_aside(&id) {
                Ok(aside) => {
                    tracing::error!(
                        %error, session = %id, aside,
                        "the state of a session can't be read: its files were set aside"
                    );
                }
                Err(failed) => {
                    has_unreadable = true;
                    let failed: &dyn std::error::Error = &failed;
                    tracing::error!(
                        %error, failed, session = %id,
                        "the state of a session can't be read, nor its files be set aside"
                    );
                }
            },
            Err(error) => {
                has_unreadable = true;
                tracing::error!(%error, session = %id, "the state of a session can't be read");
            }
        }
    }
    let unreadable = store.index_saved().unwrap_or_else(|error| {
        has_unreadable = true;
        tracing::error!(%error, "the directory of saved sessions can't be read");
        Vec::new()
    });
    for (id, error) in unreadable {
        has_unreadable = true;
        tracing::error!(%error, saved = %id, "a saved session can't be read");
    }
    match store.set_aside_count() {
        Ok(0) => {}
        Ok(count) => {
            has_unreadable = true;
            tracing::warn!(
                count,
                "the files of damaged sessions are in `damaged` below the directory of sessions, \
                 until somebody removes them"
            );
        }
        Err(error) => {
            has_unreadable = true;
            tracing::error!(%error, "the files of damaged sessions can't be looked for");
        }
    }
    (lost.into_iter().collect(), has_unreadable)
}

/// Which of the sessions that were lost go, for no more than `max` to stay: the oldest of whoever has
/// most, so that nobody loses one to others who has fewer than they.
pub(crate) fn surplus_of_lost(
    lost: &HashMap<SessionId, Arc<Record>>,
    max: usize,
) -> HashSet<SessionId> {
    let mut oldest_first: Vec<_> = lost.iter().collect();
    oldest_first.sort_unstable_by_key(|(id, record)| (record.last_activity, *id));
    let of_callers =
        oldest_first.iter().map(|(_, record)| Kept { user: record.user.clone(), bytes: 0 });
    let bounds = Bounds {
        count: max,
        bytes: u64::MAX,
        count_per_caller: usize::MAX,
        bytes_per_caller: u64::MAX,
    };
    let gone = surplus(&of_callers.collect::<Vec<_>>(), bounds);
    gone.into_iter().map(|place| oldest_first[place].0.clone()).collect()
}

/// Maximum number of sessions of all callers that were lost, or as many as may run if that is more. Of
/// more, the oldest of whoever has most are removed with their files.
pub(crate) const MAX_LOST: usize = 256;
