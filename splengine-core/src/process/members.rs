//! The processes that belong to a run. With `tree`, the one place that sends signals.
//!
//! Four kinds of evidence, none of which an unprivileged process can make up, nor destroy all of:
//!
//! 1. its tag;
//! 2. its session, when that is the one of a leader who was not reaped yet: a process can leave its
//!    session, but enter none that is there already;
//! 3. its parent, when that belongs to the run;
//! 4. that it comes from some run (its limits were lowered and can't be raised), that nobody but
//!    this process is its parent any more, and that it is no older than the run. Who has rid itself
//!    of its tag, its session and its parents is a **stray**, and belongs to all runs that it may
//!    have come from: it ends with the first of them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid,
};

use crate::process::runs::{ClaimedRun, ClaimedRuns, await_starting, claimed};
use crate::process::tag::{Origin, Tag, may_raise_limits};

/// What `/proc/PID/stat` tells of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    is_zombie: bool,
    parent: Option<Pid>,
    session: Option<Pid>,
    /// In clock ticks since the kernel was booted.
    pub(crate) started: u64,
}

impl Stat {
    /// `None` when the process is gone.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        let text = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Self::parse(&text)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The name in parentheses may itself hold any byte; what follows it holds none of these.
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // One that is being reaped at this moment has -1 for what it has no more.
        let pid = |index: usize| {
            let number: i32 = fields.get(index)?.parse().ok()?;
            Some(Pid::from_raw(number.max(0)))
        };
        Some(Self {
            is_zombie: matches!(*fields.first()?, "Z" | "X" | "x"),
            parent: pid(1)?,
            session: pid(3)?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Run(Tag),
    /// A stray, or below one that was started then.
    Stray(u64),
    Nobody,
}

impl Owner {
    fn is(self, run: ClaimedRun) -> bool {
        match self {
            Self::Run(tag) => tag == run.tag,
            Self::Stray(started) => started >= run.started,
            Self::Nobody => false,
        }
    }
}

/// A process as a scan found it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    origin: Origin,
    /// Only where the origin alone does not tell enough.
    stat: Option<Stat>,
}

impl Seen {
    fn look(pid: Pid) -> Option<Self> {
        let origin = Origin::of(pid);
        let tells_enough = match origin {
            Origin::Gone => return None,
            Origin::Run(_) => true,
            Origin::SomeRun | Origin::Unreadable => false,
            // No member gets there, unless it may raise limits.
            Origin::Elsewhere => !may_raise_limits(),
        };
        Some(Self { origin, stat: if tells_enough { None } else { Some(Stat::of(pid)?) } })
    }
}

/// This process, whose children strays become.
#[derive(Debug, Clone, Copy)]
struct Own {
    pid: Pid,
    session: Option<Pid>,
}

impl Own {
    fn get() -> Self {
        let pid = getpid();
        // Not by getsid(2): as process 1 of a container this one may be in a session that began
        // outside, whose number is 0 here, which is no process to rustix.
        Self { pid, session: Stat::of(pid).and_then(|stat| stat.session) }
    }
}

/// Whose each of these processes is.
struct Owners<'a> {
    seen: &'a HashMap<Pid, Seen>,
    runs: &'a ClaimedRuns,
    own: Own,
    known: HashMap<Pid, Owner>,
}

