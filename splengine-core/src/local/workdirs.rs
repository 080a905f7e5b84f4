use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::execute::{Command, ExecuteError};
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

impl Workdirs {
    /// Opens a root. A later rename of the directory has no effect.
    ///
    /// # Errors
    ///
    /// When `root` is no directory that can be opened.
    pub fn below(root: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self { root: Root::open(root.as_ref())?, protected: Protected::default() })
    }

    /// Refuses directories that are `path` or lie in it, as
    /// [`LocalExecutorBuilder::protect`](crate::local::LocalExecutorBuilder::protect) does. Default: none.
    ///
    /// # Errors
    ///
    /// When `path` is empty, or relative and the current directory is not known.
    pub fn protect(mut self, path: impl AsRef<Path>) -> io::Result<Self> {
        self.protected.add(path.as_ref())?;
        Ok(self)
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
