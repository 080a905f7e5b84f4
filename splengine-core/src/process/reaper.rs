//! Reaping what runs orphan while they last, or leave behind on purpose.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::process::tag::Tag;
use crate::process::tree::own_children;

/// Starts the one reaper of this process, if it does not run yet. With `strangers` it also reaps
/// children that no run started.
pub(crate) fn start(strangers: bool) -> io::Result<()> {
    static STARTED: OnceLock<()> = OnceLock::new();
    REAP_STRANGERS.fetch_or(strangers, Relaxed);
    if STARTED.set(()).is_ok() {
        std::thread::Builder::new().name("splengine-reaper".to_owned()).spawn(|| {
            let mut zombies = HashMap::new();
            loop {
                std::thread::sleep(EVERY);
                reap(&mut zombies);
            }
        })?;
    }
    Ok(())
}

/// Somebody waits for this child; the reaper leaves it alone.
pub(crate) fn claim(pid: Pid) {
    claimed().insert(pid);
}

/// Nobody waits for this child any more.
pub(crate) fn unclaim(pid: Pid) {
    claimed().remove(&pid);
}

/// Reaps the zombies that were there at the last look already. A child that has only just ended
/// may belong to somebody who has had no time to claim it.
fn reap(zombies: &mut HashMap<Pid, OwnedFd>) {
    let Ok(children) = own_children() else { return };
    let strangers = REAP_STRANGERS.load(Relaxed);
    let mut seen = HashMap::new();
    for pid in children {
        if claimed().contains(&pid) || !(strangers || Tag::of(pid).is_some()) {
            continue;
        }
        // The pidfd pins down who had this number at the last look.
        let pidfd = match zombies.remove(&pid) {
            Some(pidfd) => {
                let _ = waitid(
                    WaitId::PidFd(pidfd.as_fd()),
                    WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
                );
                continue;
            }
            None => pidfd_open(pid, PidfdFlags::empty()),
        };
        let Ok(pidfd) = pidfd else { continue };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if matches!(waitid(WaitId::PidFd(pidfd.as_fd()), look), Ok(Some(_))) {
            seen.insert(pid, pidfd);
        }
    }
    *zombies = seen;
}

fn claimed() -> MutexGuard<'static, HashSet<Pid>> {
    static CLAIMED: LazyLock<Mutex<HashSet<Pid>>> = LazyLock::new(Mutex::default);
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

static REAP_STRANGERS: AtomicBool = AtomicBool::new(false);
const EVERY: Duration = Duration::from_secs(1);