impl Owners<'_> {
    fn of(&mut self, pid: Pid) -> Owner {
        let mut path = HashSet::new();
        let mut at = pid;
        let owner = loop {
            if let Some(owner) = self.known.get(&at) {
                break *owner;
            }
            if let Some(owner) = self.by_itself(at) {
                break owner;
            }
            // Numbers are given anew while a scan lasts, so that a path may lead back to itself.
            let parent = self.seen.get(&at).and_then(|seen| seen.stat?.parent);
            match parent {
                Some(parent) if self.seen.contains_key(&parent) && path.insert(at) => {
                    at = parent;
                }
                _ => break Owner::Nobody,
            }
        };
        self.known.extend(path.into_iter().chain([at]).map(|pid| (pid, owner)));
        owner
    }

    /// What is known without a look at its parent.
    fn by_itself(&self, pid: Pid) -> Option<Owner> {
        if pid == self.own.pid {
            return Some(Owner::Nobody);
        }
        if let Some(claimed) = self.runs.get(&pid) {
            return Some(Owner::Run(claimed.tag));
        }
        let seen = self.seen.get(&pid)?;
        if let Origin::Run(tag) = seen.origin {
            return Some(Owner::Run(tag));
        }
        let stat = seen.stat?;
        if let Some(owner) = by_session(&stat, self.runs) {
            return Some(owner);
        }
        if stat.parent != Some(self.own.pid) {
            return None;
        }
        // Those that this process started by itself are in its session, which nobody else enters.
        let is_stray = seen.origin == Origin::SomeRun && stat.session != self.own.session;
        Some(if is_stray { Owner::Stray(stat.started) } else { Owner::Nobody })
    }
}

fn by_session(stat: &Stat, runs: &ClaimedRuns) -> Option<Owner> {
    runs.get(&stat.session?).map(|run| Owner::Run(run.tag))
}

/// One process that belongs to a run.
pub(crate) struct Member {
    pub(crate) pid: Pid,
    pidfd: OwnedFd,
}

impl Member {
    /// The evidence is looked at again after the pidfd was opened. Whoever has the number then had
    /// it already when the pidfd was opened, or the pidfd's process is gone and nothing done to it
    /// has an effect: another process that gets the number later is never hit, nor robbed of its
    /// exit code.
    fn find(pid: Pid, seen: &Seen, look: impl Fn(Pid) -> Origin) -> Option<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let is_the_same = match seen.stat {
            Some(stat) => Stat::of(pid).is_some_and(|now| now.started == stat.started),
            None => look(pid) == seen.origin,
        };
        is_the_same.then_some(Self { pid, pidfd })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Whether it is a zombie or gone. One that is our child is reaped.
    pub(crate) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(ended) => ended.is_some(),
            // Not a child of ours: it hangs below another member.
            Err(_) => Stat::of(self.pid).is_none_or(|stat| stat.is_zombie),
        }
    }
}

/// All processes that belong to a run, strays included.
pub(crate) fn members(run: ClaimedRun) -> Vec<Member> {
    members_if(|owner, _| owner.is(run))
}

/// The strays that no run can have left which still lasts.
pub(crate) fn unclaimed_strays() -> Vec<Member> {
    members_if(is_unclaimed_stray)
}

fn members_if(wanted: impl Fn(Owner, &ClaimedRuns) -> bool) -> Vec<Member> {
    let seen = scan(Seen::look);
    let own = Own::get();
    let wanted = |runs: &ClaimedRuns| -> Vec<(Pid, Owner)> {
        let mut owners = Owners { seen: &seen, runs, own, known: HashMap::new() };
        let owned = seen.keys().map(|pid| (*pid, owners.of(*pid)));
        owned.filter(|(_, owner)| wanted(*owner, runs)).collect()
    };
    let runs = claimed().clone();
    let mut found = wanted(&runs);
    if found.iter().any(|(_, owner)| matches!(owner, Owner::Stray(_))) {
        // A leader that was only just started, or who hangs below it.
        let since = await_starting().unwrap_or(u64::MAX);
        let runs = claimed().clone();
        found = wanted(&runs);
        found.retain(|(_, owner)| !matches!(owner, Owner::Stray(started) if *started >= since));
    }
    found.into_iter().filter_map(|(pid, _)| Member::find(pid, &seen[&pid], Origin::of)).collect()
}

/// Whether a child of this process may belong to a run, and is not its leader: what a run's end
/// asks at the cost of a few system calls, since by then every member hangs below such a child.
pub(crate) fn may_be_of(pid: Pid, run: ClaimedRun) -> bool {
    owner_of_child(pid).is_some_and(|owner| owner.is(run))
}

/// Whether a child of this process may be one of [`unclaimed_strays`].
pub(crate) fn may_be_unclaimed_stray(pid: Pid) -> bool {
    owner_of_child(pid).is_some_and(|owner| is_unclaimed_stray(owner, &claimed()))
}

