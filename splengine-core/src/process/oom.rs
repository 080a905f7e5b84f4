//! Kills by the kernel for memory.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The kernel's count of processes that it killed for memory in this process's own cgroup.
#[derive(Debug)]
pub(crate) struct OomCounter(Option<fs::File>);

impl OomCounter {
    /// The counter of this process's cgroup, of version 2 or 1, where it can be read.
    pub(crate) fn of_this_process() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let files = own.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
            match controllers {
                "" => Some(Path::new("/sys/fs/cgroup").join(path).join("memory.events")),
                "memory" => {
                    Some(Path::new("/sys/fs/cgroup/memory").join(path).join("memory.oom_control"))
                }
                _ => None,
            }
        });
        Self(files.filter_map(|path| fs::File::open(path).ok()).next())
    }

    /// The counter of one run's cgroup.
    pub(crate) fn of_cgroup(dir: &Path) -> Self {
        Self(fs::File::open(dir.join("memory.events")).ok())
    }

    /// So many so far; 0 where it can't be known.
    pub(crate) fn count(&self) -> u64 {
        let mut text = [0u8; 512];
        let Some(Ok(length)) = self.0.as_ref().map(|file| file.read_at(&mut text, 0)) else {
            return 0;
        };
        String::from_utf8_lossy(&text[..length])
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
            .unwrap_or(0)
    }
}
