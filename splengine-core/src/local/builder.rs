use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::local::launch::Host;
use crate::local::pty_host::Cgroup;
use crate::local::{CgroupMode, Environment, LocalExecutor, PtyHost};
use crate::process::{self, Attributes, Cgroups, OomCounter, RunFile, TagError};
use crate::protected::Protected;
use crate::quota::CallerPlaces;
use crate::root::Root;

/// Reason for which a [`LocalExecutor`] or [`Workdirs`](crate::local::Workdirs) could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// Root can't be opened.
    #[error("root `{}` can't be opened", path.display())]
    Root {
        /// Root, as it was given.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A path to be protected is none.
    #[error("`{}` can't be protected", path.display())]
    Protected {
        /// Path as it was given.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The cgroup that was asked for can't be used.
    #[error("cgroup `{}` can't be used", path.display())]
    Cgroup {
        /// Directory of the cgroup.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The [directory of runs](LocalExecutorBuilder::runs_dir) can't be used.
    #[error("runs can't be noted in `{}`", path.display())]
    RunsDir {
        /// Directory of the notes.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A kernel feature needed to contain process trees is missing.
    #[error("process trees can't be contained here: {what}")]
    Containment {
        /// Name of the feature that is missing.
        what: &'static str,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
}

/// Sets up a [`LocalExecutor`]. Made by [`LocalExecutor::builder`].
///
/// Programs begin with as little of this process as can be:
///
/// | attribute | what a program begins with |
/// |---|---|
/// | file descriptors | standard input, output and error, and no other |
/// | signals | none blocked, none ignored |
/// | session, process group, terminal | its own |
/// | environment | [`environment`](Self::environment) and the request's |
/// | umask, open files | [`umask`](Self::umask), [`open_files`](Self::open_files) |
/// | core dumps | a soft limit of 0; programs may raise it |
/// | `oom_score_adj`, nice value | this process's, or that of [`oom_score_adj`](Self::oom_score_adj) and [`nice`](Self::nice) where that is more |
/// | scheduling policy | this process's, or `SCHED_OTHER` where that is a real-time one |
/// | disk priority | this process's, or the usual one where that is better |
/// | ambient capabilities | none |
/// | dumpable, parent-death signal | as for any program, the kernel resets them |
///
/// What this process has less of than usual, its programs have less of, too. They inherit the other
/// resource limits, the CPU affinity, the memory policy, namespaces, seccomp filters, securebits, the
/// switch for transparent huge pages and the session keyring: keep no secrets in that one. Attributes
/// of this process are read when the builder is made.
///
/// ```
/// use splengine_core::local::{CgroupMode, Environment};
/// use splengine_core::{Caller, Engine, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let executor = LocalExecutor::builder(".")
///     .environment(Environment::minimal().set("STAGE", "test"))
///     .cgroup(CgroupMode::Off)
///     .umask(0o027)
///     .nice(5)
///     .build()?;
/// let engine = Engine::builder(executor).build()?;
/// let alice = Caller::new("alice")?.with_all_scopes();
/// let request = Request::new("sh -c 'echo $STAGE; umask'");
/// let captured = engine.execute(&alice, request).await?.capture().await;
/// assert_eq!(captured.stdout, "test\n0027\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct LocalExecutorBuilder {
    root: PathBuf,
    environment: Environment,
    cgroup: CgroupMode,
    reap_unknown: bool,
    pty_host: Option<PtyHost>,
    protected: Vec<PathBuf>,
    attributes: Attributes,
    max_background_runs: usize,
    runs_dir: Option<PathBuf>,
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
}

impl LocalExecutorBuilder {
    fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            environment: Environment::inherited(),
            cgroup: CgroupMode::default(),
            reap_unknown: false,
            pty_host: None,
            protected: Vec::new(),
            attributes: Attributes::of_this_process(),
            max_background_runs: 512,
            runs_dir: None,
        }
    }

    /// Sets what commands get from their host. Default: [`Environment::inherited`].
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Sets whether runs are put into cgroups. Default: where it can be done.
    pub fn cgroup(mut self, cgroup: CgroupMode) -> Self {
        self.cgroup = cgroup;
        self
    }

    /// Also reaps children that no run started, one second after they ended: for a program that starts
    /// processes only by its engine, above all for process 1 of a container, which becomes the parent
    /// of every orphan. Default: no, since the process that embeds the engine may wait for children of
    /// its own.
    pub fn reap_unknown(mut self, reap: bool) -> Self {
        self.reap_unknown = reap;
        self
    }

    /// Starts the programs of terminals by way of `pty_host`, which keeps them when this process ends.
    /// Default: they are this process's children and end with it.
    pub fn pty_host(mut self, pty_host: PtyHost) -> Self {
        self.pty_host = Some(pty_host);
        self
    }

    /// Refuses working directories that are `path`, a directory of the host, or lie in it, by whatever
    /// name or link they are reached. To be called for each directory that
    /// [`FilePolicy::protect`](crate::files::FilePolicy::protect) hides; a path to something else protects
    /// nothing. Default: none are refused.
    ///
    /// Programs are not bound by this: they may enter and open whatever the user of this process may.
    pub fn protect(mut self, path: impl AsRef<Path>) -> Self {
        self.protected.push(path.as_ref().to_owned());
        self
    }

    /// Sets the maximum number of runs, default 512, that [keep](crate::execute::Background::Keep) their
    /// background processes and are running, or have left processes behind that still have its standard
    /// output or error open; one more is refused with
    /// [`TooManyKept`](crate::ExecuteError::TooManyKept). One caller may have half of them; 0 lets no
    /// run keep any. For each of these streams a `cat`, which continues when this process ends, reads
    /// what is printed and discards it; where the host has none at `/bin` or `/usr/bin`, processes that
    /// print are ended by `SIGPIPE`. Terminals do not count: [sessions](crate::session::SessionPolicy)
    /// are bounded by themselves.
    pub fn max_background_runs(mut self, count: usize) -> Self {
        self.max_background_runs = count;
        self
    }

    /// Sets the directory in a file of which it is noted which runs are going on, so that what this process leaves running when it is
    /// killed is ended by the next executor with the same directory, in [`build`](Self::build), which blocks for up to
    /// 5 s for it: also what has left its parent, its session and its process group, and where there are no cgroups.
    /// What a run [keeps](crate::execute::Background::Keep) in the background continues, and so do sessions in the
    /// [PTY host](Self::pty_host). Several executors may have one directory, which is made with mode 0700 where it is
    /// missing; runs of one that lives are left alone. To be hidden from callers as
    /// [`protect`](Self::protect) says. Default: none, and only batches, sessions, and what is in cgroups is ended.
    pub fn runs_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.runs_dir = Some(directory.into());
        self
    }

    /// Sets the file mode creation mask that programs begin with; bits outside of `0o777` are ignored.
    /// Default: the one of this process when [`LocalExecutor::builder`] was called.
    pub fn umask(mut self, mask: u32) -> Self {
        self.attributes.umask = Some(mask & 0o777);
        self
    }

    /// Sets the soft limit of open files (`RLIMIT_NOFILE`) that programs begin with, where their request
    /// sets no limit; at most this process's hard limit, up to which programs may raise it. Default:
    /// the one of this process when [`LocalExecutor::builder`] was called, so that a server that
    /// raises its own later raises none of theirs.
    pub fn open_files(mut self, soft: u64) -> Self {
        self.attributes.open_files = soft;
        self
    }

    /// Sets what programs have as their `oom_score_adj` (proc(5)), 0 to 1000, if this process has
    /// less: so that out of memory the kernel ends one of them, and not the server. Default: 0.
    pub fn oom_score_adj(mut self, at_least: u16) -> Self {
        self.attributes.raise_oom_score_adj(at_least);
        self
    }

    /// Sets what programs have as their nice value, 0 to 19, if this process has less. Default: 0.
    pub fn nice(mut self, at_least: u8) -> Self {
        self.attributes.raise_nice(at_least);
        self
    }

    /// Builds the executor. It makes this process the reaper of all that its runs orphan
    /// (`PR_SET_CHILD_SUBREAPER` of prctl(2)), and starts one thread that reaps them.
    ///
    /// Processes of runs are recognised by their hard limits of `RLIMIT_LOCKS` and `RLIMIT_RSS`, which
    /// Linux does not enforce. A child that this process starts by itself is never signalled nor
    /// reaped, unless it lowers both of them and starts a session of its own.
    ///
    /// # Errors
    ///
    /// [`SetupError`] when root, the cgroup or the directory of runs can't be used, or the kernel lacks a feature that is
    /// needed to contain process trees.
    pub fn build(self) -> Result<LocalExecutor, SetupError> {
        let Self {
            root: path,
            environment,
            cgroup,
            reap_unknown,
            pty_host,
            protected,
            attributes,
            max_background_runs,
            runs_dir,
        } = self;
        let protected = protect_all(protected)?;
        let pty_host = pty_host.map(|pty_host| (pty_host, Cgroup::from(&cgroup)));
        let root = Root::open(&path).map_err(|source| SetupError::Root { path, source })?;
        let missing = |what| move |source| SetupError::Containment { what, source };
        process::check_tags().map_err(|error| match error {
            TagError::Limited => missing(
                "this process's own RLIMIT_LOCKS or RLIMIT_RSS is too low",
            )(io::ErrorKind::Unsupported.into()),
            TagError::Unreadable(source) => missing("prlimit(2)")(source),
        })?;
        if !process::proc_is_ours() {
            let source = io::ErrorKind::Unsupported.into();
            return Err(missing("/proc is missing or shows another PID namespace")(source));
        }
        if process::child_exits_are_ignored() {
            let source = io::ErrorKind::Unsupported.into();
            return Err(missing("this process ignores SIGCHLD, and with it exit codes")(source));
        }
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| missing("PR_SET_CHILD_SUBREAPER")(error.into()))?;
        process::start_reaper(reap_unknown).map_err(missing("a thread"))?;
        let null = File::open("/dev/null").map_err(missing("/dev/null"))?;
        let cgroups = match cgroup {
            CgroupMode::Off => None,
            CgroupMode::Auto => Cgroups::below_own(),
            CgroupMode::At(path) => {
                Some(Cgroups::below(&path).map_err(|source| SetupError::Cgroup { path, source })?)
            }
        };
        let runs = match runs_dir {
            None => None,
            Some(path) => {
                let opened = RunFile::open(&path);
                let (runs, processes) =
                    opened.map_err(|source| SetupError::RunsDir { path, source })?;
                if processes > 0 {
                    tracing::info!(
                        processes,
                        "ended what an executor before this one had left running"
                    );
                }
                Some(runs)
            }
        };
        let oom = OomCounter::of_this_process();
        let kept = (max_background_runs > 0).then(|| CallerPlaces::new(max_background_runs));
        let host = Arc::new(Host { root, protected, environment, null, cgroups, attributes, runs });
        Ok(LocalExecutor { host, oom, kept, pty_host })
    }
}

/// Protects what each of these paths leads to.
pub(crate) fn protect_all(paths: Vec<PathBuf>) -> Result<Protected, SetupError> {
    let mut protected = Protected::default();
    for path in paths {
        protected.add(&path).map_err(|source| SetupError::Protected { path, source })?;
    }
    Ok(protected)
}
