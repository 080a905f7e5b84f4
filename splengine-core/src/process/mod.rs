//! Processes of this host: starting them, knowing whose they are, ending them.

mod attributes;
mod cgroup;
mod members;
mod oom;
mod reaper;
mod run_file;
mod runs;
mod spawn;
#[expect(
    unsafe_code,
    reason = "starting a process in one step takes system calls without a safe wrapper"
)]
mod sys;
mod tag;
mod tree;

pub(crate) use attributes::Attributes;
pub(crate) use cgroup::{Cgroups, Group};
pub(crate) use oom::OomCounter;
pub(crate) use run_file::RunFile;
pub(crate) use runs::await_inherited_closed;
pub(crate) use spawn::{
    Leader, Pipes, Spawn, SpawnError, above_stdio, start_discarder, start_pty_host,
};
pub(crate) use tag::{Tag, TagError};
pub(crate) use tree::{Outcome, Tree, kill_tagged, proc_is_ours};
pub(crate) use {
    reaper::start as start_reaper, sys::child_exits_are_ignored, sys::limit_free_memory,
    sys::trim_heap, sys::watch, tag::check as check_tags, tag::comes_from_a_run,
};
