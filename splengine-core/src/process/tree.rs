//! The processes of one run, and their end. The one place that sends signals.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};
use tokio::time::{Instant, sleep};

use crate::process::Group;
use crate::process::tag::Tag;

/// All that a run started: its leader, whoever carries its tag, whoever is in its cgroup.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) leader: Pid,
    pub(crate) tag: Tag,
    pub(crate) group: Option<Group>,
}

/// What became of the processes that a leader left behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// So many were killed.
    pub(crate) swept: u32,
    /// So many could not be.
    pub(crate) leftovers: u32,
}

impl Tree {
    /// Asks every process of the tree, the leader included, to end: each of them once, since many
    /// programs take a second request for a demand, and none that is started afterwards: a program
    /// may run others to clean up. One that is forked at this very moment may be passed over; it is
    /// killed after the grace.
    pub(crate) async fn ask_to_end(&self) {
        let tag = self.tag;
        blocking(move || {
            for member in members(tag) {
                member.signal(Signal::TERM);
                // One that is stopped hears of it only when it goes on.
                member.signal(Signal::CONT);
            }
        })
        .await;
    }

    /// Tells every process of the tree, the leader included, that its terminal is gone: what a
    /// shell ends at, which ignores the usual request.
    pub(crate) async fn hang_up(&self) {
        let tag = self.tag;
        blocking(move || {
            for member in members(tag) {
                for signal in [Signal::HUP, Signal::TERM, Signal::CONT] {
                    member.signal(signal);
                }
            }
        })
        .await;
    }

    /// Sends a signal of the caller's to the leader and its process group, as a terminal does. Only
    /// while the leader was not reaped.
    pub(crate) fn pass_on(&self, signal: crate::execute::Signal) {
        // One of the real-time signals that the C library keeps for itself has no name.
        if let Some(signal) = Signal::from_named_raw(signal.number()) {
            let _ = kill_process_group(self.leader, signal);
        }
    }

    /// Kills every process of the tree, the leader included, as far as one pass reaches.
    pub(crate) async fn kill(&self) {
        if !self.kill_at_once() {
            let tag = self.tag;
            blocking(move || members(tag).iter().for_each(|member| member.signal(Signal::KILL)))
                .await;
        }
    }

    /// The same for the destructor of a run whose future was dropped.
    pub(crate) fn kill_now(&self) {
        if !self.kill_at_once() {
            members(self.tag).iter().for_each(|member| member.signal(Signal::KILL));
        }
    }

    /// What the kernel does in one step, which no fork can slip through: kills the leader's group,
    /// and the cgroup. Says whether that was the whole tree.
    fn kill_at_once(&self) -> bool {
        // The leader was not reaped yet: its number can't be another group's.
        let _ = kill_process_group(self.leader, Signal::KILL);
        self.group.as_ref().is_some_and(|group| group.kill().is_ok())
    }

    /// Whether anybody but the leader may be left, at the cost of one small read. Only to be asked
    /// when the leader has ended and was not yet reaped: its children are ours by then.
    pub(crate) fn may_have_members(&self) -> bool {
        if let Some(group) = &self.group {
            return group.is_populated();
        }
        let belongs = |pid: &Pid| *pid != self.leader && self.tag.is_on(*pid);
        match own_children() {
            // The kernel may skip an entry when another one vanishes while it makes the list.
            Ok(first) if !first.is_empty() => {
                first.iter().any(belongs)
                    || own_children().map_or(true, |second| second.iter().any(belongs))
            }
            Ok(_) => false,
            Err(_) => true,
        }
    }

    /// Whether anybody but the leader is left alive.
    pub(crate) async fn has_members(&self) -> bool {
        self.may_have_members() && (self.group.is_some() || !self.living().await.is_empty())
    }