/// `None` for one that is claimed.
fn owner_of_child(pid: Pid) -> Option<Owner> {
    if claimed().contains_key(&pid) {
        return None;
    }
    let own = Own::get();
    let mut seen = HashMap::from([(pid, Seen::look(pid)?)]);
    // It may have been adopted since.
    if let Some(Seen { stat: Some(stat), .. }) = seen.get_mut(&pid) {
        stat.parent = Some(own.pid);
    }
    Some(Owners { seen: &seen, runs: &claimed(), own, known: HashMap::new() }.of(pid))
}

fn is_unclaimed_stray(owner: Owner, runs: &ClaimedRuns) -> bool {
    match owner {
        Owner::Stray(started) => !runs.values().any(|run| run.started <= started),
        Owner::Run(_) | Owner::Nobody => false,
    }
}

/// Whether a child of this process that nobody waits for was left by any run, living or over.
pub(crate) fn is_of_any_run(pid: Pid) -> bool {
    match Seen::look(pid) {
        None => false,
        Some(Seen { origin: Origin::Run(_), .. }) => true,
        Some(Seen { origin, stat }) => stat.is_some_and(|stat| {
            by_session(&stat, &claimed()).is_some()
                || origin == Origin::SomeRun && stat.session != Own::get().session
        }),
    }
}

/// Who is left of runs with these tags, whose engine is gone. Those that lost their tag are known
/// by their session and their parents, and else by this: they come from one of these runs, are this
/// user's, and hang below nobody but who adopts orphans, which is process 1, this one and those that
/// it descends from.
pub(crate) fn members_left(tags: &HashSet<Tag>) -> Vec<Member> {
    let look = |pid| Origin::among(tags, pid);
    let seen = scan(|pid| {
        let origin = look(pid);
        let stat = match origin {
            Origin::Gone => return None,
            Origin::Elsewhere if !may_raise_limits() => None,
            _ => Some(Stat::of(pid)?),
        };
        Some(Seen { origin, stat })
    });
    await_starting();
    let has_tag = |seen: &&Seen| matches!(seen.origin, Origin::Run(_));
    let left = Left {
        sessions: seen.values().filter(has_tag).filter_map(|seen| seen.stat?.session).collect(),
        adopters: adopters(),
        runs: claimed().clone(),
        own_session: Own::get().session,
        seen: &seen,
    };
    seen.iter()
        .filter(|(pid, _)| left.has(**pid, is_this_users))
        .filter_map(|(pid, seen)| Member::find(*pid, seen, look))
        .collect()
}

/// What [`members_left`] decides by.
struct Left<'a> {
    seen: &'a HashMap<Pid, Seen>,
    /// Of those that carry one of the tags.
    sessions: HashSet<Pid>,
    adopters: HashSet<Pid>,
    /// The runs that are not meant.
    runs: ClaimedRuns,
    own_session: Option<Pid>,
}

impl Left<'_> {
    fn has(&self, pid: Pid, is_this_users: impl Fn(Pid) -> bool) -> bool {
        let mut at = pid;
        let mut below: Option<(Pid, &Seen)> = None;
        // No path is longer, unless a number was given anew while the scan lasted.
        for _ in 0..=self.seen.len() {
            if self.adopters.contains(&at) {
                return below.is_some_and(|(pid, seen)| {
                    let session = seen.stat.and_then(|stat| stat.session);
                    seen.origin == Origin::SomeRun
                        && session != self.own_session
                        && is_this_users(pid)
                });
            }
            let Some(seen) = self.seen.get(&at) else { return false };
            let session = seen.stat.and_then(|stat| stat.session);
            let is_running = |pid: &Pid| self.runs.contains_key(pid);
            if matches!(seen.origin, Origin::Run(_)) {
                return true;
            }
            if is_running(&at) || session.as_ref().is_some_and(is_running) {
                return false;
            }
            if session.is_some_and(|session| self.sessions.contains(&session)) {
                return true;
            }
            let Some(parent) = seen.stat.and_then(|stat| stat.parent) else { return false };
            below = Some((at, seen));
            at = parent;
        }
        false
    }
}

