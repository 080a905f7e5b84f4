//! Settings of sessions and batches, and where they are stored.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use splengine_core::batch::BatchPolicy;
use splengine_core::engine::BuildError;
use splengine_core::session::{Recording, SessionPolicy, SizePolicy};
use splengine_core::store::{RedbStore, StoreFault};

use crate::file::{RecordingWord, SizeWord};
use crate::settings::{Settings, UsageError};

impl Settings {
    /// What sessions are granted, and where they are kept: below root, if that can be written.
    pub(super) fn sessions(&self) -> Result<SessionPolicy, UsageError> {
        let table = &self.sessions;
        let mut policy = SessionPolicy::new()
            .size(match table.size {
                SizeWord::Controller => SizePolicy::Controller,
                SizeWord::Smallest => SizePolicy::Smallest,
                SizeWord::Largest => SizePolicy::Largest,
                SizeWord::Fixed => SizePolicy::Fixed,
            })
            .recording(match table.recording {
                RecordingWord::Off => Recording::Off,
                RecordingWord::Output => Recording::Output,
                RecordingWord::OutputAndInput => Recording::OutputAndInput,
            });
        if let Some(shell) = &self.shell {
            policy = policy.shell([shell]);
        }
        let counts = [
            (table.max, SessionPolicy::max_sessions as SetSession<usize>),
            (table.max_per_caller, SessionPolicy::max_sessions_per_caller),
            (table.max_clients, SessionPolicy::max_clients),
            (table.max_command_bytes, SessionPolicy::max_command_bytes),
            (table.max_command_bytes_per_caller, SessionPolicy::max_command_bytes_per_caller),
            (table.scrollback, SessionPolicy::scrollback),
            (table.max_screen_bytes, SessionPolicy::max_screen_bytes),
            (table.max_read_bytes, SessionPolicy::max_read_bytes),
            (table.log, SessionPolicy::log_bytes),
        ];
        for (value, set) in counts {
            policy = value.into_iter().fold(policy, set);
        }
        let times = [
            (table.idle_timeout, SessionPolicy::idle_timeout as SetSession<Duration>),
            (table.detached_timeout, SessionPolicy::detached_timeout),
            (table.max_age, SessionPolicy::max_age),
            (table.warning, SessionPolicy::warning),
            (table.ended_retention, SessionPolicy::ended_retention),
            (table.read_timeout, SessionPolicy::read_timeout),
            (table.save_timeout, SessionPolicy::save_timeout),
        ];
        for (value, set) in times {
            policy = value.map(Duration::from_millis).into_iter().fold(policy, set);
        }
        policy = table.busy_stays.into_iter().fold(policy, SessionPolicy::busy_stays);
        policy = table.max_recording.into_iter().fold(policy, SessionPolicy::max_recording);
        if table.keep == Some(false) {
            if table.survive {
                return Err(UsageError::new("[sessions] survive", "takes `keep`"));
            }
            return Ok(policy);
        }
        let directory = self.sessions_dir();
        if !table.survive
            && table.keep.is_none()
            && let Some(error) = can_never_be(&directory)
        {
            tracing::warn!(%error, "sessions are not kept on disk");
            return Ok(policy);
        }
        Ok(policy.store(directory))
    }