    /// Kills whoever is left but the leader, until nobody is, or for [`SWEEP_FOR`].
    pub(crate) async fn sweep(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let deadline = Instant::now() + SWEEP_FOR;
        let mut pause = Duration::from_millis(1);
        let mut seen = HashSet::new();
        while self.may_have_members() {
            let living = self.living().await;
            if living.is_empty() && self.group.is_none() {
                break;
            }
            seen.extend(living.iter().copied());
            if Instant::now() >= deadline {
                outcome.leftovers = u32::try_from(living.len().max(1)).unwrap_or(u32::MAX);
                tracing::error!(processes = outcome.leftovers, "processes outlive their run");
                break;
            }
            self.kill().await;
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        if !seen.is_empty() {
            // With a cgroup they are dead by now, but nobody has reaped them.
            self.living().await;
        }
        outcome.swept =
            u32::try_from(seen.len()).unwrap_or(u32::MAX).saturating_sub(outcome.leftovers);
        outcome
    }

    /// Everybody but the leader who is alive. Reaps those that are ours and are not.
    async fn living(&self) -> Vec<Pid> {
        let (tag, leader) = (self.tag, self.leader);
        blocking(move || {
            members(tag)
                .iter()
                .filter(|member| member.pid != leader && !member.has_ended())
                .map(|member| member.pid)
                .collect()
        })
        .await
    }
}

/// Kills whoever carries one of these tags, until nobody does or for [`SWEEP_FOR`]: what is left of
/// processes whose engine is gone. Gives how many were killed.
pub(crate) async fn kill_tagged(tags: HashSet<Tag>) -> usize {
    let deadline = Instant::now() + SWEEP_FOR;
    let mut seen = HashSet::new();
    if tags.is_empty() {
        return 0;
    }
    let tags = Arc::new(tags);
    loop {
        let tags = Arc::clone(&tags);
        let living = blocking(move || {
            let living: Vec<Member> =
                members_of(|pid| tags.iter().find(|tag| tag.is_on(pid)).copied())
                    .into_iter()
                    .filter(|member| !member.has_ended())
                    .collect();
            living.iter().for_each(|member| member.signal(Signal::KILL));
            living.iter().map(|member| member.pid).collect::<Vec<_>>()
        })
        .await;
        seen.extend(living.iter().copied());
        if living.is_empty() {
            return seen.len();
        }
        if Instant::now() >= deadline {
            tracing::error!(processes = living.len(), "processes outlive their engine");
            return seen.len() - living.len();
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// One process that carries a tag.
///
/// The tag is read again after the pidfd was opened. Whoever has the number then had it already
/// when the pidfd was opened, or the pidfd's process is gone and nothing done to it has an effect:
/// a stranger who gets the number later is never hit, nor robbed of its exit code.
struct Member {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Member {
    fn find(pid: Pid, tag: Tag) -> Option<Self> {
        let carries_tag = || tag.is_on(pid);
        let pidfd = carries_tag().then(|| pidfd_open(pid, PidfdFlags::empty()).ok())??;
        carries_tag().then_some(Self { pid, pidfd })
    }

    fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Whether it is a zombie or gone. One that is our child is reaped.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(ended) => ended.is_some(),
            // Not a child of ours: it hangs below another member.
            Err(_) => is_zombie(self.pid),
        }
    }
}

fn members(tag: Tag) -> Vec<Member> {
    members_of(|_| Some(tag))
}

/// Whoever carries the tag that it may have.
fn members_of(tag: impl Fn(Pid) -> Option<Tag>) -> Vec<Member> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter_map(|pid| Member::find(pid, tag(pid)?))
        .collect()
}

fn is_zombie(pid: Pid) -> bool {
    match fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
        // The name in parentheses may itself hold any of this line's marks.
        Ok(stat) => stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

/// A scan of all processes takes a microsecond for each: too long for a thread that serves others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// This process's children that the kernel gave to its first thread: all that it adopted, since
/// orphans fall to the first thread that lives, and what that thread itself started.
pub(crate) fn own_children() -> io::Result<Vec<Pid>> {
    let own = rustix::process::getpid().as_raw_nonzero();
    let mut list = String::new();
    fs::File::open(format!("/proc/self/task/{own}/children"))?.read_to_string(&mut list)?;
    Ok(list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect())
}

/// Whether `/proc` tells of the processes that this one's numbers mean.
pub(crate) fn proc_is_ours() -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str())
}

/// A killed process is gone in microseconds, unless it hangs in the kernel.
const SWEEP_FOR: Duration = Duration::from_secs(5);
