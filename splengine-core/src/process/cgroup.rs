//! A cgroup (version 2) for each run, where they can be written.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{
    CWD, FlockOperation, Mode, OFlags, XattrFlags, fgetxattr, flock, fsetxattr, openat,
};

use crate::os::Limits;
use crate::process::OomCounter;

/// Makes the cgroups of runs, and keeps empty ones for the next.
#[derive(Debug)]
pub(crate) struct Cgroups {
    dir: PathBuf,
    /// Tells other engines that this one lives; see [`remove_abandoned`].
    _lock: OwnedFd,
    memory: bool,
    pids: bool,
    next: AtomicU64,
    idle: Mutex<Idle>,
}

/// The cgroups of runs that are over.
#[derive(Debug, Default)]
struct Idle {
    /// For the next runs.
    empty: Vec<Parts>,
    /// Directories of those that held processes when they were looked at last. No file of theirs is
    /// open: as many as there are, they take no descriptors from others.
    busy: VecDeque<PathBuf>,
}

/// The cgroup of one run; given back when dropped.
#[derive(Debug)]
pub(crate) struct Group {
    owner: Arc<Cgroups>,
    /// Taken out only in `drop`.
    parts: Option<Parts>,
    oom_before: u64,
    cpu_before: Option<Duration>,
}

#[derive(Debug)]
struct Parts {
    path: PathBuf,
    dir: OwnedFd,
    events: fs::File,
    kill: fs::File,
    oom: OomCounter,
    cpu: fs::File,
    /// Where the kernel can tell how many processes there were.
    leaf: Option<Leaf>,
    counts_processes: bool,
    memory_max: Option<u64>,
    pids_max: Option<u64>,
    /// It is not for another run: what it was marked with stays, and Linux (seen on 6.18) kills whoever is
    /// born into a cgroup that was ever killed, if the parent's was not.
    is_spent: AtomicBool,
}

/// A cgroup in that of a run, which counts its processes and does nothing else: the kernel never forgets
/// the most that were in one, and to have one anew is cheap only without a memory controller.
#[derive(Debug)]
struct Leaf {
    path: PathBuf,
    dir: OwnedFd,
    peak: fs::File,
}

