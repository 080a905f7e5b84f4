//! What an engine's policies name is opened, and locked, when it is built.

use std::path::Path;
use std::sync::Arc;

use crate::batch::{BatchPolicy, OpenedBatches};
use crate::engine::BuildError;
use crate::files::{FilePolicy, OpenedFiles, Tree, check_attributes};
use crate::lock::LockError;
use crate::os::check_handles;
use crate::root::Root;
use crate::session::{SessionPolicy, Store};

/// The tree of files below a policy's root, or else below that of commands, with what is hidden of it.
/// Makes nothing.
pub(super) fn files(
    policy: &FilePolicy,
    root_of_commands: Option<&Path>,
) -> Result<OpenedFiles, BuildError> {
    let path =
        policy.root.as_deref().or(root_of_commands).ok_or(BuildError::NoFileRoot)?.to_owned();
    let no_root = |source| BuildError::FileRoot { path: path.clone(), source };
    let root = Root::open(&path).map_err(no_root)?;
    check_handles().map_err(|error| BuildError::Proc(error.into()))?;
    let mut tree = Tree::new(root).map_err(|error| no_root(error.into()))?;
    for path in &policy.hidden {
        let hidden = tree.hide(path);
        hidden.map_err(|source| BuildError::HiddenPath { path: path.clone(), source })?;
    }
    for path in &policy.protected {
        let protected = tree.protect(path);
        protected.map_err(|source| BuildError::ProtectedPath { path: path.clone(), source })?;
    }
    let is_root_of_commands = root_of_commands.is_some_and(|root| tree.is_root(root));
    if policy.max_caller_bytes.is_none() {
        return Ok(OpenedFiles { tree, counted: None, is_root_of_commands });
    }
    let uncounted = |source| BuildError::CallerBytes { path: path.clone(), source };
    check_attributes(tree.root()).map_err(|error| uncounted(error.into()))?;
    let root = tree.root().try_clone_to_owned().map_err(uncounted)?;
    Ok(OpenedFiles { tree, counted: Some(root), is_root_of_commands })
}

/// The directory of sessions, if they are to be kept.
pub(super) fn sessions(policy: &SessionPolicy) -> Result<Option<Arc<Store>>, BuildError> {
    let Some(path) = &policy.store else { return Ok(None) };
    let path = path.clone();
    match Store::open(&path) {
        Ok(store) => Ok(Some(Arc::new(store))),
        Err(LockError::Held { pid }) => Err(BuildError::SessionStoreInUse { path, pid }),
        Err(LockError::Io(source)) => Err(BuildError::SessionStore { path, source }),
    }
}

/// The directory of outputs, and the store, which is written last.
pub(super) fn batches(policy: &BatchPolicy) -> Result<OpenedBatches, BuildError> {
    let outputs = policy.open_outputs().map_err(|source| {
        let path = policy.outputs.clone();
        BuildError::BatchOutputs { path, source }
    })?;
    policy.open(outputs).map_err(BuildError::BatchStore)
}
