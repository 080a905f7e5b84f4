use std::path::PathBuf;

/// Cases in which runs are put into cgroups (version 2), which lets the kernel kill a tree in one
/// step and bound its memory and processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CgroupMode {
    /// Runs are put below the cgroup of this process, if that can be written; otherwise into none.
    #[default]
    Auto,
    /// No cgroups are used, even where they could be.
    Off,
    /// Runs are put below this directory, which must be a writable cgroup without processes of its own.
    At(PathBuf),
}
