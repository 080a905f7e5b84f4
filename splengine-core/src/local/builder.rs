use std::io;
use std::path::{Path, PathBuf};

use crate::local::{Environment, Holder, LocalExecutor};

/// Where runs are put into cgroups (version 2), which lets the kernel kill a tree in one step and
/// bound its memory and processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CgroupMode {
    /// Below the cgroup of this process, if that can be written; otherwise without.
    #[default]
    Auto,
    /// Without cgroups, even where they could be used.
    Off,
    /// Below this directory, which must be a writable cgroup without processes of its own.
    At(PathBuf),
}

/// Why a [`LocalExecutor`] could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// Root can't be opened.
    #[error("root `{}` can't be opened", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A path to be protected is none.
    #[error("`{}` can't be protected", path.display())]
    Protected {
        /// As it was given.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The cgroup that was asked for can't be used.
    #[error("cgroup `{}` can't be used", path.display())]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Something that containing process trees takes is missing here.
    #[error("process trees can't be contained here: {what}")]
    Containment {
        /// What is missing.
        what: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// Sets up a [`LocalExecutor`]. Made by [`LocalExecutor::builder`].
#[derive(Debug)]
#[must_use]
pub struct LocalExecutorBuilder {
    pub(crate) root: PathBuf,
    pub(crate) environment: Environment,
    pub(crate) cgroup: CgroupMode,
    pub(crate) reap_strangers: bool,
    pub(crate) holder: Option<Holder>,
    pub(crate) protected: Vec<PathBuf>,
}

impl LocalExecutorBuilder {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            environment: Environment::inherited(),
            cgroup: CgroupMode::default(),
            reap_strangers: false,
            holder: None,
            protected: Vec::new(),
        }
    }

    /// What commands get from their host. Default: [`Environment::inherited`].
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Whether runs are put into cgroups. Default: where it can be done.
    pub fn cgroup(mut self, cgroup: CgroupMode) -> Self {
        self.cgroup = cgroup;
        self
    }

    /// Also reaps children that no run started, one second after they died: for a program that starts
    /// no process but by its engine, above all for process 1 of a container, whom every orphan falls
    /// to. Default: no, since the process that embeds the engine may wait for children of its own.
    pub fn reap_strangers(mut self, reap: bool) -> Self {
        self.reap_strangers = reap;
        self
    }

    /// Starts the programs of terminals by way of `holder`, which keeps them when this process ends.
    /// Default: they are this process's children and end with it.
    pub fn holder(mut self, holder: Holder) -> Self {
        self.holder = Some(holder);
        self
    }

    /// Refuses working directories that are `path`, a directory of the host, or lie in it, by whatever
    /// name or link they are reached. To be called for each directory that
    /// [`FilePolicy::protect`](crate::FilePolicy::protect) hides; a path to something else protects
    /// nothing. Default: none are refused.
    ///
    /// Programs are not bound by this: they may enter and open whatever the user of this process may.
    pub fn protect(mut self, path: impl AsRef<Path>) -> Self {
        self.protected.push(path.as_ref().to_owned());
        self
    }

    /// The executor. It makes this process the reaper of all that its runs orphan
    /// (`PR_SET_CHILD_SUBREAPER` of prctl(2)), and starts one thread that reaps them.
    ///
    /// Processes of runs are known by their hard limits of `RLIMIT_LOCKS` and `RLIMIT_RSS`, which
    /// Linux does not enforce. A child that this process starts by itself is never signalled nor
    /// reaped, unless it lowers both of them and starts a session of its own.
    ///
    /// # Errors
    ///
    /// [`SetupError`] when root or the cgroup can't be used, or the kernel lacks what containing
    /// process trees takes.
    pub fn build(self) -> Result<LocalExecutor, SetupError> {
        LocalExecutor::from_builder(self)
    }
}
