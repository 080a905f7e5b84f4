//! Processes of this host: starting them, knowing whose they are, ending them. Without the feature `local` only the
//! system calls are left that other modules need.

#[cfg(feature = "local")]
mod attributes;
#[cfg(feature = "local")]
mod cgroup;
#[cfg(feature = "local")]
mod members;
#[cfg(feature = "local")]
mod oom;
#[cfg(feature = "local")]
mod reaper;
#[cfg(feature = "local")]
mod run_file;
#[cfg(feature = "local")]
mod runs;
#[cfg(feature = "local")]
mod spawn;
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "starting a process in one step takes system calls without a safe wrapper"
)]
#[cfg_attr(
    not(feature = "local"),
    expect(dead_code, reason = "what starts processes is in the same file")
)]
mod sys;
#[cfg(feature = "local")]
mod tag;
#[cfg(feature = "local")]
mod tree;

#[cfg(feature = "local")]
pub(crate) use attributes::Attributes;
#[cfg(feature = "local")]
pub(crate) use cgroup::{Cgroups, Group};
#[cfg(feature = "local")]
pub(crate) use oom::OomCounter;
#[cfg(feature = "local")]
pub(crate) use run_file::RunFile;
#[cfg(feature = "local")]
pub(crate) use runs::await_inherited_closed;
#[cfg(feature = "local")]
pub(crate) use spawn::{
    Leader, Pipes, Spawn, SpawnError, above_stdio, start_discarder, start_pty_host,
};
#[cfg(target_os = "linux")]
pub(crate) use sys::watch;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) use sys::{limit_free_memory, trim_heap};
#[cfg(feature = "local")]
pub(crate) use tag::{Tag, TagError};
#[cfg(feature = "local")]
pub(crate) use tree::{Outcome, Tree, kill_tagged, proc_is_ours};
#[cfg(feature = "local")]
pub(crate) use {
    reaper::start as start_reaper, sys::child_exits_are_ignored, tag::check as check_tags,
    tag::comes_from_a_run,
};

/// Waits for nothing: without an executor of this host, no child is being started that could have inherited a descriptor.
#[cfg(not(feature = "local"))]
pub(crate) fn await_inherited_closed() {}
