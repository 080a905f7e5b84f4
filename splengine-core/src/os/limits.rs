//! Limits of one run.

use std::time::Duration;

/// Resource that [`Limits`] bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitKind {
    /// Processor time of a process.
    CpuTime,
    /// Memory that the whole tree uses.
    Memory,
    /// Open files of a process.
    OpenFiles,
    /// Processes and threads of the whole tree.
    Processes,
    /// Size of a file written.
    FileSize,
    /// Addresses that are reserved.
    AddressSpace,
}

impl LimitKind {
    /// All kinds of limits.
    pub const ALL: &[Self] = &[
        Self::CpuTime,
        Self::Memory,
        Self::OpenFiles,
        Self::Processes,
        Self::FileSize,
        Self::AddressSpace,
    ];

    /// Returns the limit's name on every server, in messages and in configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuTime => "cpuTime",
            Self::Memory => "memory",
            Self::OpenFiles => "openFiles",
            Self::Processes => "processes",
            Self::FileSize => "fileSize",
            Self::AddressSpace => "addressSpace",
        }
    }
}

/// Bounds on the resources of one run; `None` sets none. Wall time and output have their own
/// members in [`Request`](crate::Request).
///
/// ```
/// use splengine_core::execute::Limits;
/// use splengine_core::{Caller, Engine, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// # let alice = Caller::new("alice")?.with_all_scopes();
/// let limits = Limits::new().open_files(64);
/// let request = Request::new("sh -c 'ulimit -n'").limits(limits);
/// assert_eq!(engine.execute(&alice, request).await?.capture().await.stdout, "64\n");
///
/// let defaults = Limits::new().open_files(256).file_size(1 << 20);
/// let both = limits.or(defaults);
/// assert_eq!((both.open_files, both.file_size), (Some(64), Some(1 << 20)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Processor time of each process, rounded up to whole seconds; at the bound the process gets
    /// `SIGXCPU`, one second later `SIGKILL`.
    pub cpu_time: Option<Duration>,
    /// Bytes of memory that the whole tree uses, which the kernel kills over it. Needs a writable
    /// cgroup and its memory controller.
    pub memory: Option<u64>,
    /// File descriptors of each process.
    pub open_files: Option<u64>,
    /// Processes and threads of the whole tree. Needs a writable cgroup and its pids controller.
    pub processes: Option<u64>,
    /// Bytes of any file that a process writes; over it, `SIGXFSZ`.
    pub file_size: Option<u64>,
    /// Bytes of address space of each process (`RLIMIT_AS`), over which its allocations fail. Programs
    /// reserve far more than they use: Node.js, Java and Go do not even start below many gigabytes.
    pub address_space: Option<u64>,
}

impl Limits {
    /// Makes limits that bound nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cpu_time: None,
            memory: None,
            open_files: None,
            processes: None,
            file_size: None,
            address_space: None,
        }
    }

    /// Sets the maximum processor time of each process, rounded up to whole seconds; a process that uses
    /// more is ended by the kernel (`SIGXCPU`, a second later `SIGKILL`). Default: none.
    #[must_use]
    pub const fn cpu_time(mut self, time: Duration) -> Self {
        self.cpu_time = Some(time);
        self
    }

    /// Sets the maximum memory in bytes of the whole tree; beyond it the kernel kills the run
    /// ([`Reason::OutOfMemory`](crate::Reason::OutOfMemory)). Needs a cgroup. Default: none.
    #[must_use]
    pub const fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Sets the maximum number of file descriptors of each process; opening more fails in the program
    /// (`EMFILE`). Default: none.
    #[must_use]
    pub const fn open_files(mut self, count: u64) -> Self {
        self.open_files = Some(count);
        self
    }

    /// Sets the maximum number of processes and threads of the whole tree; starting more fails in the
    /// program (`EAGAIN`). Needs a cgroup. Default: none.
    #[must_use]
    pub const fn processes(mut self, count: u64) -> Self {
        self.processes = Some(count);
        self
    }

    /// Sets the maximum size in bytes of a file that a process writes; a process that writes beyond it gets
    /// `SIGXFSZ`, or `EFBIG` if it ignores that. Default: none.
    #[must_use]
    pub const fn file_size(mut self, bytes: u64) -> Self {
        self.file_size = Some(bytes);
        self
    }

    /// Sets the maximum address space in bytes of each process; reserving more fails in the program
    /// (`ENOMEM`). Default: none.
    #[must_use]
    pub const fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// Returns the bound on `kind`, in its unit (processor time in milliseconds).
    #[must_use]
    pub fn value(&self, kind: LimitKind) -> Option<u64> {
        match kind {
            LimitKind::CpuTime => {
                self.cpu_time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }
            LimitKind::Memory => self.memory,
            LimitKind::OpenFiles => self.open_files,
            LimitKind::Processes => self.processes,
            LimitKind::FileSize => self.file_size,
            LimitKind::AddressSpace => self.address_space,
        }
    }

    /// Returns the limits with another bound on `kind`, in its unit (processor time in
    /// milliseconds).
    #[must_use]
    pub fn with(mut self, kind: LimitKind, value: u64) -> Self {
        match kind {
            LimitKind::CpuTime => self.cpu_time = Some(Duration::from_millis(value)),
            LimitKind::Memory => self.memory = Some(value),
            LimitKind::OpenFiles => self.open_files = Some(value),
            LimitKind::Processes => self.processes = Some(value),
            LimitKind::FileSize => self.file_size = Some(value),
            LimitKind::AddressSpace => self.address_space = Some(value),
        }
        self
    }

    /// Returns these limits, and those of `fallback` where these set none.
    #[must_use]
    pub fn or(self, fallback: Self) -> Self {
        Self {
            cpu_time: self.cpu_time.or(fallback.cpu_time),
            memory: self.memory.or(fallback.memory),
            open_files: self.open_files.or(fallback.open_files),
            processes: self.processes.or(fallback.processes),
            file_size: self.file_size.or(fallback.file_size),
            address_space: self.address_space.or(fallback.address_space),
        }
    }
}