impl Cgroups {
    /// Below the cgroup that this process is in; `None` where that can't be written.
    pub(crate) fn below_own() -> Option<Arc<Self>> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (mount, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(mount)
        })?;
        match Self::below(&Path::new(mount).join(path)) {
            Ok(cgroups) => Some(cgroups),
            Err(error) => {
                tracing::debug!(%error, "runs get no cgroup of their own");
                None
            }
        }
    }

    /// Below this cgroup, where runs get one each, in one that is this engine's.
    pub(crate) fn below(parent: &Path) -> io::Result<Arc<Self>> {
        remove_abandoned(parent);
        let (dir, lock) = make_own(parent)?;
        let mut cgroups = Self {
            dir,
            _lock: lock,
            memory: false,
            pids: false,
            next: AtomicU64::new(0),
            idle: Mutex::default(),
        };
        // Refused where the parent has no such controller. One that has processes of its own would be made
        // the root of threaded groups, by the pids controller, and those below it could hold none.
        let parents = [parent, &cgroups.dir].into_iter().filter(|parent| may_distribute(parent));
        for parent in parents {
            for controller in ["+memory", "+pids"] {
                let _ = fs::write(parent.join("cgroup.subtree_control"), controller);
            }
        }
        let enabled = fs::read_to_string(cgroups.dir.join("cgroup.subtree_control"))?;
        cgroups.memory = enabled.split_whitespace().any(|name| name == "memory");
        cgroups.pids = enabled.split_whitespace().any(|name| name == "pids");
        let cgroups = Arc::new(cgroups);
        // Proves that groups can be made, and that the kernel is new enough for cgroup.kill (5.14).
        drop(cgroups.group(&Limits::default())?);
        Ok(cgroups)
    }

    /// Whether the memory of a whole tree can be bounded.
    pub(crate) fn bounds_memory(&self) -> bool {
        self.memory
    }

    /// Whether the processes of a whole tree can be bounded.
    pub(crate) fn bounds_processes(&self) -> bool {
        self.pids
    }

    /// An empty group with these limits, as far as the controllers reach.
    pub(crate) fn group(self: &Arc<Self>, limits: &Limits) -> io::Result<Group> {
        let kept = self.idle().empty.pop();
        let parts = match kept {
            Some(parts) => parts,
            None => self.make()?,
        };
        // From here on it is given back, whatever fails.
        let mut group =
            Group { owner: Arc::clone(self), parts: Some(parts), oom_before: 0, cpu_before: None };
        let Some(parts) = &mut group.parts else { return Ok(group) };
        if parts.counts_processes && parts.leaf.is_none() {
            // No run is refused for the sake of a count.
            parts.leaf = Leaf::make(&parts.path).ok();
        }
        if self.memory && parts.memory_max != limits.memory {
            write_max(&parts.path.join("memory.max"), limits.memory)?;
            parts.memory_max = limits.memory;
        }
        let processes = limits.processes.filter(|count| *count <= MAX_PROCESSES);
        if self.pids && parts.pids_max != processes {
            write_max(&parts.path.join("pids.max"), processes)?;
            parts.pids_max = processes;
        }
        (group.oom_before, group.cpu_before) = (parts.oom.count(), parts.cpu_time());
        Ok(group)
    }

    fn make(&self) -> io::Result<Parts> {
        let path = self.dir.join(format!("run-{}", self.next.fetch_add(1, Relaxed)));
        fs::create_dir(&path)?;
        self.parts(path.clone()).inspect_err(|_| _ = fs::remove_dir(&path))
    }

    /// Sets up a new group, and opens its files.
    fn parts(&self, path: PathBuf) -> io::Result<Parts> {
        if self.memory {
            // Over its bound the tree is killed as a whole, and uses no swap instead.
            let _ = fs::write(path.join("memory.oom.group"), "1");
            let _ = fs::write(path.join("memory.swap.max"), "0");
        }
        // `pids.peak` is there since Linux 6.1.
        let counts_processes = self.pids
            && path.join("pids.peak").exists()
            && fs::write(path.join("cgroup.subtree_control"), "+pids").is_ok();
        Ok(Parts {
            dir: open_dir(&path)?,
            events: fs::File::open(path.join(EVENTS))?,
            kill: fs::File::options().write(true).open(path.join("cgroup.kill"))?,
            oom: OomCounter::of_cgroup(&path),
            cpu: fs::File::open(path.join("cpu.stat"))?,
            leaf: None,
            counts_processes,
            is_spent: AtomicBool::new(false),
            memory_max: None,
            pids_max: None,
            path,
        })
    }

    fn give_back(&self, mut parts: Parts) {
        let is_populated = parts.is_populated();
        // One with a higher peak would not tell of fewer processes.
        if !is_populated
            && let Some(leaf) = parts.leaf.take_if(|leaf| leaf.peak() != Some(1))
            && fs::remove_dir(&leaf.path).is_err()
        {
            // The run has made a group in it.
            parts.leaf = Some(leaf);
            parts.is_spent.store(true, Relaxed);
        }
        let mut idle = self.idle();
        if is_populated {
            // Beyond the bound nobody looks any more whether it has ended: an engine after this one
            // removes it.
            if idle.busy.len() < MAX_BUSY {
                idle.busy.push_back(parts.path);
            }
        } else if idle.empty.len() < KEPT && !parts.is_spent.load(Relaxed) {
            idle.empty.push(parts);
        } else {
            parts.remove();
        }
        // What a run left running on purpose may have ended by now.
        for _ in 0..idle.busy.len().min(LOOKED_AT) {
            let Some(path) = idle.busy.pop_front() else { break };
            let events = fs::File::open(path.join(EVENTS));
            if events.is_ok_and(|events| !self::is_populated(&events)) {
                remove_empty(&path, MAX_NESTED);
            } else {
                idle.busy.push_back(path);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        idle.empty.iter().for_each(Parts::remove);
        idle.busy.iter().for_each(|path| _ = remove_empty(path, MAX_NESTED));
        let _ = fs::remove_dir(&self.dir);
    }
}

impl Group {
    /// Its directory.
    pub(crate) fn dir(&self) -> Option<BorrowedFd<'_>> {
        let parts = self.parts.as_ref()?;
        Some(parts.leaf.as_ref().map_or(&parts.dir, |leaf| &leaf.dir).as_fd())
    }

    /// The most processes and threads that were in it at once since it was taken.
    pub(crate) fn peak_processes(&self) -> Option<u64> {
        // One that was in use before has never held more than one, and whoever is asked of holds one.
        self.parts.as_ref()?.leaf.as_ref()?.peak()
    }

    /// Kills every process in it, in one step.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match &self.parts {
            Some(parts) => {
                parts.is_spent.store(true, Relaxed);
                parts.kill.write_at(b"1", 0).map(drop)
            }
            None => Ok(()),
        }
    }

    /// Has the next engine let be what is in it: those are background processes that are to be kept.
    pub(crate) fn keep(&self) -> io::Result<()> {
        match &self.parts {
            Some(parts) => {
                // The mark stays, and is not for another run.
                parts.is_spent.store(true, Relaxed);
                Ok(fsetxattr(&parts.dir, KEPT_MARK, b"1", XattrFlags::empty())?)
            }
            None => Ok(()),
        }
    }

    /// Whether a process that is no zombie is in it.
    pub(crate) fn is_populated(&self) -> bool {
        self.parts.as_ref().is_some_and(Parts::is_populated)
    }

    /// The processor time that was used in it since it was taken.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        self.parts.as_ref()?.cpu_time()?.checked_sub(self.cpu_before?)
    }

    /// Whether the kernel killed in it for memory since it was taken.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.parts.as_ref().is_some_and(|parts| parts.oom.count() > self.oom_before)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            self.owner.give_back(parts);
        }
    }
}

impl Parts {
    fn is_populated(&self) -> bool {
        is_populated(&self.events)
    }

