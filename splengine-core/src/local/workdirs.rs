use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::execute::{Command, ExecuteError};
use crate::local::SetupError;
use crate::local::builder::protect_all;
use crate::protected::Protected;
use crate::root::Root;

/// Working directories below a root of this host, for executors that start programs on it by themselves,
/// as in a sandbox.
///
/// [`LocalExecutor`](crate::LocalExecutor) resolves those of its commands alike: symbolic links and `..`
/// are followed as far as they stay below root, and no race with other processes leads out of it. For
/// directories of other hosts there is [`Command::relative_workdir`].
///
/// ```
/// use std::os::fd::{AsRawFd as _, OwnedFd};
///
/// use splengine_core::ExecuteError;
/// use splengine_core::execute::Command;
/// use splengine_core::local::Workdirs;
///
/// /// The process of a command in its directory, which has to stay open until that was started.
/// fn process(
///     workdirs: &Workdirs,
///     command: &Command,
/// ) -> Result<(std::process::Command, OwnedFd), ExecuteError> {
///     let dir = workdirs.open(command)?;
///     let mut process = std::process::Command::new("sandbox");
///     process.current_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())).args(&command.argv);
///     Ok((process, dir))
/// }
/// ```
#[derive(Debug)]
pub struct Workdirs {
    root: Root,
    protected: Protected,
}

/// Sets up [`Workdirs`]. Made by [`Workdirs::builder`].
///
/// ```
/// use splengine_core::local::Workdirs;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// # let root = root.path();
/// // No command works in the directory of the keys.
/// let workdirs = Workdirs::builder(root).protect(root.join("keys")).build()?;
/// # drop(workdirs);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct WorkdirsBuilder {
    root: PathBuf,
    protected: Vec<PathBuf>,
}

impl Workdirs {
    /// Opens a root, of which no directory is [protected](WorkdirsBuilder::protect).
    ///
    /// # Errors
    ///
    /// As [`WorkdirsBuilder::build`].
    pub fn below(root: impl AsRef<Path>) -> Result<Self, SetupError> {
        Self::builder(root).build()
    }

    /// Sets up working directories below `root`.
    pub fn builder(root: impl AsRef<Path>) -> WorkdirsBuilder {
        WorkdirsBuilder { root: root.as_ref().to_owned(), protected: Vec::new() }
    }

    /// Returns the root, as an absolute path: for [`Execute::root`](crate::Execute::root).
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.given()
    }

    /// Opens the directory of `command`, root itself if it names none. The descriptor closes on exec.
    /// Blocks for the file system.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::Workdir`] when it is missing, no directory, protected, or outside root;
    /// [`ExecuteError::Exhausted`] when the host lacks descriptors or memory.
    pub fn open(&self, command: &Command) -> Result<OwnedFd, ExecuteError> {
        self.root.workdir(command.workdir.as_deref(), &self.protected)
    }
}

impl WorkdirsBuilder {
    /// Refuses directories that are `path` or lie in it, as
    /// [`LocalExecutorBuilder::protect`](crate::local::LocalExecutorBuilder::protect) does. Default: none.
    pub fn protect(mut self, path: impl AsRef<Path>) -> Self {
        self.protected.push(path.as_ref().to_owned());
        self
    }

    /// Opens the root. A later rename of the directory has no effect.
    ///
    /// # Errors
    ///
    /// [`SetupError::Root`] when root is no directory that can be opened, [`SetupError::Protected`] when
    /// a path to be protected is empty, or relative and the current directory is not known.
    pub fn build(self) -> Result<Workdirs, SetupError> {
        let Self { root: path, protected } = self;
        let protected = protect_all(protected)?;
        let root = Root::open(&path).map_err(|source| SetupError::Root { path, source })?;
        Ok(Workdirs { root, protected })
    }
}