    /// Where batches are kept, below root; `None` where they are switched off, or nothing was ever
    /// written and nothing can be.
    pub(super) fn batches(&self) -> Result<Option<BatchPolicy>, UsageError> {
        if self.batches.enabled == Some(false) {
            return Ok(None);
        }
        let directory = batches_dir(&self.root);
        if self.batches.enabled.is_none()
            && let Some(error) = can_never_be(&directory)
        {
            tracing::warn!(%error, "there are no batches");
            return Ok(None);
        }
        let reserve = self.batches.reserve.unwrap_or(RedbStore::DEFAULT_RESERVE_BYTES);
        let store = RedbStore::open_with_reserve(directory.join("batches.redb"), reserve)
            .map_err(|error| store_error(&self.root, &error))?;
        let mut policy = BatchPolicy::new(store, directory.join("output"));
        let table = &self.batches;
        let counts = [
            (table.max_steps, BatchPolicy::max_steps as SetBatch<usize>),
            (table.max_open_steps, BatchPolicy::max_open_steps),
            (table.max_open_steps_per_caller, BatchPolicy::max_open_steps_per_caller),
            (table.max_open_bytes, BatchPolicy::max_open_bytes),
            (table.max_open_bytes_per_caller, BatchPolicy::max_open_bytes_per_caller),
            (table.parallelism, BatchPolicy::parallelism),
            (table.max_parallelism, BatchPolicy::max_parallelism),
            (table.keep_count, BatchPolicy::keep_count),
            (table.keep_count_per_caller, BatchPolicy::keep_count_per_caller),
            (table.keep_keys_per_caller, BatchPolicy::keep_keys_per_caller),
        ];
        for (value, set) in counts {
            policy = value.into_iter().fold(policy, set);
        }
        let sizes = [
            (table.keep_bytes, BatchPolicy::keep_bytes as SetBatch<u64>),
            (table.keep_bytes_per_caller, BatchPolicy::keep_bytes_per_caller),
        ];
        for (value, set) in sizes {
            policy = value.into_iter().fold(policy, set);
        }
        let times = [
            (table.keep_for, BatchPolicy::keep_for as SetBatch<Duration>),
            (table.keep_inputs_for, BatchPolicy::keep_inputs_for),
            (table.keep_keys_for, BatchPolicy::keep_keys_for),
        ];
        for (value, set) in times {
            policy = value.map(Duration::from_millis).into_iter().fold(policy, set);
        }
        Ok(Some(policy))
    }

    /// That the store of batches can't be read, which the log tells more of.
    pub(crate) fn unreadable_batches(&self) -> UsageError {
        let error = StoreFault::Damaged("batches that are not over can't be read".to_owned());
        store_error(&self.root, &error)
    }

    /// Which setting no engine can be built with, and what can be done.
    pub(crate) fn build_error(&self, error: &BuildError) -> UsageError {
        let root = format!("root {}", self.root.display());
        let caused = |culprit: &str| UsageError::caused(culprit, error);
        match error {
            BuildError::SessionStore { .. } => {
                caused(&root).and("`[sessions] keep = false` serves without keeping them")
            }
            BuildError::SessionStoreInUse { .. } => caused(&root).and(ONE_SERVER),
            BuildError::BatchStore(fault) => store_error(&self.root, fault),
            BuildError::BatchOutputs { .. } => caused(&root).and(WITHOUT_BATCHES),
            BuildError::FileRoot { .. } | BuildError::HiddenPath { .. } | BuildError::Proc(_) => {
                caused(&root)
            }
            BuildError::ProtectedPath { path, .. } => caused(self.own_files.setting(path)),
            BuildError::CallerBytes { .. } => caused("[files] max-bytes-per-caller"),
            _ => caused("[limits]"),
        }
    }
}

impl UsageError {
    /// The same, and what can be done.
    fn and(self, advice: &str) -> Self {
        Self(format!("{}; {advice}", self.0))
    }
}

pub(crate) fn batches_dir(root: &Path) -> PathBuf {
    root.join("runtime/batches")
}

/// Why the store of batches can't be used, and what can be done.
pub(crate) fn store_error(root: &Path, error: &StoreFault) -> UsageError {
    let culprit = batches_dir(root).display().to_string();
    let told = UsageError::caused(&culprit, error);
    match error {
        StoreFault::InUse { .. } => told.and(ONE_SERVER),
        StoreFault::Damaged(_) => told.and(&format!(
            "`all-in-one export-batches --root {root}` prints what is readable, \
             `all-in-one repair-batches --root {root}` goes on with that and keeps the damaged file",
            root = root.display()
        )),
        StoreFault::Newer { .. } | StoreFault::Older { .. } => told,
        _ => told.and(WITHOUT_BATCHES),
    }
}

/// Makes a directory, unless nothing was ever kept in it and nothing can be: returns why.
fn can_never_be(directory: &Path) -> Option<io::Error> {
    let error = DirBuilder::new().recursive(true).mode(0o700).create(directory).err()?;
    let is_refused =
        matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied);
    (is_refused && !directory.exists()).then_some(error)
}

type SetSession<T> = fn(SessionPolicy, T) -> SessionPolicy;
type SetBatch<T> = fn(BatchPolicy, T) -> BatchPolicy;

const WITHOUT_BATCHES: &str = "`[batches] enabled = false` serves without batches";
const ONE_SERVER: &str =
    "one root is for one server: end the other one, or give this one a --root of its own";
