//! Lists of a caller's batches.

use std::collections::BTreeMap;

use crate::auth::Caller;
use crate::batch::records::{Summary, key};
use crate::batch::{BatchError, BatchList, BatchState, Batches};
use crate::error::Field;
use crate::ids::BatchId;
use crate::quota::LargeWork;

/// Filter of a caller's batches. Default: all.
///
/// ```
/// use splengine_core::batch::{BatchFilter, BatchState};
///
/// let filter = BatchFilter::new().state(BatchState::Failed).label("branch", "main");
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct BatchFilter {
    states: Vec<BatchState>,
    name: Option<String>,
    labels: BTreeMap<String, String>,
}

impl BatchFilter {
    /// Makes a filter that selects all batches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects batches in this state; given several times, those in any of these.
    pub fn state(mut self, state: BatchState) -> Self {
        if !self.states.contains(&state) {
            self.states.push(state);
        }
        self
    }

    /// Selects batches with this very name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Selects batches with this [label](crate::BatchRequest::label) of this value; given several
    /// times, those with all of these. If a name is given several times, the last value counts.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    fn lets(&self, summary: &Summary) -> bool {
        (self.states.is_empty() || self.states.contains(&summary.state()))
            && self.name.as_ref().is_none_or(|name| summary.name.as_ref() == Some(name))
            && self.labels.iter().all(|(name, value)| summary.labels.get(name) == Some(value))
    }
}

impl Batches {
    /// Returns the caller's batches that `filter` selects, the newest first: at most `most` (and 500),
    /// of those that follow the page that gave `cursor`. For a page at most 10,000 batches are read,
    /// and it ends before the names and labels on it are more than [1
    /// MiB](crate::quota::LargeWork::MAX_PAGE_BYTES): it may hold fewer batches than there are, and has
    /// the cursor of the next page.
    ///
    /// ```
    /// use splengine_core::batch::{BatchFilter, BatchPolicy};
    /// use splengine_core::store::MemoryStore;
    /// use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outputs = tempfile::tempdir()?;
    /// # let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).batches(policy).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let batches = engine.batches();
    /// for branch in ["main", "next"] {
    ///     let request = BatchRequest::new().label("branch", branch).step(Step::new("true"));
    ///     let id = batches.submit(&alice, request, None).await?.record.info.id;
    ///     batches.wait(&alice, &id).await?;
    /// }
    /// let page = batches.list(&alice, &BatchFilter::new().label("branch", "main"), None, 100).await?;
    /// assert_eq!((page.batches.len(), page.next), (1, None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`BatchError::Malformed`] for a cursor that no page gave, [`BatchError::Forbidden`],
    /// [`BatchError::NoStore`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn list(
        &self,
        caller: &Caller,
        filter: &BatchFilter,
        cursor: Option<&str>,
        most: usize,
    ) -> Result<BatchList, BatchError> {
        self.may(caller)?;
        self.resume_late().await;
        let journal = &self.registry()?.journal;
        let user = caller.user().as_str();
        let key_of = |id: &str| match filter.states[..] {
            [state] => key::of_user_in(user, state, id),
            _ => key::of_user(user, id),
        };
        let mut until = match cursor {
            Some(cursor) => {
                let id: BatchId = cursor.parse().map_err(|_| BatchError::Malformed {
                    field: Field::Cursor,
                    problem: "is none that a page gave".to_owned(),
                })?;
                key_of(id.as_str())
            }
            // Ids are ASCII.
            None => key_of("\u{7f}"),
        };
        let most = most.clamp(1, 500);
        let mut page = BatchList { batches: Vec::new(), next: None };
        let (mut looked_at, mut text_bytes) = (0, 0);
        loop {
            let rows = journal.scan(key_of(""), until.clone(), true, ROWS).await?;
            let is_last = rows.len() < ROWS;
            for (row, _) in &rows {
                let id: Option<BatchId> = key::last_part(row).and_then(|id| id.parse().ok());
                let Some(id) = id else { continue };
                looked_at += 1;
                // It may be gone by now; or damaged, which must not hide the others.
                let found = journal.summary(&id).await.ok().flatten();
                let Some(summary) = found.filter(|summary| filter.lets(summary)) else {
                    page.next = Some(id.to_string());
                    if looked_at >= MAX_LOOKED_AT {
                        return Ok(page);
                    }
                    continue;
                };
                let Some(mut info) = summary.info(&id) else { continue };
                text_bytes += info.text_bytes();
                let is_full = page.batches.len() == most || text_bytes > LargeWork::MAX_PAGE_BYTES;
                if let Some(last) = page.batches.last().filter(|_| is_full) {
                    page.next = Some(last.id.to_string());
                    return Ok(page);
                }
                self.count_on(&mut info);
                page.batches.push(info);
            }
            match rows.last() {
                Some((row, _)) if !is_last => until.clone_from(row),
                _ => {
                    page.next = None;
                    return Ok(page);
                }
            }
        }
    }
}

/// Batches that one page looks at.
const MAX_LOOKED_AT: usize = 10_000;
/// Read at once.
const ROWS: usize = 512;
