//! Reaping what runs orphan while they last, or leave behind on purpose, and ending strays that no
//! run is left for.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::process::members::{
    is_of_any_run, may_be_unclaimed_stray, own_children, unclaimed_strays,
};
use crate::process::runs::claimed;

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
                let Ok(children) = own_children() else { continue };
                reap(&children, &mut zombies);
                if children.iter().any(|pid| may_be_unclaimed_stray(*pid)) {
                    let strays = unclaimed_strays();
                    strays.iter().for_each(|stray| stray.signal(Signal::KILL));
                }
            }
        })?;
    }
    Ok(())
}

/// Reaps the zombies that were there at the last look already. A child that has only just ended may
/// belong to a task that has had no time to claim it.
fn reap(children: &[Pid], zombies: &mut HashMap<Pid, OwnedFd>) {
    let strangers = REAP_STRANGERS.load(Relaxed);
    let mut seen = HashMap::new();
    for pid in children.iter().copied() {
        if claimed().contains_key(&pid) || !(strangers || is_of_any_run(pid)) {
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

static REAP_STRANGERS: AtomicBool = AtomicBool::new(false);
const EVERY: Duration = Duration::from_secs(1);
