//! The processes of one run, and their end. With `members`, the one place that sends signals.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

use crate::process::Group;
use crate::process::members::{Member, Stat, may_be_of, members, members_left, own_children};
use crate::process::runs::ClaimedRun;
use crate::process::tag::Tag;

/// All that a run started: its leader, the processes that [belong to it](crate::process::members), and
/// those in its cgroup.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) leader: Pid,
    pub(crate) run: ClaimedRun,
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
    /// killed after the grace. Parents are asked before their children: a shell whose command ended
    /// first would go on with the next one.
    pub(crate) async fn ask_to_end(&self) {
        let (run, leader) = (self.run, self.leader);
        blocking(move || {
            for member in oldest_first(members(run), leader) {
                member.signal(Signal::TERM);
                // One that is stopped gets the signal only when it continues.
                member.signal(Signal::CONT);
            }
        })
        .await;
    }

    /// Tells every process of the tree, the leader included, that its terminal is gone: what a
    /// shell ends at, which ignores the usual request.
    pub(crate) async fn hang_up(&self) {
        let (run, leader) = (self.run, self.leader);
        blocking(move || {
            for member in oldest_first(members(run), leader) {
                for signal in [Signal::HUP, Signal::TERM, Signal::CONT] {
                    member.signal(signal);
                }
            }
        })
        .await;
    }

    /// Sends a signal of the caller's to the leader and its process group, as a terminal does. Only
    /// while the leader was not reaped.
    pub(crate) fn pass_on(&self, signal: crate::os::Signal) {
        // One of the real-time signals that the C library keeps for itself has no name.
        if let Some(signal) = Signal::from_named_raw(signal.number()) {
            let _ = kill_process_group(self.leader, signal);
        }
    }

    /// Kills every process of the tree, the leader included, as far as one pass reaches.
    pub(crate) async fn kill(&self) {
        self.kill_at_once();
        let run = self.run;
        blocking(move || kill_all(&members(run))).await;
    }

    /// The same for the destructor of a run whose future was dropped.
    pub(crate) fn kill_now(&self) {
        self.kill_at_once();
        kill_all(&members(self.run));
    }

    /// What the kernel does in one step, which no fork can slip through: kills the leader's group,
    /// and the cgroup. Either can be left by a member, who is then found by other evidence.
    fn kill_at_once(&self) {
        // The leader was not reaped yet: its number can't be another group's.
        let _ = kill_process_group(self.leader, Signal::KILL);
        if let Some(group) = &self.group {
            let _ = group.kill();
        }
    }

    /// Whether anybody but the leader may be left, at the cost of one small read. Only to be asked
    /// when the leader has ended and was not yet reaped: its children are ours by then.
    pub(crate) fn may_have_members(&self) -> bool {
        if self.is_group_populated() {
            return true;
        }
        let belongs = |pid: &Pid| *pid != self.leader && may_be_of(*pid, self.run);
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
        self.may_have_members() && (self.is_group_populated() || !self.living().await.is_empty())
    }

    /// Kills all processes that are left but the leader, until there are none, or for [`SWEEP_FOR`].
    pub(crate) async fn sweep(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let deadline = Instant::now() + SWEEP_FOR;
        let mut pause = Duration::from_millis(1);
        let mut seen = HashSet::new();
        while self.may_have_members() {
            let living = self.living().await;
            if living.is_empty() && !self.is_group_populated() {
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
        outcome.swept =
            u32::try_from(seen.len()).unwrap_or(u32::MAX).saturating_sub(outcome.leftovers);
        outcome
    }

    fn is_group_populated(&self) -> bool {
        self.group.as_ref().is_some_and(Group::is_populated)
    }

    /// Everybody but the leader who is alive. Reaps those that are ours and are not.
    async fn living(&self) -> Vec<Pid> {
        let (run, leader) = (self.run, self.leader);
        blocking(move || {
            members(run)
                .iter()
                .filter(|member| member.pid != leader && !member.has_ended())
                .map(|member| member.pid)
                .collect()
        })
        .await
    }
}

/// Kills the processes that are left of runs with these tags, whose engine is gone, until there are
/// none, or for [`SWEEP_FOR`]. Gives how many were killed.
pub(crate) async fn kill_tagged(tags: HashSet<Tag>) -> usize {
    blocking(move || kill_tagged_now(&tags)).await
}

/// The same as [`kill_tagged`]. Blocks.
pub(crate) fn kill_tagged_now(tags: &HashSet<Tag>) -> usize {
    let begun = Instant::now();
    let mut seen = HashSet::new();
    if tags.is_empty() {
        return 0;
    }
    loop {
        let living: Vec<Member> =
            members_left(tags).into_iter().filter(|member| !member.has_ended()).collect();
        kill_all(&living);
        seen.extend(living.iter().map(|member| member.pid));
        if living.is_empty() {
            return seen.len();
        }
        if begun.elapsed() >= SWEEP_FOR {
            tracing::error!(processes = living.len(), "processes outlive their engine");
            return seen.len() - living.len();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The leader, then the others by age. The kernel tells the age in hundredths of a second; within
/// one the number decides, which grows until the kernel begins with small ones again.
fn oldest_first(mut members: Vec<Member>, leader: Pid) -> Vec<Member> {
    members.sort_by_cached_key(|member| {
        (
            member.pid != leader,
            Stat::of(member.pid).map(|stat| stat.started),
            member.pid.as_raw_nonzero(),
        )
    });
    members
}

fn kill_all(members: &[Member]) {
    members.iter().for_each(|member| member.signal(Signal::KILL));
}

/// A scan of all processes takes a microsecond or more for each: too long for a thread that serves others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Whether `/proc` tells of the processes that this one's numbers mean.
pub(crate) fn proc_is_ours() -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str())
}

/// A killed process is gone in microseconds, unless it hangs in the kernel.
const SWEEP_FOR: Duration = Duration::from_secs(5);
