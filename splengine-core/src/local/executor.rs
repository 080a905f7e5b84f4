use std::path::Path;

use crate::execute::{Cancel, Command, Execute, ExecuteError, Exit, LimitKind, Output, Stdin};
use crate::local::root::Root;
use crate::local::{LocalExecutorBuilder, SetupError};

/// Runs commands as child processes of this one.
pub struct LocalExecutor {
    root: Root,
}

impl LocalExecutor {
    /// Runs commands below `root` with the defaults of [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// As [`LocalExecutorBuilder::build`].
    pub fn new(root: impl AsRef<Path>) -> Result<Self, SetupError> {
        Self::builder(root).build()
    }

    /// Sets up an executor that runs commands below `root`.
    pub fn builder(root: impl AsRef<Path>) -> LocalExecutorBuilder {
        LocalExecutorBuilder::new(root.as_ref())
    }

    pub(crate) fn from_builder(builder: LocalExecutorBuilder) -> Result<Self, SetupError> {
        let LocalExecutorBuilder { root: path, .. } = builder;
        let root = Root::open(&path).map_err(|source| SetupError::Root { path, source })?;
        Ok(Self { root })
    }
}

impl Execute for LocalExecutor {
    async fn execute(
        &self,
        command: Command,
        _stdin: Stdin,
        _output: Output,
        _cancel: Cancel,
    ) -> Result<Exit, ExecuteError> {
        self.root.workdir(command.workdir.as_deref())?;
        Err(ExecuteError::internal("under construction"))
    }

    fn enforces(&self, _limit: LimitKind) -> bool {
        true
    }
}
