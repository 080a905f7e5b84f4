//! What one run may use.

use std::time::Duration;

/// One of the resources that [`Limits`] bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitKind {
    /// Processor time.
    CpuTime,
    /// Memory.
    Memory,
    /// Open files.
    OpenFiles,
    /// Processes and threads.
    Processes,
    /// Size of a file written.
    FileSize,
}

impl LimitKind {
    /// Every kind.
    pub const ALL: &[Self] =
        &[Self::CpuTime, Self::Memory, Self::OpenFiles, Self::Processes, Self::FileSize];

    /// Its name on every door, in messages and in configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuTime => "cpuTime",
            Self::Memory => "memory",
            Self::OpenFiles => "openFiles",
            Self::Processes => "processes",
            Self::FileSize => "fileSize",
        }
    }
}

/// Bounds on the resources of one run; `None` sets none. Wall time and output have their own
/// members in [`Request`](crate::Request).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Processor time of each process, rounded up to whole seconds; at the bound the process gets
    /// `SIGXCPU`, one second later `SIGKILL`.
    pub cpu_time: Option<Duration>,
    /// Bytes. With a writable cgroup and its memory controller, of the whole tree, which the
    /// kernel kills over it; otherwise the address space of each process, whose allocations fail.
    pub memory: Option<u64>,
    /// File descriptors of each process.
    pub open_files: Option<u64>,
    /// Processes and threads of the whole tree. Needs a writable cgroup and its pids controller.
    pub processes: Option<u64>,
    /// Bytes of any file that a process writes; over it, `SIGXFSZ`.
    pub file_size: Option<u64>,
}

impl Limits {
    /// The bound on `kind`, in its unit (processor time in milliseconds).
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
        }
    }

    /// The same limits with another bound on `kind`, in its unit (processor time in milliseconds).
    #[must_use]
    pub fn with(mut self, kind: LimitKind, value: u64) -> Self {
        match kind {
            LimitKind::CpuTime => self.cpu_time = Some(Duration::from_millis(value)),
            LimitKind::Memory => self.memory = Some(value),
            LimitKind::OpenFiles => self.open_files = Some(value),
            LimitKind::Processes => self.processes = Some(value),
            LimitKind::FileSize => self.file_size = Some(value),
        }
        self
    }

    /// These limits, and those of `fallback` where these set none.
    #[must_use]
    pub fn or(self, fallback: Self) -> Self {
        Self {
            cpu_time: self.cpu_time.or(fallback.cpu_time),
            memory: self.memory.or(fallback.memory),
            open_files: self.open_files.or(fallback.open_files),
            processes: self.processes.or(fallback.processes),
            file_size: self.file_size.or(fallback.file_size),
        }
    }
}