    fn cpu_time(&self) -> Option<Duration> {
        let mut text = [0u8; 512];
        let length = self.cpu.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        let micros =
            text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())?;
        Some(Duration::from_micros(micros))
    }

    fn remove(&self) {
        remove_empty(&self.path, MAX_NESTED);
    }
}

impl Leaf {
    fn make(parent: &Path) -> io::Result<Self> {
        let path = parent.join(LEAF);
        fs::create_dir(&path)?;
        Ok(Self { dir: open_dir(&path)?, peak: fs::File::open(path.join("pids.peak"))?, path })
    }

    fn peak(&self) -> Option<u64> {
        let mut text = [0u8; 24];
        let length = self.peak.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
    }
}

/// Whether a process that is no zombie is in the group that these events are of, or below it.
fn is_populated(events: &fs::File) -> bool {
    let mut text = [0u8; 128];
    match events.read_at(&mut text, 0) {
        Ok(length) => !text[..length].windows(11).any(|window| window == b"populated 0"),
        Err(_) => false,
    }
}

/// Removes a group without processes, and those that were made in it, down to a depth. Whether it is
/// gone.
fn remove_empty(group: &Path, depth: usize) -> bool {
    if fs::remove_dir(group).is_ok() {
        return true;
    }
    if depth > 0 {
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_empty(&entry.path(), depth - 1);
            }
        }
    }
    fs::remove_dir(group).is_ok()
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Whether a group may have its controllers bound those below it: it has no process of its own, or is
/// the root of all groups, the only one without a type.
fn may_distribute(group: &Path) -> bool {
    !group.join("cgroup.type").exists()
        || fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|all| all.trim().is_empty())
}

fn write_max(path: &Path, limit: Option<u64>) -> io::Result<()> {
    fs::write(path, limit.map_or("max".to_owned(), |limit| limit.to_string()))
}

/// A directory with a name that nobody else has, and the lock that keeps it.
fn make_own(parent: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    for _ in 0..4 {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let dir = parent.join(format!("{PREFIX}{:016x}", u64::from_ne_bytes(random)));
        fs::create_dir(&dir)?;
        // Before it is locked another engine may take it for abandoned, lock it and remove it.
        if let Ok(lock) = lock(&dir)
            && dir.exists()
        {
            return Ok((dir, lock));
        }
    }
    Err(io::Error::other("other engines took it away"))
}

/// Whether an engine made a directory of this name, as [`make_own`] does. Others may have a use for
/// the product's name, too.
fn is_name_of_own(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX);
    digits.is_some_and(|digits| {
        digits.len() == 16 && digits.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
    })
}

/// Only one process can hold it; the kernel lets go of it when that process ends, however it ends.
fn lock(dir: &Path) -> io::Result<OwnedFd> {
    let dir = open_dir(dir)?;
    flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
    Ok(dir)
}

/// Ends and removes what an engine left behind that was killed, but for what it kept on purpose.
///
/// Whether an engine lives is told by its lock. Its process number would not do: in another PID
/// namespace it means another process, or none.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_engines = entry.file_name().to_str().is_some_and(is_name_of_own);
        let Some(_lock) = is_engines.then(|| lock(&entry.path()).ok()).flatten() else { continue };
        tracing::info!(cgroup = %entry.path().display(), "ending what an engine left running");
        // Killed processes leave their groups when they have ended, which takes a moment; on a busy
        // host more.
        for _ in 0..400 {
            let mut is_over = true;
            for group in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                if !group.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                // What is kept may have made groups of its own, which are let be.
                let is_kept = is_kept(&group.path());
                let depth = if is_kept { 1 } else { MAX_NESTED };
                if !remove_empty(&group.path(), depth) && !is_kept {
                    is_over = false;
                    let _ = fs::write(group.path().join("cgroup.kill"), "1");
                }
            }
            // Fails while a group is left that is kept: an engine after this one will remove it.
            if fs::remove_dir(entry.path()).is_ok() || is_over {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether the engine that made it kept what was left in it: see [`Group::keep`].
fn is_kept(group: &Path) -> bool {
    open_dir(group).is_ok_and(|dir| fgetxattr(dir, KEPT_MARK, &mut [0u8; 8]).is_ok())
}

/// An extended attribute: groups can't be renamed.
const KEPT_MARK: &str = "user.splengine.kept";
/// As many as the kernel can number. It refuses a higher bound, which bounds nothing.
const MAX_PROCESSES: u64 = 4 << 20;
const LEAF: &str = "counted";
const EVENTS: &str = "cgroup.events";
const PREFIX: &str = "splengine-";
/// Empty groups kept for the next runs; making one takes about 50 µs.
const KEPT: usize = 64;
/// Groups of runs that are over, with processes that were kept: so many are looked after.
const MAX_BUSY: usize = 1024;
/// At so many of these is looked when a run ends, in turn: each look opens a file.
const LOOKED_AT: usize = 32;
/// How deep groups in that of a run are removed with it.
const MAX_NESTED: usize = 16;