/// Whom orphans of an engine that is gone may have fallen to.
fn adopters() -> HashSet<Pid> {
    let mut adopters = HashSet::from([Pid::INIT]);
    let mut at = Some(getpid());
    while let Some(pid) = at {
        if !adopters.insert(pid) {
            break;
        }
        at = Stat::of(pid).and_then(|stat| stat.parent);
    }
    adopters
}

/// Of a process whose limits may be read: only root reads those of others.
fn is_this_users(pid: Pid) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    !rustix::process::geteuid().is_root()
        || fs::metadata(format!("/proc/{}", pid.as_raw_nonzero())).is_ok_and(|dir| dir.uid() == 0)
}

fn scan(look: impl Fn(Pid) -> Option<Seen>) -> HashMap<Pid, Seen> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter_map(|pid| Some((pid, look(pid)?)))
        .collect()
}

/// This process's children that the kernel gave to its first thread: all that it adopted, since
/// orphans fall to the first thread that lives, and what that thread itself started.
pub(crate) fn own_children() -> io::Result<Vec<Pid>> {
    let own = getpid().as_raw_nonzero();
    let mut list = String::new();
    fs::File::open(format!("/proc/self/task/{own}/children"))?.read_to_string(&mut list)?;
    Ok(list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: i32 = 10;
    const OWN_SESSION: i32 = 9;
    const LEADER: i32 = 20;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).expect("not zero")
    }

    fn tag(number: u64) -> Tag {
        format!("{:x}", (1u64 << 60) | number).parse().expect("a tag")
    }

    fn run() -> ClaimedRun {
        ClaimedRun { tag: tag(1), started: 100 }
    }

    /// A process: its number, parent, session, start, and what its limits tell.
    type Row = (i32, i32, i32, u64, Origin);

    fn table(rows: &[Row]) -> HashMap<Pid, Seen> {
        let seen = |(number, parent, session, started, origin): &Row| {
            let stat = Stat {
                is_zombie: false,
                parent: Pid::from_raw(*parent),
                session: Pid::from_raw(*session),
                started: *started,
            };
            let tells_enough = matches!(origin, Origin::Run(_));
            (pid(*number), Seen { origin: *origin, stat: (!tells_enough).then_some(stat) })
        };
        rows.iter().map(seen).collect()
    }

    fn owner(rows: &[Row], of: i32) -> Owner {
        let seen = table(rows);
        let runs = ClaimedRuns::from([(pid(LEADER), run())]);
        let own = Own { pid: pid(OWN), session: Some(pid(OWN_SESSION)) };
        Owners { seen: &seen, runs: &runs, own, known: HashMap::new() }.of(pid(of))
    }

    #[test]
    fn a_run_has_who_shows_it_by_any_evidence() {
        use Origin::{Elsewhere, Run, SomeRun, Unreadable};
        let own = Owner::Run(tag(1));
        // The leader itself may have lost its tag.
        let leader = (LEADER, OWN, LEADER, 100, SomeRun);
        assert_eq!(owner(&[leader], LEADER), own);
        let by_tag = (30, OWN, 30, 110, Run(tag(1)));
        assert_eq!(owner(&[by_tag], 30), own);
        let by_session = (30, OWN, LEADER, 110, SomeRun);
        assert_eq!(owner(&[by_session], 30), own);
        let by_parents = [leader, (30, LEADER, 30, 110, SomeRun), (31, 30, 31, 120, SomeRun)];
        assert_eq!(owner(&by_parents, 31), own);
        // Who may raise limits, and who runs as another user.
        let raised = [leader, (30, LEADER, 30, 110, Elsewhere), (31, 30, 31, 120, Unreadable)];
        assert_eq!(owner(&raised, 31), own);
        // An engine in the run has runs of its own.
        let nested = [by_tag, (31, 30, 31, 120, SomeRun)];
        assert_eq!(owner(&nested, 31), own);
    }

    #[test]
    fn who_has_rid_itself_of_all_of_it_is_a_stray() {
        let alone = (30, OWN, 30, 110, Origin::SomeRun);
        assert_eq!(owner(&[alone], 30), Owner::Stray(110));
        let below = (31, 30, 31, 120, Origin::SomeRun);
        assert_eq!(owner(&[alone, below], 31), Owner::Stray(110));
        assert!(Owner::Stray(100).is(run()) && !Owner::Stray(99).is(run()));
    }

    #[test]
    fn what_no_run_started_is_let_be() {
        use Origin::{Elsewhere, SomeRun, Unreadable};
        let nobody = Owner::Nobody;
        for row in [
            (30, OWN, OWN_SESSION, 110, Elsewhere),
            (30, OWN, 30, 110, Elsewhere),
            (30, OWN, 30, 110, Unreadable),
            // A child of our own that lowered its limits.
            (30, OWN, OWN_SESSION, 110, SomeRun),
            // Another engine's stray.
            (30, 1, 30, 110, SomeRun),
        ] {
            assert_eq!(owner(&[row], 30), nobody, "{row:?}");
        }
        // A helper of ours has runs of its own.
        let helper = (21, OWN, 21, 50, Elsewhere);
        assert_eq!(owner(&[helper, (30, 21, 30, 110, SomeRun)], 30), nobody);
        // Numbers that were given anew make a circle.
        assert_eq!(owner(&[(30, 31, 30, 1, SomeRun), (31, 30, 30, 1, SomeRun)], 30), nobody);
    }

    fn is_left(rows: &[Row], of: i32) -> bool {
        let seen = table(rows);
        let left = Left {
            seen: &seen,
            sessions: HashSet::from([pid(40)]),
            adopters: HashSet::from([pid(1), pid(OWN)]),
            runs: ClaimedRuns::from([(pid(LEADER), run())]),
            own_session: Some(pid(OWN_SESSION)),
        };
        left.has(pid(of), |pid| pid.as_raw_nonzero().get() != 666)
    }

    #[test]
    fn of_a_dead_engine_only_its_own_are_ended() {
        use Origin::{Elsewhere, Run, SomeRun};
        assert!(is_left(&[(30, 1, 30, 5, Run(tag(9)))], 30));
        assert!(is_left(&[(30, 1, 40, 5, Elsewhere)], 30), "by its session");
        let below = [(30, 1, 30, 5, Run(tag(9))), (31, 30, 31, 5, Elsewhere)];
        assert!(is_left(&below, 31), "by its parent");
        for adopter in [1, OWN] {
            assert!(is_left(&[(30, adopter, 30, 5, SomeRun)], 30));
        }
        assert!(!is_left(&[(666, 1, 666, 5, SomeRun)], 666), "another user's");
        assert!(!is_left(&[(30, 1, OWN_SESSION, 5, SomeRun)], 30), "our own");
        assert!(!is_left(&[(30, 1, 30, 5, Elsewhere)], 30));
        assert!(!is_left(&[(1, 0, 1, 1, SomeRun)], 1), "an adopter itself");
        let others = [(50, 1, 50, 1, Elsewhere), (30, 50, 30, 5, SomeRun)];
        assert!(!is_left(&others, 30), "below another engine");
        for of_a_living_run in [(30, OWN, LEADER, 5, SomeRun), (30, LEADER, 30, 5, SomeRun)] {
            let leader = (LEADER, OWN, LEADER, 1, SomeRun);
            assert!(!is_left(&[leader, of_a_living_run], 30));
        }
    }

    #[test]
    fn a_name_hides_nothing() {
        let line = b"12 (a) Z 1 1 (\xff) S 3 12 11 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 9 9";
        let stat =
            Stat { is_zombie: false, parent: Some(pid(3)), session: Some(pid(11)), started: 777 };
        assert_eq!(Stat::parse(line), Some(stat));
        assert_eq!(Stat::parse(b"12 (a) Z 0 12 0 0"), None);
        let line = b"12 (a) X 0 -1 -1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 9 9";
        let reaped = Stat { is_zombie: true, parent: None, session: None, started: 777 };
        assert_eq!(Stat::parse(line), Some(reaped));
    }
}
